//! How long something takes by a law: what is drawn from it, and the share that has
//! ended by an age.

use crate::backtest::draw::Draw;

/// The normal distribution's 90 % quantile.
const Z90: f64 = 1.281_551_565_544_600_4;

/// A turnaround's law.
#[derive(Clone, Debug, PartialEq)]
pub struct Turnaround {
    never: f64,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Lognormal { median: f64, sigma: f64 },
    Quantiles(Vec<(f64, f64)>),
}

impl Turnaround {
    pub(super) fn new(median: f64, p90: f64, never: f64, quantiles: &[(f64, f64)]) -> Turnaround {
        let shape = match quantiles {
            [] => Shape::Lognormal {
                median,
                sigma: (p90 / median).ln() / Z90,
            },
            [_, ..] => Shape::Quantiles(quantiles.to_vec()),
        };
        Turnaround { never, shape }
    }

    /// Seconds; none where it never ends.
    pub fn draw(&self, mut luck: Draw) -> Option<f64> {
        if luck.unit() < self.never {
            return None;
        }
        Some(match &self.shape {
            Shape::Lognormal { median, sigma } => median * (sigma * luck.normal()).exp(),
            Shape::Quantiles(points) => between(points, luck.unit()),
        })
    }

    /// The share that has ended by this age.
    pub fn ended_by(&self, age: f64) -> f64 {
        if age <= 0.0 {
            return 0.0;
        }
        let of_those = match &self.shape {
            Shape::Lognormal { median, sigma } => {
                let z = (age / median).ln() / sigma;
                0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
            }
            Shape::Quantiles(points) => {
                let turned: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (y, x)).collect();
                match points.last() {
                    Some(&(_, longest)) if age >= longest => 1.0,
                    _ => between(&turned, age),
                }
            }
        };
        (1.0 - self.never) * of_those
    }
}

/// On the line through the points; below the first one from the origin, and above
/// the last one its value.
fn between(points: &[(f64, f64)], x: f64) -> f64 {
    let mut from = (0.0, 0.0);
    for &to in points {
        if x <= to.0 {
            let width: f64 = to.0 - from.0;
            let share = if width > 0.0 {
                (x - from.0) / width
            } else {
                1.0
            };
            return from.1 + share * (to.1 - from.1);
        }
        from = to;
    }
    from.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::latency::Law;

    #[test]
    fn draws_follow_the_law() {
        let quantiles =
            "[batch]\nquantiles = [[0.5, 60.0], [0.9, 100.0], [1.0, 400.0]]\nnever = 0.1";
        for law in [Law::default(), Law::from_toml(quantiles).unwrap()] {
            let law = law.batch.turnaround();
            let ages: Vec<f64> = (0..20_000)
                .filter_map(|n| law.draw(Draw::new(1, n)))
                .collect();
            for age in [30.0, 60.0, 90.0, 200.0, 420.0, 3600.0, 50_000.0] {
                let seen = ages.iter().filter(|&&seen| seen <= age).count() as f64 / 20_000.0;
                let said = law.ended_by(age);
                assert!((seen - said).abs() < 0.012, "{age}: {seen}, said {said}");
            }
        }
    }
}
