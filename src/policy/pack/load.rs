//! What a batch holds while it is filled, and what stops it.

use crate::model::request::Entry;

use super::{Settings, Tokens};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub lines: u32,
    pub bytes: u64,
    pub inputs: u64,
    /// Prompt tokens; zero where nobody counts them.
    pub tokens: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    pub settings: &'a Settings,
    /// None where no limit is known: tokens are then not counted.
    pub tokens: Option<Tokens>,
}

impl Load {
    /// Takes the entry in, or says no where a limit would break. Bytes and inputs
    /// of a first line always fit: admission bounds a single call.
    pub fn take(&mut self, entry: &Entry, tokens: u64, limits: &Limits<'_>) -> bool {
        let next = Load {
            lines: self.lines + 1,
            bytes: self.bytes + u64::from(entry.line_bytes),
            inputs: self.inputs + u64::from(entry.inputs),
            tokens: self.tokens + tokens,
        };
        let Limits { settings, tokens } = limits;
        let fits = match self.lines {
            0 => tokens.is_none_or(|room| next.tokens <= room.first),
            _ => {
                next.lines <= settings.max_lines
                    && next.bytes <= settings.max_bytes
                    && next.inputs <= settings.max_embedding_inputs
                    && tokens.is_none_or(|room| next.tokens <= room.most)
            }
        };
        if fits {
            *self = next;
        }
        fits
    }
}
