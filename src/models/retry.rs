//! When to ask again, and how long to wait before: pure arithmetic.
//!
//! Exponential backoff with full jitter (Brooker, "Exponential Backoff and
//! Jitter", AWS Architecture Blog 2015): the pause before attempt n+1 is uniform
//! in [0, min(cap, base·2^(n−1))], so that clients that failed together don't
//! come back together. A provider's `Retry-After` is the least we wait.

use std::time::Duration;

use jiff::Timestamp;

use crate::host::signal::Interrupt;

use super::Failure;

/// How pauses happen; tests count them instead.
pub trait Sleeper: Send + Sync {
    /// Pause, but not beyond an interrupt. False when interrupted.
    fn sleep(&self, pause: Duration, interrupt: &Interrupt) -> bool;
}

/// Pauses the calling thread, looking at the interrupt fifty times a second.
#[derive(Debug, Clone, Copy)]
pub struct ThreadSleeper;

impl Sleeper for ThreadSleeper {
    fn sleep(&self, pause: Duration, interrupt: &Interrupt) -> bool {
        const SLICE: Duration = Duration::from_millis(20);
        let mut left = pause;
        while !left.is_zero() {
            if interrupt.is_set() {
                return false;
            }
            let slice = left.min(SLICE);
            std::thread::sleep(slice);
            left -= slice;
        }
        !interrupt.is_set()
    }
}

/// Limits on asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Further attempts after the first.
    pub retries: u32,
    /// Longest pause after the first failure.
    pub base_ms: u64,
    /// Longest pause after any failure.
    pub cap_ms: u64,
    /// A provider that asks for more than this is not waited for: coming back
    /// earlier than asked is rude and useless.
    pub retry_after_max_ms: u64,
    /// No attempt begins later than this after the first.
    pub budget_ms: u64,
}

impl RetryPolicy {
    /// The usual pauses: at most ½ s, 1 s, 2 s, … 30 s; Retry-After up to two
    /// minutes; five minutes in all.
    pub fn with_retries(retries: u32) -> Self {
        Self {
            retries,
            base_ms: 500,
            cap_ms: 30_000,
            retry_after_max_ms: 120_000,
            budget_ms: 300_000,
        }
    }

    /// What to do after the `attempts`-th attempt failed, `spent_ms` after the first began.
    pub fn decide(
        &self,
        failure: &Failure,
        attempts: u32,
        spent_ms: u64,
        jitter: &mut Jitter,
    ) -> Decision {
        if !failure.is_retryable() || attempts > self.retries {
            return Decision::GiveUp;
        }
        let doublings = attempts.saturating_sub(1).min(32);
        let ceiling = self.base_ms.saturating_mul(1 << doublings).min(self.cap_ms);
        let pause_ms = match failure {
            Failure::Status {
                retry_after_ms: Some(asked),
                ..
            } => {
                if *asked > self.retry_after_max_ms {
                    return Decision::GiveUp;
                }
                // Everyone was told the same second: spread out after it.
                asked + jitter.up_to(self.base_ms)
            }
            _ => jitter.up_to(ceiling),
        };
        if spent_ms.saturating_add(pause_ms) > self.budget_ms {
            return Decision::GiveUp;
        }
        Decision::Again { pause_ms }
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Pause, then ask again.
    Again {
        /// How long.
        pause_ms: u64,
    },
    /// Report the failure.
    GiveUp,
}

/// A small seeded generator (SplitMix64, Steele et al. 2014): pauses need to
/// differ, not to be unpredictable.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// The pauses of one request: they depend on the seed and on the request only.
    pub fn new(seed: u64, correlation_id: &str) -> Self {
        // FNV-1a.
        let hash = correlation_id
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(seed ^ hash)
    }

    /// Uniform in 0..=`most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The high part of a product: uniform up to 2^-64·most, without a division's bias.
        ((u128::from(mixed) * (u128::from(most) + 1)) >> 64) as u64
    }
}

/// Read a `Retry-After` header: seconds, or an HTTP date (RFC 9110, 10.2.3). A date in the past is 0.
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse::<u64>().ok()?.saturating_mul(1000));
    }
    // Some servers send fractions.
    if let Ok(seconds) = value.parse::<f64>() {
        return (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1000.0).ceil() as u64);
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value)
        .ok()?;
    Some(u64::try_from(date.as_millisecond() - now.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after_ms: Option<u64>) -> Failure {
        Failure::Status {
            status,
            message: String::new(),
            retry_after_ms,
        }
    }

    #[test]
    fn decisions() {
        let policy = RetryPolicy::with_retries(2);
        let cases = [
            // failure, attempts, spent, least and most pause (None: give up)
            (status(503, None), 1, 0, Some((0, 500))),
            (status(503, None), 2, 0, Some((0, 1000))),
            (status(503, None), 3, 0, None),
            (status(400, None), 1, 0, None),
            (status(401, None), 1, 0, None),
            (status(429, Some(7_000)), 1, 0, Some((7_000, 7_500))),
            (status(429, Some(120_000)), 1, 0, Some((120_000, 120_500))),
            (status(429, Some(120_001)), 1, 0, None),
            (status(429, Some(7_000)), 1, 293_001, None),
            (status(503, None), 1, 300_001, None),
            (Failure::Interrupted, 1, 0, None),
        ];
        for (failure, attempts, spent, expected) in cases {
            for seed in 0..50 {
                let decision =
                    policy.decide(&failure, attempts, spent, &mut Jitter::new(seed, "x"));
                match (decision, expected) {
                    (Decision::GiveUp, None) => {}
                    (Decision::Again { pause_ms }, Some((least, most))) => {
                        assert!(
                            (least..=most).contains(&pause_ms),
                            "{failure:?}: {pause_ms}"
                        );
                    }
                    _ => panic!("{failure:?} after {attempts}: {decision:?}"),
                }
            }
        }
    }

    #[test]
    fn pauses_are_capped_and_reproducible() {
        let policy = RetryPolicy::with_retries(100);
        let pauses = |seed| -> Vec<_> {
            let mut jitter = Jitter::new(seed, "run/1");
            (1..80)
                .map(|n| policy.decide(&status(500, None), n, 0, &mut jitter))
                .collect()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
        for pause in pauses(3) {
            assert!(matches!(pause, Decision::Again { pause_ms } if pause_ms <= 30_000));
        }
    }

    #[test]
    fn jitter_is_uniform() {
        let mut jitter = Jitter::new(7, "");
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            counts[jitter.up_to(9) as usize] += 1;
        }
        // 1000 expected each, standard deviation 30.
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn retry_after_forms() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().expect("a time");
        for (text, expected) in [
            ("0", Some(0)),
            (" 3 ", Some(3_000)),
            ("1.5", Some(1_500)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7_000)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("soon", None),
            ("", None),
            ("-3", None),
            ("inf", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_retry_after(text, now), expected, "{text:?}");
        }
    }

    #[test]
    fn an_interrupt_ends_a_pause() {
        let interrupt = Interrupt::default();
        interrupt.set();
        assert!(!ThreadSleeper.sleep(Duration::from_secs(3600), &interrupt));
    }
}
