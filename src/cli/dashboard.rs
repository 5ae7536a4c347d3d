//! `offpeak dashboard`: a link to the page of a running server.

use std::process::ExitCode;

use serde_json::json;
use url::form_urlencoded;

use super::{
    Failure,
    say::say,
    server::{Server, Who},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let server = &args.server;
    // A link to nowhere, or with a token that opens nothing, is told here.
    server.get(Who::Operator, "/offpeak/admin/status").await?;
    let link = link(server.base(), &server.key(Who::Operator)?);
    match server.json {
        true => say(json!({"object": "offpeak.dashboard", "url": link}))?,
        false => say(&link)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The token stands in the fragment, which browsers send to nobody.
fn link(base: &str, token: &str) -> String {
    let fragment = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", token)
        .finish();
    format!("{base}/offpeak/#{fragment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_token_the_page_reads_it() {
        for token in ["adm_x1", "a b&c=d#e%2F+ü"] {
            let link = link("https://offpeak.example/below", token);
            let (page, fragment) = link.split_once('#').unwrap();
            assert_eq!(page, "https://offpeak.example/below/offpeak/");
            let read: Vec<_> = form_urlencoded::parse(fragment.as_bytes()).collect();
            assert_eq!(read, [("token".into(), token.into())]);
        }
    }
}
