//! Compressed answers, as SDKs ask for them: read again where they are looked at.

use std::io::{self, Read};

use brotli_decompressor::Decompressor;
use flate2::read::{GzDecoder, ZlibDecoder};

/// `Content-Encoding`s (RFC 9110 §8.4.1) that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Deflate,
    Brotli,
}

const PIECE: usize = 16 * 1024;
/// Bytes that an answer may be made of: more is no answer of a model.
const MOST: usize = 64 * 1024 * 1024;

impl Coding {
    /// None for one that cannot be read, and for one on top of another.
    pub fn named(name: &str) -> Option<Coding> {
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            "br" => Some(Coding::Brotli),
            _ => None,
        }
    }

    /// Tells the text in pieces, until `take` has enough.
    pub fn decode(self, bytes: &[u8], take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        match self {
            Coding::Gzip => pieces(GzDecoder::new(bytes), take),
            Coding::Deflate => pieces(ZlibDecoder::new(bytes), take),
            Coding::Brotli => pieces(Decompressor::new(bytes, PIECE), take),
        }
    }
}

fn pieces(text: impl Read, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut text = text.take(MOST as u64);
    let mut piece = vec![0; PIECE];
    loop {
        match text.read(&mut piece)? {
            0 => return Ok(()),
            count if take(&piece[..count]) => {}
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use base64::{Engine, engine::general_purpose::STANDARD};
    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };

    use super::*;

    pub const TEXT: &str = r#"{"model":"gpt-4o-mini","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
    /// [`TEXT`], by Node's `zlib.brotliCompressSync`.
    pub const BROTLI: &str = "G1oAEASindN+838RpX5bjDLgwyaOcTqoD+eDDUCDj8MO2LnZFtPlh/Exml/NS0efHSG+sIfvNfzW/XKwItyRQmJTkBj+Bw==";

    pub fn compressed() -> [(&'static str, Vec<u8>); 3] {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(TEXT.as_bytes()).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(TEXT.as_bytes()).unwrap();
        [
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("br", STANDARD.decode(BROTLI).unwrap()),
        ]
    }

    #[test]
    fn each_is_read() {
        for (name, bytes) in compressed() {
            let coding = Coding::named(name).unwrap();
            let mut text = Vec::new();
            let all = coding.decode(&bytes, |piece| {
                text.extend_from_slice(piece);
                true
            });
            all.unwrap();
            assert_eq!(text, TEXT.as_bytes(), "{name}");
            let cut = coding.decode(&bytes[..bytes.len() / 2], |_| true);
            assert!(cut.is_err(), "{name}");
        }
        for name in ["zstd", "gzip, br", "", "identity"] {
            assert_eq!(Coding::named(name), None, "{name}");
        }
    }

    #[test]
    fn a_bomb_is_not_read_to_its_end() {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        let zeros = vec![0; 1 << 20];
        (0..80).for_each(|_| bomb.write_all(&zeros).unwrap());
        let mut read = 0;
        let all = Coding::Gzip.decode(&bomb.finish().unwrap(), |piece| {
            read += piece.len();
            true
        });
        assert!(all.is_ok() && read == MOST, "{read}");
    }
}
