//! When each datagram of an open loop is due: kept by the clock, whatever became of those before it.

use std::time::{Duration, Instant};

/// So many datagrams per second, evenly in time.
#[derive(Clone, Copy)]
pub struct Schedule {
    start: Instant,
    rate: f64,
}

impl Schedule {
    /// Begins at `start` with number 0.
    pub fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate }
    }

    /// When a number is due.
    pub fn due(&self, number: u64) -> Instant {
        // not a sum of rounded intervals, which would drift
        let nanoseconds = (number as f64 * 1e9 / self.rate) as u64;
        self.start + Duration::from_nanos(nanoseconds)
    }

    /// How many are due within a time.
    pub fn count(&self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.rate).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_even_and_does_not_drift() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1000.0);
        assert!((0..5000).all(|number| schedule.due(number) == start + Duration::from_millis(number)));
        let schedule = Schedule::new(start, 30_000.0);
        assert_eq!(schedule.due(30_000 * 3600) - start, Duration::from_secs(3600));
    }

    #[test]
    fn fast_is_even_too() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 160_000.0);
        for number in 0..100_000 {
            let exact = Duration::from_secs_f64(number as f64 / 160_000.0);
            let held = exact.saturating_sub(schedule.due(number) - start);
            assert!(held <= Duration::from_nanos(1), "{number} {held:?}");
        }
    }

    #[test]
    fn counts() {
        let schedule = Schedule::new(Instant::now(), 1000.0);
        assert_eq!(schedule.count(Duration::from_millis(2500)), 2500);
        assert_eq!(Schedule::new(Instant::now(), 0.5).count(Duration::from_secs(4)), 2);
        assert_eq!(schedule.count(Duration::ZERO), 0);
    }
}
