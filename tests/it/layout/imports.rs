//! Reads a source file's imports and holds them against the rules.
//!
//! Sources are read as tokens, so that strings and comments do not count and
//! macro bodies do. Every path that starts at `crate`, or climbs out of its own
//! top module through `super`, is held against [`ALLOWED`].

use std::{fmt, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What each top module may import: whole modules, or paths inside them. A module
/// that is not listed may not exist.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("policy", &["model"]),
    ("ledger", &["model"]),
    ("ports", &["model"]),
    ("metrics", &["model", "ports"]),
    ("engine", &["model", "policy", "ledger", "ports", "metrics"]),
    ("store", &["model", "ports"]),
    ("provider", &["model", "ports"]),
    ("delivery", &["model", "ports"]),
    ("traces", &["model", "ports"]),
    ("dashboard", &[]),
    (
        "edge",
        &["model", "ports", "engine", "metrics", "dashboard"],
    ),
    ("simulator", &["model::time"]),
    ("backtest", &["model", "policy", "ledger"]),
    ("config", &["model"]),
    // The simulator is a thing to run, by itself or in the demo.
    // So is a backtest, with its prices. What a stopped server's directory holds is
    // checked, salvaged, copied and restored without the rest of the application, and
    // whether a webhook may be called is for its guard to say.
    (
        "cli",
        &[
            "model",
            "config",
            "app",
            "simulator",
            "backtest",
            "ledger",
            "store",
            "delivery",
            "ports::Store",
            "ports::Clock",
        ],
    ),
    ("app", ANYTHING),
    ("fuzzing", ANYTHING),
    ("main", &["cli"]),
];

/// What their `#[cfg(test)]` parts may import besides: small faithful adapters
/// in place of mocks.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    ("engine", &["store::memory"]),
    ("edge", &["store::memory"]),
    ("store", &["store"]),
];

const ANYTHING: &[&str] = &["*"];

/// An import that the rules forbid.
#[derive(Debug, PartialEq)]
pub struct Breach {
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// Checks the text of the file that holds `module` (`["engine", "packer"]`; empty
/// for lib.rs).
pub fn check(text: &str, module: &[String], in_test: bool) -> Vec<Breach> {
    let mut walk = Walk {
        module: module.to_vec(),
        in_test,
        breaches: Vec::new(),
    };
    walk.tokens(&lex(text));
    walk.breaches
}

struct Walk {
    /// Where the walk stands, inline modules included.
    module: Vec<String>,
    in_test: bool,
    breaches: Vec<Breach>,
}

impl Walk {
    fn tokens(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        let mut test_item = false;
        while at < tokens.len() {
            let rest = &tokens[at..];
            if let Some(attribute) = attribute(rest) {
                test_item |= is_cfg_test(&attribute);
                if named_file(&attribute).is_some_and(|file| file.contains('/')) {
                    let what = "a module's file stays in its own directory";
                    self.breach(&rest[0], what.into());
                }
                at += 2;
            } else if let Some((name, body)) = inline_module(rest) {
                self.inside(test_item, Some(name), &body);
                test_item = false;
                at += 3;
            } else if let Some((paths, length)) = paths(rest) {
                for path in paths {
                    self.path(&rest[0], &path, test_item);
                }
                at += length;
            } else {
                // An item ends with its body or a semicolon; so does its attribute.
                if let TokenTree::Group(group) = &rest[0] {
                    let body: Vec<_> = group.stream().into_iter().collect();
                    self.inside(test_item, None, &body);
                    test_item &= group.delimiter() != Delimiter::Brace;
                }
                test_item &= !is(&rest[0], ";");
                at += 1;
            }
        }
    }

    fn inside(&mut self, test: bool, name: Option<String>, body: &[TokenTree]) {
        let (depth, in_test) = (self.module.len(), self.in_test);
        self.module.extend(name);
        self.in_test |= test;
        self.tokens(body);
        self.module.truncate(depth);
        self.in_test = in_test;
    }

