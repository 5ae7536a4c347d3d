//! The defaults fit the modules that own them: every key that a settings type
//! has, and none that it lacks.

use offpeak::{
    config::{Config, ConfigError},
    policy::{
        pack, poll, rescue,
        retry::{LiveSettings, SubmitSettings},
    },
};
use serde::de::DeserializeOwned;

#[test]
fn every_section_fits_its_owner() {
    let config = Config::defaults().unwrap();
    let sections = [
        ("packing", fits::<pack::Settings>(&config, "packing")),
        ("submit", fits::<SubmitSettings>(&config, "submit")),
        ("watch", fits::<poll::Settings>(&config, "watch")),
        ("rescue", fits::<rescue::Settings>(&config, "rescue")),
        ("live", fits::<LiveSettings>(&config, "live")),
    ];
    for (name, fits) in sections {
        if let Err(error) = fits {
            panic!("[{name}]: {error}");
        }
    }
}

fn fits<T: DeserializeOwned>(config: &Config, section: &str) -> Result<(), ConfigError> {
    config.section::<T>(section).map(drop)
}
