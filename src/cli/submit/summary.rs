//! What a run came to, for people and for scripts.

use std::path::Path;

use serde_json::{Value, json};

use super::run::Run;

pub fn text(run: &Run, out: &Path) -> String {
    let sums = &run.sums;
    let lines = run.lines();
    if !run.done {
        let refused = match sums.failed {
            0 => String::new(),
            failed => format!(" {failed} of them have failed already."),
        };
        return format!(
            "{lines} lines are with the server; their answers are due by {}.{refused}\n\
             Collect them with the same command and --wait.\n",
            run.deadline
        );
    }
    let mut text = format!(
        "{lines} lines: {} succeeded, {} failed. Paid ${}, saved ${}.\n",
        sums.succeeded, sums.failed, sums.paid, sums.saved
    );
    if sums.unpriced > 0 {
        text += &format!(
            "Not in these sums: {} answers of models without a known price.\n",
            sums.unpriced
        );
    }
    text + &format!(
        "The answers, in the order of the input: {}\n",
        out.display()
    )
}

pub fn json(run: &Run, out: &Path) -> Value {
    let sums = &run.sums;
    json!({
        "object": "offpeak.submit",
        "complete": run.done,
        "lines": run.lines(),
        "sent": run.sent,
        "succeeded": sums.succeeded,
        "failed": sums.failed,
        "unpriced": sums.unpriced,
        "paid_usd": sums.paid.to_string(),
        "saved_usd": sums.saved.to_string(),
        "deadline": run.deadline,
        "out": out,
        "journal": run.journal.path(),
    })
}
