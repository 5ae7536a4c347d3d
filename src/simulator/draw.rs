//! Seeded chance: every draw is a function of the seed and of what it is for.

use std::time::Duration;

/// A stream of random numbers (SplitMix64).
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw(u64);

impl Draw {
    /// The stream for one purpose; equal arguments give equal streams.
    pub fn new(seed: u64, purpose: &str, of: &[u8]) -> Self {
        Draw(u64::from_le_bytes(first(&digest(seed, purpose, of))))
    }

    /// An independent stream for the `index`th thing of this one.
    pub fn nth(self, index: u64) -> Self {
        let mut other = Draw(self.0 ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03));
        other.next();
        other
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    pub fn lognormal(&mut self, median: Duration, sigma: f64) -> Duration {
        scaled(median, (sigma * self.normal()).exp())
    }
}

/// `median × factor`, at most a year.
pub(super) fn scaled(median: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(median.as_secs_f64() * factor)
        .unwrap_or(Duration::MAX)
        .min(Duration::from_secs(365 * 86_400))
}

pub(super) fn digest(seed: u64, purpose: &str, of: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(purpose.as_bytes());
    hasher.update(&[0]);
    hasher.update(of);
    *hasher.finalize().as_bytes()
}

/// `length` hex digits of a digest (at most 64).
pub(super) fn hex(digest: &[u8; 32], length: usize) -> String {
    let mut text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(length);
    text
}

fn first(digest: &[u8; 32]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lognormal_has_its_median_and_repeats() {
        let median = Duration::from_secs(60);
        let root = Draw::new(7, "test", b"");
        let mut times: Vec<_> = (0..2001)
            .map(|index| root.nth(index).lognormal(median, 1.0))
            .collect();
        assert_eq!(times[5], root.nth(5).lognormal(median, 1.0));
        times.sort();
        let middle = times[1000].as_secs_f64();
        assert!((54.0..66.0).contains(&middle), "{middle}");
    }
}
