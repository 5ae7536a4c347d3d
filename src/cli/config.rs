//! `offpeak config`: what the settings come to, without starting a server.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{
    Failure, log,
    say::{say, show},
    serve,
};
use crate::{
    app::{self, Settings},
    config::{Config, ConfigError, Difference},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read the settings as `serve` would, and tell all that is wrong with them and all
    /// that differs from the defaults. Ends with 0 if a server would start with them, with
    /// 1 if not, with 2 if they cannot be read.
    Check(Check),
}

#[derive(clap::Args)]
struct Check {
    /// Settings that differ from the defaults; every key is in config/default.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const UNREADABLE: u8 = 2;

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let Command::Check(check) = args.command;
    let reading = Reading::new(check.config.as_deref(), &[])?;
    match check.json {
        true => say(reading.to_json())?,
        false => show(reading.to_text())?,
    }
    Ok(match reading.problems.as_slice() {
        [] => ExitCode::SUCCESS,
        problems if problems.iter().any(|it| it.is_unreadable) => ExitCode::from(UNREADABLE),
        _ => ExitCode::FAILURE,
    })
}

/// The settings, with all that is wrong in them.
pub struct Reading {
    /// What a server would run with; values that are refused are at their defaults. None
    /// where they are not to be had even so.
    pub settings: Option<Settings>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
    pub differences: Vec<Difference>,
}

/// Why a server would not start.
pub struct Problem {
    /// A setting, or a variable that was meant to set one.
    pub key: Option<String>,
    /// The words of `serve`.
    pub message: String,
    /// The file of settings cannot be read, or is no TOML.
    pub is_unreadable: bool,
}

impl Reading {
    /// # Errors
    /// Only when the compiled-in defaults are no TOML.
    pub fn new(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Self, ConfigError> {
        let (mut config, errors) = Config::gather(file, std::env::vars_os(), flags)?;
        let differences = config.differences()?;
        let mut problems: Vec<Problem> = errors.into_iter().map(Problem::from).collect();
        let settings = usable(&mut config, &mut problems, Settings::read)?;
        let log = usable(&mut config, &mut problems, |config| {
            config.section::<log::Settings>("log")
        })?;
        let filter = log.and_then(|log| log::filter(&log).err());
        problems.extend(filter.map(Problem::of));
        if let Some(settings) = &settings {
            let more = app::check(settings, &serve::secrets(settings));
            problems.extend(more.into_iter().map(Problem::of));
            let traces = settings.traces.clone().within(serve::variable);
            problems.extend(traces.err().map(Problem::of));
        }
        let warnings = settings.as_ref().map(Settings::warnings);
        Ok(Reading {
            settings,
            problems,
            warnings: warnings.unwrap_or_default(),
            differences,
        })
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |line: String| {
            let _ = writeln!(text, "{line}");
        };
        match self.differences.as_slice() {
            [] if self.problems.is_empty() => line("All settings are at their defaults.".into()),
            [] => {}
            [_] => line("One setting differs from its default:".into()),
            more => line(format!(
                "{} settings differ from their defaults:",
                more.len()
            )),
        }
        for it in &self.differences {
            let default = it.default.as_deref();
            let default = default.map_or(String::new(), |it| format!("; the default is {it}"));
            line(format!(
                "  {} = {} ({}{default})",
                it.key, it.value, it.origin
            ));
        }
        for warning in &self.warnings {
            line(format!("warning: {warning}"));
        }
        for problem in &self.problems {
            line(format!("error: {}", problem.message));
        }
        line(match self.problems.len() {
            0 => "A server would start with these settings.".into(),
            1 => "A server would not start with these settings: one error.".into(),
            many => format!("A server would not start with these settings: {many} errors."),
        });
        text
    }

    fn to_json(&self) -> Value {
        let errors = self.problems.iter();
        let errors = errors.map(|it| json!({"key": it.key, "message": it.message}));
        let settings = self.differences.iter().map(|it| {
            json!({
                "key": it.key, "value": it.value, "default": it.default,
                "origin": it.origin.to_string(),
            })
        });
        json!({
            "object": "offpeak.config_check",
            "valid": self.problems.is_empty(),
            "errors": errors.collect::<Vec<_>>(),
            "warnings": self.warnings,
            "settings": settings.collect::<Vec<_>>(),
        })
    }
}

impl Problem {
    fn of(error: impl std::fmt::Display) -> Self {
        Problem {
            key: None,
            message: error.to_string(),
            is_unreadable: false,
        }
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Problem {
            key: error.key().map(str::to_owned),
            is_unreadable: matches!(error, ConfigError::Read { .. } | ConfigError::Syntax { .. }),
            ..Problem::of(&error)
        }
    }
}

/// What `read` makes of the settings once each value that it refuses is taken back, with
/// a problem for each.
fn usable<T>(
    config: &mut Config,
    problems: &mut Vec<Problem>,
    read: impl Fn(&Config) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    loop {
        let error = match read(config) {
            Ok(made) => return Ok(Some(made)),
            Err(error) => error,
        };
        // Each turn takes back something that was given, so that there is a last one.
        let is_taken_back = match error.key() {
            Some(key) => config.reset(key)?,
            None => false,
        };
        problems.push(error.into());
        if !is_taken_back {
            return Ok(None);
        }
    }
}
