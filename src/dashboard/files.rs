//! What the page is made of, compiled in.

use std::sync::LazyLock;

use http::HeaderValue;

pub struct File {
    /// Where it is served.
    pub path: String,
    /// Its media type.
    pub kind: &'static str,
    /// Of its bytes.
    pub etag: HeaderValue,
    pub bytes: &'static [u8],
}

/// The page itself, and what it loads.
pub fn all() -> &'static [File] {
    &FILES
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let sources = SOURCES.iter();
    sources
        .map(|(name, bytes)| File::new(name, bytes))
        .collect()
});

macro_rules! sources {
    ($($name:literal)*) => { &[$(($name, include_bytes!(concat!("assets/", $name)))),*] };
}

const SOURCES: &[(&str, &[u8])] = sources! {
    "index.html" "style.css" "icon.svg" "theme.js"
    "main.js" "actions.js" "appearance.js" "session.js" "sheet.js" "api.js" "live.js"
    "rounds.js" "listing.js" "groups.js"
    "dom.js" "dialogs.js" "charts.js" "money.js" "words.js"
    "views/totals.js" "views/savings.js" "views/now.js" "views/deadlines.js"
    "views/batches.js" "views/requests.js" "views/request.js" "views/webhooks.js"
    "views/turnaround.js"
    "vendor/uPlot.esm.js" "vendor/uPlot.min.css" "vendor/LICENSE"
};

impl File {
    fn new(name: &str, bytes: &'static [u8]) -> File {
        let hash = blake3::hash(bytes).to_hex();
        let etag = format!("\"{}\"", &hash[..32]);
        File {
            path: match name {
                "index.html" => "/offpeak/".to_owned(),
                _ => format!("/offpeak/assets/{name}"),
            },
            kind: kind(name),
            etag: HeaderValue::from_str(&etag).expect("a hash in quotes is ASCII"),
            bytes,
        }
    }
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn files_in(directory: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_in(&path, root, found);
            } else if path.extension().is_none_or(|extension| extension != "md") {
                let name = path.strip_prefix(root).unwrap();
                found.insert(name.to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_is_served() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard/assets");
        let mut there = BTreeSet::new();
        files_in(&root, &root, &mut there);
        let listed: BTreeSet<String> = SOURCES.iter().map(|(name, _)| (*name).into()).collect();
        assert_eq!(listed, there);
    }

    /// The Content-Security-Policy forbids both, so that they would only seem to work.
    #[test]
    fn nothing_is_inline_and_nothing_is_from_elsewhere() {
        let page = str::from_utf8(SOURCES[0].1).unwrap();
        for forbidden in [
            "style=", "onclick=", "<style", "<script>", "https://", "http://",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let own = SOURCES
            .iter()
            .filter(|(name, _)| !name.starts_with("vendor/"));
        for (name, bytes) in own.filter(|(name, _)| name.ends_with(".js")) {
            let text = str::from_utf8(bytes).unwrap();
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
            ] {
                assert!(!text.contains(forbidden), "{name}: {forbidden}");
            }
        }
    }
}
