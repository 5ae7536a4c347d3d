//! Why a body is refused at admission, in OpenAI's error vocabulary.

use super::walk::{Fault, Kind, MAX_DEPTH};

/// A body that the provider would refuse, and that could take a whole batch
/// down with it (WIRE.md §1). The edge answers it with 400,
/// `type:"invalid_request_error"`; the text is for the caller to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "We could not parse the JSON body of your request: {0}. The API expects a JSON object, sent with Content-Type: application/json."
    )]
    NotJson(Fault),
    #[error(
        "We could not parse the JSON body of your request: it is not valid UTF-8 from byte {at} on."
    )]
    NotUtf8 { at: usize },
    #[error("The JSON body of your request is nested deeper than {MAX_DEPTH} levels.")]
    TooDeep,
    #[error("The JSON body of your request must be an object, but it is {}.", kind_name(*.0))]
    NotAnObject(Kind),
    #[error("Missing required parameter: '{0}'.")]
    Missing(&'static str),
    #[error("Duplicate parameter: '{0}' is given more than once. Give it once.")]
    Duplicate(&'static str),
    #[error(
        "Invalid type for '{param}': expected {expected}, but got {} instead.",
        kind_name(*.got)
    )]
    WrongType {
        param: &'static str,
        expected: &'static str,
        got: Kind,
    },
    #[error("Invalid '{0}': it is empty. Expected at least one element or character.")]
    Empty(&'static str),
    #[error("Invalid '{param}': {reason}.")]
    Invalid {
        param: &'static str,
        reason: &'static str,
    },
    #[error("Unknown parameter: '{0}'. This endpoint does not take it.")]
    Unknown(&'static str),
    #[error(
        "'service_tier': \"priority\" cannot be combined with a deadline: priority is answered at once, at the highest price. Drop the deadline or the service tier."
    )]
    PriorityTier,
}

impl Refusal {
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The field at fault, where one is.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Refusal::NotJson(_)
            | Refusal::NotUtf8 { .. }
            | Refusal::TooDeep
            | Refusal::NotAnObject(_) => None,
            Refusal::Missing(param)
            | Refusal::Duplicate(param)
            | Refusal::Empty(param)
            | Refusal::Unknown(param)
            | Refusal::WrongType { param, .. }
            | Refusal::Invalid { param, .. } => Some(param),
            Refusal::PriorityTier => Some("service_tier"),
        }
    }

    /// OpenAI's `code`. It gives none for a body that it cannot parse.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Refusal::NotJson(_) | Refusal::NotUtf8 { .. } | Refusal::TooDeep => None,
            Refusal::NotAnObject(_) | Refusal::WrongType { .. } => Some("invalid_type"),
            Refusal::Missing(_) => Some("missing_required_parameter"),
            Refusal::Duplicate(_) => Some("duplicate_parameter"),
            Refusal::Empty(_) => Some("empty_value"),
            Refusal::Unknown(_) => Some("unknown_parameter"),
            Refusal::Invalid { .. } => Some("invalid_value"),
            Refusal::PriorityTier => Some("unsupported_value"),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooDeep { .. } => Refusal::TooDeep,
            Fault::Syntax { .. } => Refusal::NotJson(fault),
        }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Bool => "a boolean",
        Kind::Number => "a number",
        Kind::String => "a string",
        Kind::Array => "an array",
        Kind::Object => "an object",
    }
}