    fn path(&mut self, token: &TokenTree, path: &[String], test_item: bool) {
        let Some(target) = self.resolve(path) else {
            return;
        };
        let Some(own) = self.module.first().cloned() else {
            return; // lib.rs names its modules.
        };
        let listed = |name: &str| ALLOWED.iter().any(|(known, _)| *known == name);
        let tested = self.in_test || test_item;
        let allowed =
            may(ALLOWED, &own, &target) || (tested && may(ALLOWED_IN_TESTS, &own, &target));
        let written = path.join("::");
        let what = match target.first().map(String::as_str) {
            None | Some("*") => format!("`{written}` names the whole crate"),
            Some(top) if top == own => return,
            Some(top) if !listed(top) => format!("`{written}`: no rule knows `{top}`"),
            Some(_) if !listed(&own) => format!("no rule knows `{own}`"),
            Some(_) if allowed => return,
            Some(_) => format!("`{own}` may not import `{}`", target.join("::")),
        };
        self.breach(token, what);
    }

    /// The path from the crate's root; `None` for paths that do not start at the
    /// crate and do not climb.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = match path.first()?.as_str() {
            "crate" | "offpeak" => Vec::new(),
            _ => self.module.clone(),
        };
        for step in path {
            match step.as_str() {
                "super" => {
                    base.pop();
                }
                "crate" | "offpeak" | "self" => {}
                name => base.push(name.to_owned()),
            }
        }
        Some(base)
    }

    fn breach(&mut self, token: &TokenTree, what: String) {
        let line = token.span().start().line;
        self.breaches.push(Breach { line, what });
    }
}

fn may(rules: &[(&str, &[&str])], own: &str, target: &[String]) -> bool {
    let target = target.join("::");
    let covers = |allowed: &str| {
        let below = target.strip_prefix(allowed);
        allowed == "*" || below.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    rules
        .iter()
        .filter(|(name, _)| *name == own)
        .any(|(_, allowed)| allowed.iter().copied().any(covers))
}

/// The paths that start at the first token, groups spread out, and how many
/// tokens they take. Only those that start at the crate, or climb.
fn paths(tokens: &[TokenTree]) -> Option<(Vec<Vec<String>>, usize)> {
    let starts = ["crate", "super", "self", "offpeak"];
    if !starts
        .iter()
        .any(|start| is(tokens.first().unwrap(), start))
    {
        return None;
    }
    let aliased = is_crate(&tokens[0]) && tokens.get(1).is_some_and(|next| is(next, "as"));
    if !aliased && !is_colons(&tokens[1..]) {
        return None;
    }
    let mut found = Vec::new();
    let length = spread(tokens, Vec::new(), &mut found);
    Some((found, length))
}

fn spread(tokens: &[TokenTree], mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) => {
                path.push(name.to_string().trim_start_matches("r#").to_owned());
                at += 1;
            }
            Some(TokenTree::Punct(star)) if star.as_char() == '*' => {
                path.push("*".to_owned());
                at += 1;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for branch in inner.split(|token| is(token, ",")) {
                    if !branch.is_empty() {
                        spread(branch, path.clone(), found);
                    }
                }
                return at + 1;
            }
            _ => break,
        }
        if !is_colons(&tokens[at..]) {
            break;
        }
        at += 2;
    }
    found.push(path);
    at
}

/// The module paths that `#[cfg(test)] mod name;` puts into files of their own,
/// with those of files that a `#[path]` beside it names.
pub fn test_files(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let tokens = lex(text);
    let mut found = Vec::new();
    let mut test_item = false;
    let mut file = None;
    let mut at = 0;
    while at < tokens.len() {
        let rest = &tokens[at..];
        if let Some(attribute) = attribute(rest) {
            test_item |= is_cfg_test(&attribute);
            file = named_file(&attribute).or(file);
            at += 2;
            continue;
        }
        if let [first, TokenTree::Ident(name), end, ..] = rest
            && test_item
            && is(first, "mod")
            && is(end, ";")
        {
            found.push([module, &[name.to_string()]].concat());
            if let (Some(file), [above @ .., _]) = (&file, module) {
                found.push([above, &[file.trim_end_matches(".rs").to_owned()]].concat());
            }
        }
        let braces = matches!(&rest[0], TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
        if braces || is(&rest[0], ";") {
            (test_item, file) = (false, None);
        }
        at += 1;
    }
    found
}

/// The inside of an attribute that starts at the first token.
fn attribute(tokens: &[TokenTree]) -> Option<Vec<TokenTree>> {
    match tokens {
        [hash, TokenTree::Group(group), ..]
            if is(hash, "#") && group.delimiter() == Delimiter::Bracket =>
        {
            Some(group.stream().into_iter().collect())
        }
        _ => None,
    }
}

/// The file in `#[path = "file.rs"]`.
fn named_file(attribute: &[TokenTree]) -> Option<String> {
    match attribute {
        [name, _, TokenTree::Literal(file)] if is(name, "path") => {
            Some(file.to_string().trim_matches('"').to_owned())
        }
        _ => None,
    }
}

fn is_cfg_test(attribute: &[TokenTree]) -> bool {
    match attribute {
        [name, TokenTree::Group(condition)] if is(name, "cfg") => {
            condition.stream().to_string() == "test"
        }
        _ => false,
    }
}

fn inline_module(tokens: &[TokenTree]) -> Option<(String, Vec<TokenTree>)> {
    match tokens {
        [first, TokenTree::Ident(name), TokenTree::Group(body), ..]
            if is(first, "mod") && body.delimiter() == Delimiter::Brace =>
        {
            Some((name.to_string(), body.stream().into_iter().collect()))
        }
        _ => None,
    }
}

fn is(token: &TokenTree, text: &str) -> bool {
    match token {
        TokenTree::Ident(name) => name == text,
        TokenTree::Punct(mark) => text.len() == 1 && text.starts_with(mark.as_char()),
        _ => false,
    }
}

fn is_crate(token: &TokenTree) -> bool {
    is(token, "crate") || is(token, "offpeak")
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [first, second, ..] if is(first, ":") && is(second, ":"))
}

