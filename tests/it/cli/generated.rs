//! Completions and man pages: made of the commands that there are.

use std::fs;

use super::{offpeak, said};

/// As `--help` lists them.
async fn commands() -> Vec<String> {
    let help = said(offpeak(&["--help"])).await;
    let listed = help
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 15, "{names:?}");
    names
}

#[tokio::test]
async fn completions_name_every_command() {
    let commands = commands().await;
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = said(offpeak(&["completions", shell])).await;
        assert_eq!((script.code, script.err.as_str()), (Some(0), ""));
        for command in &commands {
            assert!(
                script.out.contains(command.as_str()),
                "{shell} lacks {command}"
            );
        }
        assert!(script.out.contains("concurrency"), "{shell}");
    }
    assert_eq!(said(offpeak(&["completions", "dos"])).await.code, Some(2));
}

#[tokio::test]
async fn every_command_has_a_page() {
    let commands = commands().await;
    let page = said(offpeak(&["man"])).await;
    assert!(page.code == Some(0) && page.out.contains(".TH"), "{page:?}");
    for command in &commands {
        assert!(
            page.out.contains(&format!("offpeak\\-{command}(1)")),
            "{command}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let written = said(offpeak(&["man", "--dir", pages.to_str().unwrap()])).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    for command in &commands {
        let page = fs::read_to_string(pages.join(format!("offpeak-{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{command}");
    }
    let submit = fs::read_to_string(pages.join("offpeak-submit.1")).unwrap();
    assert!(submit.contains("Exit codes"), "{submit}");
}
