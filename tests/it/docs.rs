//! The pages for people: links lead somewhere, the index has every page, and settings
//! that are shown can be set.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use offpeak::{app::Settings, config::Config, ledger::Prices};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Pages in the root; all of docs/ come besides.
const PAGES: [&str; 4] = [
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CHANGELOG.md",
];
/// Whose TOML is not settings but laws of a provider.
const LAWS: &str = "docs/simulate.md";

#[derive(Debug, Default, PartialEq)]
struct Page {
    links: Vec<String>,
    /// Of its headings, as GitHub makes them.
    anchors: BTreeSet<String>,
    /// What stands in blocks of TOML.
    toml: Vec<String>,
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let pages = pages();
    let mut followed = 0;
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for link in &page.links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => flat(&path.parent().unwrap().join(file)),
            };
            let found = match pages.get(&target) {
                Some(page) => anchor.is_empty() || page.anchors.contains(anchor),
                None => anchor.is_empty() && root().join(&target).exists(),
            };
            if !found {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(followed > 50, "the search finds nothing");
    assert_eq!(broken, [""; 0]);
}

#[test]
fn the_index_has_every_page() {
    let index = read(Path::new("docs/README.md"));
    let linked: BTreeSet<&str> = index.links.iter().map(String::as_str).collect();
    for path in pages().keys() {
        if let Ok(name) = path.strip_prefix("docs") {
            let name = name.to_str().unwrap();
            assert!(name == "README.md" || linked.contains(name), "{name}");
        }
    }
}

#[test]
fn settings_that_are_shown_can_be_set() {
    let mut shown = 0;
    for (path, page) in pages() {
        if path == Path::new(LAWS) {
            continue;
        }
        for text in page.toml {
            shown += 1;
            // A list of prices, which begins with its date.
            if text.starts_with("updated") {
                Prices::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                continue;
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &text).unwrap();
            let config = Config::load(Some(file.path()), [("", ""); 0], &[]);
            let config =
                config.unwrap_or_else(|error| panic!("{}: {error}\n{text}", path.display()));
            if let Err(error) = Settings::read(&config) {
                panic!("{}: {error}\n{text}", path.display());
            }
        }
    }
    assert!(shown > 0, "the search finds nothing");
}

#[test]
fn a_page_is_read_as_github_shows_it() {
    let page = parse(
        "# A page\n## `GET /a/{id}`, twice_over\n### Same\n### Same\n\
         [one](b.md#c) and ![two](d.png)\n\n```toml\na = 1\n```\n```sh\n[no](link)\n```\n",
    );
    let anchors = ["a-page", "get-aid-twice_over", "same", "same-1"];
    let expected = Page {
        links: vec!["b.md#c".into(), "d.png".into()],
        anchors: anchors.map(String::from).into(),
        toml: vec!["a = 1\n".into()],
    };
    assert_eq!(page, expected);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// By their paths below the root.
fn pages() -> BTreeMap<PathBuf, Page> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    let docs = docs.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let all = PAGES.iter().map(PathBuf::from).chain(docs);
    all.map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> Page {
    let text = fs::read_to_string(root().join(path));
    parse(&text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn parse(text: &str) -> Page {
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    let mut is_toml = false;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let next = (1..).map(|number| format!("{anchor}-{number}"));
                let mut names = std::iter::once(anchor.clone()).chain(next);
                page.anchors
                    .extend(names.find(|name| !page.anchors.contains(name)));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(kind))) => is_toml = &*kind == "toml",
            Event::End(TagEnd::CodeBlock) => is_toml = false,
            Event::Text(text) if is_toml => page.toml.push(text.into_string()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    page
}

/// Lower case; spaces become hyphens, and of other signs only `-` and `_` stay.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter_map(|sign| match sign {
        ' ' => Some('-'),
        '-' | '_' => Some(sign),
        sign => sign.is_alphanumeric().then_some(sign),
    });
    kept.collect()
}

/// Without `.` and `..`.
fn flat(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                flat.pop();
            }
            std::path::Component::CurDir => {}
            part => flat.push(part),
        }
    }
    flat
}
