//! docs/openapi.json: what it says of a path, and whether a value is as it says.

use std::collections::BTreeSet;

use jsonschema::Registry;
use serde_json::{Value, json};

const TEXT: &str = include_str!("../../../../docs/openapi.json");
/// Where the closed document is for references; nothing is fetched.
const CLOSED: &str = "https://offpeak.invalid/openapi.json";

pub struct Document {
    pub json: Value,
    /// The same, with every object closed to fields that it does not name: readers may
    /// ignore those, but no field goes undocumented.
    closed: Registry<'static>,
}

/// A method and a path with its parameters: `("GET", "/offpeak/v1/requests/{id}")`.
pub type Operation = (String, String);

impl Document {
    pub fn read() -> Document {
        let json: Value = serde_json::from_str(TEXT).unwrap();
        let closed = Registry::new().add(CLOSED, closed(&json)).unwrap();
        Document {
            json,
            closed: closed.prepare().unwrap(),
        }
    }

    pub fn operations(&self) -> BTreeSet<Operation> {
        const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
        let paths = self.json["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &Value)| {
            let methods = item.as_object().unwrap().keys();
            let methods = methods.filter(|key| METHODS.contains(&key.as_str()));
            let named = methods.map(|method| (method.to_uppercase(), path.clone()));
            named.collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }

    /// The documented path that a path is one of; a literal goes before a parameter.
    pub fn path_of(&self, path: &str) -> &str {
        let is_of = |template: &&String| {
            let pairs = template.split('/').zip(path.split('/'));
            template.split('/').count() == path.split('/').count()
                && pairs.into_iter().all(|(a, b)| a == b || a.starts_with('{'))
        };
        let paths = self.json["paths"].as_object().unwrap().keys();
        let best = paths.filter(is_of).min_by_key(|it| it.matches('{').count());
        best.unwrap_or_else(|| panic!("{path} is not in the document"))
    }

    /// What the document has at a JSON pointer, references followed; with where that is.
    pub fn at(&self, pointer: String) -> Option<(String, &Value)> {
        let value = self.json.pointer(&pointer)?;
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.at(reference.strip_prefix('#').unwrap().to_owned()),
            None => Some((pointer, value)),
        }
    }

    /// The parameters of an operation, those of its path among them.
    pub fn parameters(&self, (method, path): &Operation) -> Vec<&Value> {
        let item = format!("/paths/{}", escaped(path));
        let lists = [
            format!("{item}/parameters"),
            format!("{item}/{}/parameters", method.to_lowercase()),
        ];
        let mut found = Vec::new();
        for list in lists {
            let count = self.json.pointer(&list).and_then(Value::as_array);
            for at in 0..count.map_or(0, Vec::len) {
                found.push(self.at(format!("{list}/{at}")).unwrap().1);
            }
        }
        found
    }

    /// The query parameters of all operations.
    pub fn queries(&self) -> BTreeSet<(Operation, String)> {
        let of = |operation: Operation| {
            let parameters = self.parameters(&operation).into_iter();
            let names = parameters.filter(|it| it["in"] == "query");
            let names = names.map(|it| it["name"].as_str().unwrap().to_owned());
            names
                .map(|name| (operation.clone(), name))
                .collect::<Vec<_>>()
        };
        self.operations().into_iter().flat_map(of).collect()
    }

    /// How a value differs from the schema at a pointer.
    pub fn breaches(&self, schema: &str, value: &Value) -> Vec<String> {
        let fragment = schema.replace('{', "%7B").replace('}', "%7D");
        let schema = json!({"$ref": format!("{CLOSED}#{fragment}")});
        let validator = jsonschema::draft202012::options()
            .with_registry(&self.closed)
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        let errors = validator.iter_errors(value);
        errors
            .map(|error| format!("at {:?}: {error}", error.instance_path().as_str()))
            .collect()
    }
}

pub fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn closed(document: &Value) -> Value {
    let mut document = document.clone();
    close(&mut document);
    // What is put together by `allOf` is closed as a whole.
    let mut parts = document["components"]["schemas"].clone();
    parts.as_object_mut().unwrap().values_mut().for_each(open);
    document["components"]["parts"] = parts;
    document
}

fn close(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(object) => {
            object.values_mut().for_each(close);
            if let Some(Value::Array(parts)) = object.get_mut("allOf") {
                parts.iter_mut().for_each(open);
                object.insert("unevaluatedProperties".into(), false.into());
            } else if object.get("properties").is_some_and(Value::is_object) {
                let keys = object.entry("additionalProperties");
                keys.or_insert(false.into());
            }
        }
        _ => {}
    }
}

fn open(part: &mut Value) {
    let part = part.as_object_mut().unwrap();
    part.remove("additionalProperties");
    part.remove("unevaluatedProperties");
    if let Some(Value::String(reference)) = part.get_mut("$ref") {
        *reference = reference.replace("/schemas/", "/parts/");
    }
}
