//! Scripted faults: `{"on":"create_batch","kind":"reply_lost","times":1}`.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::model::time::human;

/// What goes wrong, where and how often. One fault at most strikes a call: the
/// oldest armed one whose operation matches and whose `after` calls have passed.
/// Faults of a lane wait for calls in that lane, and strike beside the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub on: Operation,
    #[serde(flatten)]
    pub kind: Kind,
    #[serde(default = "once")]
    pub times: u32,
    /// Matching calls to let through first.
    #[serde(default)]
    pub after: u32,
}

impl Fault {
    /// A fault that strikes the next matching call.
    pub fn once(on: Operation, kind: Kind) -> Self {
        Fault {
            on,
            kind,
            times: 1,
            after: 0,
        }
    }
}

fn once() -> u32 {
    1
}

/// Durations are simulated ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Answer with this status and have no effect; 502 comes as a gateway's HTML.
    Status {
        status: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_seconds: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Cut the connection and have no effect.
    Reset,
    /// Have no effect and never answer.
    Hang,
    /// Answer late.
    Delay {
        #[serde(with = "human")]
        by: Duration,
    },
    /// Have the effect, then cut the connection.
    ReplyLost,
    /// Have the effect, then never answer.
    HangAfter,
    /// Cut the connection, and have the effect this much later: the call was held up
    /// on its way.
    Late {
        #[serde(with = "human")]
        by: Duration,
    },
    /// Have the effect twice, as where a gateway tries again, and answer as the
    /// second time.
    Twice,
    /// Have the effect, then answer with this status.
    StatusAfter { status: u16 },
    /// Send the body in twenty pieces over this time.
    SlowBody {
        #[serde(with = "human")]
        over: Duration,
    },
    /// Send half of the body, then cut the connection.
    Truncated,
    /// On a list: leave out what is younger than this.
    Lag {
        #[serde(with = "human")]
        by: Duration,
    },
    /// On `cancel_batch`: stay in `cancelling` this much longer.
    SlowCancel {
        #[serde(with = "human")]
        by: Duration,
    },
    /// What follows strikes the batch that `create_batch` makes. The first lines
    /// to finish are in neither file; they are not run and not billed.
    MissingLines { lines: usize },
    /// The first lines to finish have `status_code: 0` and an empty body.
    ZeroStatus { lines: usize },
    /// `error_file_id` is `""` where it should be null.
    EmptyErrorFileId,
    /// `request_counts` claims that every line completed.
    WrongCounts,
    /// Half of the lines never finish, and the batch expires this long after its
    /// creation (24 h if not given).
    Expire {
        #[serde(default = "a_day", with = "human")]
        within: Duration,
    },
    /// Validation fails with this code and no line.
    Fail { code: String },
    /// Every line finishes this much later.
    Slow {
        #[serde(with = "human")]
        by: Duration,
    },
    /// The batch stays in `finalizing` this much longer.
    SlowFinalizing {
        #[serde(with = "human")]
        by: Duration,
    },
    /// GET and lists do not know the batch for this long.
    Vanish {
        #[serde(with = "human")]
        lasting: Duration,
    },
    /// Lists do not know the batch for this long; GET does.
    Unlisted {
        #[serde(with = "human")]
        lasting: Duration,
    },
    /// What follows strikes a lane. A flex call is refused for want of capacity
    /// (429 `resource_unavailable`, not billed).
    FlexShortage,
    /// A flex call is served, and billed, on the default tier.
    FlexAsDefault,
    /// A background response is done this long after its completion window.
    Overrun {
        #[serde(with = "human")]
        by: Duration,
    },
}

impl Kind {
    const fn is_of_a_lane(&self) -> bool {
        matches!(
            self,
            Kind::FlexShortage | Kind::FlexAsDefault | Kind::Overrun { .. }
        )
    }
}

fn a_day() -> Duration {
    Duration::from_secs(86_400)
}

/// What a call does; the name by which faults and the log speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Any,
    UploadFile,
    ListFiles,
    GetFile,
    FileContent,
    DeleteFile,
    CreateBatch,
    ListBatches,
    GetBatch,
    CancelBatch,
    ListModels,
    GetModel,
    Chat,
    GetChat,
    DeleteChat,
    Responses,
    GetResponse,
    CancelResponse,
    DeleteResponse,
    Embeddings,
    Completions,
    Moderations,
    Other,
}

