//! What commands say. Who has closed the other end of a pipe has read enough of it, and
//! a terminal that is gone needs nothing: neither is a failure of what is done.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write as _},
};

/// A line on standard output, its colours where a terminal shows them.
///
/// # Errors
/// What else is in the way: a full disk, say.
pub fn say(line: impl Display) -> io::Result<()> {
    show(format_args!("{line}\n"))
}

/// Text on standard output as it is, its colours where a terminal shows them.
///
/// # Errors
/// As [`say`].
pub fn show(text: impl Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}

/// A line on standard error, if anybody reads there.
pub fn tell(line: impl Display) {
    let _unread = writeln!(anstream::stderr(), "{line}");
}
