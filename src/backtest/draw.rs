//! Seeded luck. A draw is a function of the seed and of what it is for (a request
//! and the number of its attempt), never of what a policy did before: all policies
//! are played on the same luck.

/// A stream of random numbers (SplitMix64).
#[derive(Clone, Copy, Debug)]
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64, purpose: u64) -> Draw {
        Draw(seed).nth(purpose)
    }

    /// An independent stream for the `index`th thing of this one.
    pub fn nth(self, index: u64) -> Draw {
        let mut other = Draw(self.0 ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03));
        Draw(other.step())
    }

    fn step(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.step() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}