impl Operation {
    pub(super) fn of(method: &Method, path: &str) -> Self {
        use Operation::*;
        let parts: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", ["files"]) => UploadFile,
            ("GET", ["files"]) => ListFiles,
            ("GET", ["files", _]) => GetFile,
            ("GET", ["files", _, "content"]) => FileContent,
            ("DELETE", ["files", _]) => DeleteFile,
            ("POST", ["batches"]) => CreateBatch,
            ("GET", ["batches"]) => ListBatches,
            ("GET", ["batches", _]) => GetBatch,
            ("POST", ["batches", _, "cancel"]) => CancelBatch,
            ("GET", ["models"]) => ListModels,
            ("GET", ["models", ..]) => GetModel,
            ("POST", ["chat", "completions"]) => Chat,
            ("GET", ["chat", "completions", _]) => GetChat,
            ("DELETE", ["chat", "completions", _]) => DeleteChat,
            ("POST", ["responses"]) => Responses,
            ("GET", ["responses", _]) => GetResponse,
            ("POST", ["responses", _, "cancel"]) => CancelResponse,
            ("DELETE", ["responses", _]) => DeleteResponse,
            ("POST", ["embeddings"]) => Embeddings,
            ("POST", ["completions"]) => Completions,
            ("POST", ["moderations"]) => Moderations,
            _ => Other,
        }
    }
}

/// The faults that are still to strike, oldest first.
#[derive(Debug, Default)]
pub(super) struct Script {
    armed: Vec<Fault>,
}

impl Script {
    pub fn add(&mut self, fault: Fault) {
        self.armed.push(fault);
    }

    pub fn clear(&mut self) {
        self.armed.clear();
    }

    pub fn armed(&self) -> &[Fault] {
        &self.armed
    }

    /// The fault that strikes this call, if any.
    pub fn strike(&mut self, operation: Operation) -> Option<Kind> {
        self.strike_with(operation, |kind| !kind.is_of_a_lane())
    }

    /// The fault of its lane that strikes this call, among those that are `wanted`.
    pub fn strike_lane(
        &mut self,
        operation: Operation,
        wanted: impl Fn(&Kind) -> bool,
    ) -> Option<Kind> {
        self.strike_with(operation, |kind| kind.is_of_a_lane() && wanted(kind))
    }

    fn strike_with(
        &mut self,
        operation: Operation,
        wanted: impl Fn(&Kind) -> bool,
    ) -> Option<Kind> {
        for fault in &mut self.armed {
            let is_on = fault.on == operation || fault.on == Operation::Any;
            if fault.times == 0 || !is_on || !wanted(&fault.kind) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times -= 1;
            let kind = fault.kind.clone();
            self.armed.retain(|fault| fault.times > 0);
            return Some(kind);
        }
        None
    }
}

pub(super) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_lane_wait_for_it() {
        let mut script = Script::default();
        for text in [
            r#"{"on":"chat","kind":"flex_shortage","times":2}"#,
            r#"{"on":"responses","kind":"overrun","by":"1h"}"#,
        ] {
            script.add(serde_json::from_str(text).unwrap());
        }
        let is_flex = |kind: &Kind| *kind == Kind::FlexShortage;
        assert_eq!(script.strike(Operation::Chat), None);
        assert_eq!(script.strike_lane(Operation::Responses, is_flex), None);
        for struck in [true, true, false] {
            let kind = script.strike_lane(Operation::Chat, is_flex);
            assert_eq!(kind.is_some(), struck);
        }
        assert_eq!(script.armed().len(), 1);
    }

    #[test]
    fn faults_read_as_documented_and_strike_in_order() {
        let mut script = Script::default();
        for text in [
            r#"{"on":"create_batch","kind":"reply_lost","times":2,"after":1}"#,
            r#"{"on":"any","kind":"slow_body","over":"3s"}"#,
        ] {
            script.add(serde_json::from_str(text).unwrap());
        }
        let over = Duration::from_secs(3);
        assert_eq!(
            script.strike(Operation::CreateBatch),
            Some(Kind::SlowBody { over })
        );
        assert_eq!(script.strike(Operation::GetBatch), None);
        assert_eq!(script.strike(Operation::CreateBatch), Some(Kind::ReplyLost));
        assert_eq!(script.strike(Operation::CreateBatch), Some(Kind::ReplyLost));
        assert_eq!(script.strike(Operation::CreateBatch), None);
        assert!(script.armed().is_empty());
    }
}