fn lex(text: &str) -> Vec<TokenTree> {
    let stream: TokenStream = text.parse().expect("Rust tokens");
    stream.into_iter().collect()
}

/// `src/engine/packer.rs` and `src/engine/packer/mod.rs` hold `engine::packer`.
pub fn module_of(source: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(source).unwrap().with_extension("");
    let names = inside.iter().map(|name| name.to_str().unwrap().to_owned());
    let mut module: Vec<String> = names.collect();
    if module.last().is_some_and(|name| name == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// The checker itself, on texts that break every rule.
mod tests {
    use super::*;

    fn breaches(module: &str, text: &str) -> Vec<String> {
        let module: Vec<String> = match module {
            "" => Vec::new(),
            module => module.split("::").map(str::to_owned).collect(),
        };
        let found = check(text, &module, false);
        found.iter().map(Breach::to_string).collect()
    }

    #[test]
    fn forbidden_imports_are_found() {
        let table: &[(&str, &str, &str)] = &[
            (
                "model",
                "use crate::policy;",
                "1: `model` may not import `policy`",
            ),
            (
                "model::time",
                "\n\nuse crate::policy::pack::plan as p;",
                "3: `model` may not import `policy::pack::plan`",
            ),
            (
                "policy",
                "use crate::{model, store::sled};",
                "1: `policy` may not import `store::sled`",
            ),
            (
                "engine",
                "use crate::{model::{id, time}, ports, edge::{hold::{self}}};",
                "1: `engine` may not import `edge::hold`",
            ),
            (
                "engine",
                "pub use crate::store::*;",
                "1: `engine` may not import `store::*`",
            ),
            (
                "engine",
                "fn f() { g(|| crate::store::open()) }",
                "1: `engine` may not import `store::open`",
            ),
            (
                "engine",
                "fn f() -> crate::provider::Files<u8> { x }",
                "1: `engine` may not import `provider::Files`",
            ),
            (
                "engine",
                "assert!(matches!(x, [crate::provider::A { .. }]));",
                "1: `engine` may not import `provider::A`",
            ),
            (
                "engine",
                "macro_rules! m { () => { $crate::store::x() } }",
                "1: `engine` may not import `store::x`",
            ),
            (
                "engine",
                "pub(in crate::store) fn f() {}",
                "1: `engine` may not import `store`",
            ),
            (
                "engine",
                "use crate::r#store::x;",
                "1: `engine` may not import `store::x`",
            ),
            (
                "ports",
                "use super::engine;",
                "1: `ports` may not import `engine`",
            ),
            (
                "engine::packer",
                "use super::super::store::memory;",
                "1: `engine` may not import `store::memory`",
            ),
            (
                "engine::packer",
                "use super::{wake, super::store};",
                "1: `engine` may not import `store`",
            ),
            (
                "engine::packer",
                "use self::super::super::store;",
                "1: `engine` may not import `store`",
            ),
            (
                "engine",
                "mod a { mod b { use super::super::super::edge; } }",
                "1: `engine` may not import `edge`",
            ),
            (
                "engine",
                "#[cfg(test)] mod a {} use crate::store::memory;",
                "1: `engine` may not import `store::memory`",
            ),
            (
                "engine",
                "#[cfg(test)] mod a { use crate::store::sled; }",
                "1: `engine` may not import `store::sled`",
            ),
            (
                "engine",
                "#[cfg(not(test))] use crate::store::memory;",
                "1: `engine` may not import `store::memory`",
            ),
            (
                "simulator",
                "use crate::provider::jsonl;",
                "1: `simulator` may not import `provider::jsonl`",
            ),
            (
                "simulator",
                "use crate::model::{time, timeless};",
                "1: `simulator` may not import `model::timeless`",
            ),
            (
                "simulator::wire",
                "#[cfg(test)] mod tests { use crate::provider; }",
                "1: `simulator` may not import `provider`",
            ),
            (
                "store",
                "use crate::provider;",
                "1: `store` may not import `provider`",
            ),
            (
                "cli::demo",
                "use crate::engine;",
                "1: `cli` may not import `engine`",
            ),
            (
                "main",
                "fn main() { offpeak::app::run() }",
                "1: `main` may not import `app::run`",
            ),
            (
                "engine",
                "use crate as root;",
                "1: `crate` names the whole crate",
            ),
            (
                "engine",
                "use crate::{self as root};",
                "1: `crate::self` names the whole crate",
            ),
            (
                "engine",
                "use crate::*;",
                "1: `crate::*` names the whole crate",
            ),
            (
                "ports",
                "use super::*;",
                "1: `super::*` names the whole crate",
            ),
            (
                "engine",
                "use crate::utils::x;",
                "1: `crate::utils::x`: no rule knows `utils`",
            ),
            ("utils", "use crate::model;", "1: no rule knows `utils`"),
            (
                "engine",
                "#[path = \"../store/sled.rs\"] mod sled;",
                "1: a module's file stays in its own directory",
            ),
        ];
        for (module, text, expected) in table {
            assert_eq!(breaches(module, text), [*expected], "{module}: {text}");
        }
    }

    #[test]
    fn allowed_imports_pass() {
        let table: &[(&str, &str)] = &[
            ("", "pub mod store; pub use crate::store;"),
            (
                "engine",
                "use crate::{model::{id::RequestId, time::*}, ports::Store};",
            ),
            (
                "engine::packer",
                "use super::wake; use crate::engine::driver; use self::x::y;",
            ),
            (
                "engine::packer",
                "mod tests { use super::*; use super::super::driver; }",
            ),
            (
                "engine",
                "#[cfg(test)] mod tests { use crate::store::memory::Memory; }",
            ),
            ("engine", "#[cfg(test)] use crate::store::memory;"),
            ("engine", "pub(crate) fn f(&self) -> u8 { self.store() }"),
            (
                "engine",
                "/// [`crate::store`]\nfn f() { let s = \"crate::store\"; } // crate::edge",
            ),
            ("engine", "use tokio::{sync, time}; fn f() { store::put() }"),
            (
                "simulator",
                "use crate::model::time::{self, Timestamp}; use crate::simulator::bill;",
            ),
            ("simulator", "use crate::model::time;"),
            (
                "app",
                "use crate::{edge, engine, provider, simulator, store::sled};",
            ),
            ("main", "fn main() -> ExitCode { offpeak::cli::main() }"),
        ];
        for (module, text) in table {
            assert_eq!(breaches(module, text), [""; 0], "{module}: {text}");
        }
    }

    #[test]
    fn a_test_module_may_be_a_file() {
        let module = ["engine".to_owned()];
        let text = "mod a; #[cfg(test)] mod tests; #[cfg(test)] fn f() {} mod b;";
        let found = test_files(text, &module);
        assert_eq!(found, [["engine", "tests"]]);
        let module: Vec<String> = found[0].clone();
        let named = "#[cfg(test)] #[path = \"send_tests.rs\"] mod tests;";
        let sender = ["delivery", "send"].map(str::to_owned);
        assert_eq!(test_files(named, &sender)[1], ["delivery", "send_tests"]);
        assert_eq!(check("use crate::store::memory;", &module, true), []);
    }

    #[test]
    fn modules_are_named_after_their_files() {
        let source = Path::new("src");
        let module = |file: &str| module_of(source, Path::new(file)).join("::");
        assert_eq!(module("src/lib.rs"), "");
        assert_eq!(module("src/main.rs"), "main");
        assert_eq!(module("src/ports.rs"), "ports");
        assert_eq!(module("src/engine/mod.rs"), "engine");
        assert_eq!(module("src/store/sled/lib.rs"), "store::sled::lib");
    }
}
