//! Frames of pairs.

pub const PAIRS: u8 = 1;
pub const COMMIT: u8 = 2;
pub const END: u8 = 3;
/// In place of a value's length.
const REMOVED: u32 = u32::MAX;
/// Kind and length.
pub const HEAD: usize = 5;
/// The longest body: a page of pairs or a commit, of half a megabyte and one value more.
pub const LONGEST: u32 = 64 << 20;

pub fn frame<'a>(kind: u8, pairs: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in pairs {
        // Keys are of fixed widths and short; values are chunks of some kilobytes.
        body.extend_from_slice(&(key.len() as u16).to_le_bytes());
        body.extend_from_slice(key);
        let length = value.map_or(REMOVED, |value| value.len() as u32);
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    framed(kind, &body)
}

pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + body.len());
    frame.push(kind);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// The next pair of a body; none where it is spoiled.
pub fn pair<'a>(body: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let (length, rest) = body.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = match u32::from_le_bytes(*length) {
        REMOVED => (None, rest),
        length => {
            let (value, rest) = rest.split_at_checked(length as usize)?;
            (Some(value), rest)
        }
    };
    *body = rest;
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pairs_come_back(pairs: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
            let given = pairs.iter().map(|(key, value)| (&key[..], value.as_deref()));
            let made = frame(PAIRS, given);
            let mut body = &made[HEAD..];
            prop_assert_eq!(&made[1..HEAD], &(body.len() as u32).to_le_bytes());
            for (key, value) in &pairs {
                prop_assert_eq!(pair(&mut body), Some((&key[..], value.as_deref())));
            }
            prop_assert!(body.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut body = &bytes[..];
            while pair(&mut body).is_some() {}
        }
    }
}
