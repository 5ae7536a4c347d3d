//! The routes that the sources of the namespace declare.

use std::{collections::BTreeSet, fs, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::document::Operation;

/// What is below these is an API, and documented; the rest are pages for browsers.
const API: [&str; 6] = [
    "/offpeak/v1/",
    "/offpeak/admin/",
    "/offpeak/webhooks/",
    "/healthz",
    "/readyz",
    "/metrics",
];

/// Every `.route("/…", get(…).post(…))` below a directory. What takes any method
/// (`any(…)`) answers that there is nothing.
pub fn declared(directory: &Path) -> BTreeSet<Operation> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(declared(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            scan(text.parse().unwrap(), &mut found);
        }
    }
    found
}

fn scan(tokens: TokenStream, found: &mut BTreeSet<Operation>) {
    let mut is_route = false;
    for token in tokens {
        if let TokenTree::Group(group) = &token {
            if is_route && group.delimiter() == Delimiter::Parenthesis {
                found.extend(route(group.stream()));
            }
            scan(group.stream(), found);
        }
        is_route = matches!(&token, TokenTree::Ident(name) if name == "route");
    }
}

/// The arguments of one `route`.
fn route(arguments: TokenStream) -> Vec<Operation> {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let mut tokens = arguments.into_iter();
    let Some(TokenTree::Literal(path)) = tokens.next() else {
        return Vec::new();
    };
    let path = path.to_string().trim_matches('"').to_owned();
    if !API.iter().any(|below| path.starts_with(below)) {
        return Vec::new();
    }
    let names = tokens.filter_map(|token| match token {
        TokenTree::Ident(name) => Some(name.to_string()),
        _ => None,
    });
    let methods = names.filter(|name| METHODS.contains(&name.as_str()));
    methods
        .map(|method| (method.to_uppercase(), path.clone()))
        .collect()
}

#[test]
fn a_route_is_found_with_its_methods() {
    let source = r#"
        fn routes() -> Router {
            Router::new()
                .route("/offpeak/v1/a", get(get_a).post(super::b::post))
                .merge(other())
                .route(
                    "/offpeak/v1/b/{id}",
                    delete(remove),
                )
                .route("/metrics", any(unknown))
                .route("/offpeak/assets/{*path}", get(asset))
        }
    "#;
    let mut found = BTreeSet::new();
    scan(source.parse().unwrap(), &mut found);
    let expected = [
        ("DELETE", "/offpeak/v1/b/{id}"),
        ("GET", "/offpeak/v1/a"),
        ("POST", "/offpeak/v1/a"),
    ];
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (&**a, &**b)).collect();
    assert_eq!(found, expected);
}
