//! Latencies, every one of them kept, and what share of them lies below what.

/// Nanoseconds of each sample, in the order in which they came.
pub struct Samples(Vec<u64>);

impl Samples {
    /// Makes room for so many, so that none has to be copied while time is measured.
    pub fn new(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Adds one.
    pub fn add(&mut self, nanoseconds: u64) {
        self.0.push(nanoseconds);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Gives, in seconds, the smallest sample that is not exceeded by each of these shares of all; 0 without samples.
    pub fn percentiles<const N: usize>(mut self, shares: [f64; N]) -> [f64; N] {
        self.0.sort_unstable();
        shares.map(|share| {
            let rank = (share * self.0.len() as f64).ceil() as usize;
            let place = rank.clamp(1, self.0.len().max(1)) - 1;
            self.0.get(place).map_or(0.0, |&nanoseconds| nanoseconds as f64 / 1e9)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles<const N: usize>(values: impl Iterator<Item = u64>, shares: [f64; N]) -> [f64; N] {
        let mut samples = Samples::new(0);
        values.for_each(|value| samples.add(value * 1_000_000_000));
        samples.percentiles(shares)
    }

    #[test]
    fn of_a_thousand() {
        assert_eq!(percentiles((1..=1000).rev(), [0.5, 0.99, 0.999, 1.0]), [500.0, 990.0, 999.0, 1000.0]);
    }

    #[test]
    fn of_few() {
        assert_eq!(percentiles([7].into_iter(), [0.0, 0.5, 0.999, 1.0]), [7.0; 4]);
        assert_eq!(percentiles([3, 1, 2].into_iter(), [0.5, 0.99]), [2.0, 3.0]);
        assert_eq!(percentiles(std::iter::empty(), [0.5, 1.0]), [0.0, 0.0]);
    }
}
