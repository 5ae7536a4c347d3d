//! Server-sent events, written and read.

/// Collects events.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// An event of only data, as chat and completions send them.
    pub fn data(&mut self, line: &str) {
        for part in ["data: ", line, "\n\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// An event with a name, as Responses send them.
    pub fn named(&mut self, name: &str, line: &str) {
        for part in ["event: ", name, "\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
        self.data(line);
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads the data of events from bytes cut anywhere. Lines end in LF, CRLF or
/// CR; comments and fields other than `data` are skipped. Names are not kept:
/// the APIs repeat them inside the data.
#[derive(Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    after_return: bool,
    past_mark: bool,
}

impl Reader {
    pub fn push(&mut self, mut bytes: &[u8], mut event: impl FnMut(Vec<u8>)) {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let Some(end) = end else {
                self.line.extend_from_slice(bytes);
                return;
            };
            self.line.extend_from_slice(&bytes[..end]);
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line(&mut event);
        }
    }

    /// The event that was under way when the stream ended: some servers leave
    /// out the last blank line.
    pub fn finish(&mut self, mut event: impl FnMut(Vec<u8>)) {
        self.end_line(&mut event);
        self.end_line(&mut event);
    }

    fn end_line(&mut self, event: &mut impl FnMut(Vec<u8>)) {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !std::mem::replace(&mut self.past_mark, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.data.take().into_iter().for_each(event);
            return;
        }
        let Some(value) = line.strip_prefix(b"data") else {
            return;
        };
        let value = match value.strip_prefix(b":") {
            Some(value) => value.strip_prefix(b" ").unwrap_or(value),
            None if value.is_empty() => value,
            None => return,
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<String> {
        let mut reader = Reader::default();
        let mut events = Vec::new();
        for part in parts {
            reader.push(part, |data| events.push(data));
        }
        reader.finish(|data| events.push(data));
        let text = |data| String::from_utf8(data).unwrap();
        events.into_iter().map(text).collect()
    }

    #[test]
    fn a_table() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("data: a\n\ndata: b\n\n", &["a", "b"]),
            ("data: a\r\n\r\ndata:b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data: a\ndata: b\n\n", &["a\nb"]),
            (": hello\n\ndata: a\n: x\n\n", &["a"]),
            ("event: x\nid: 7\nretry: 9\ndata: a\n\n", &["a"]),
            ("event: x\n\n\n\n", &[]),
            ("data:  a \n\n", &[" a "]),
            ("data\n\n", &[""]),
            ("database: a\n\n", &[]),
            ("\u{feff}data: a\n\n", &["a"]),
            ("data: a\n\ndata: [DONE]", &["a", "[DONE]"]),
            ("data: é😀\n\n", &["é😀"]),
        ];
        for (text, events) in table {
            let bytes = text.as_bytes();
            assert_eq!(read(&[bytes]), *events, "{text:?}");
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(read(&[head, tail]), *events, "{text:?} cut at {cut}");
            }
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(read(&single), *events, "{text:?}");
        }
    }
}
