//! What was asked, who answered, and what it took; and whether one more call may be paid for.
//!
//! A call is reserved before it is made and settled after, so that concurrent
//! callers together never make more calls than allowed. Tokens and money are
//! only known afterwards: a reservation may carry an estimate, and what
//! in-flight calls turn out to use beyond it is the most a limit is passed by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::host::clock::Clock;

use super::{Completion, ModelError, ModelIdentity, Usage};

/// Limits on what may be spent. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Calls that reach a model. Retries of one call are one call; cached answers are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Tokens, read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money, in millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
    /// Time since the meter was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
}

/// The limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "limit")]
pub enum Exhausted {
    /// No call is left.
    Calls {
        /// The limit.
        allowed: u64,
    },
    /// No token is left.
    Tokens {
        /// The limit.
        allowed: u64,
        /// Spent and estimated for calls in flight.
        spent: u64,
    },
    /// No money is left.
    Cost {
        /// The limit, in micro-dollars.
        allowed: u64,
        /// Spent and estimated for calls in flight.
        spent: u64,
    },
    /// The time is over.
    Time {
        /// The limit, in milliseconds.
        allowed: u64,
    },
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls { allowed } => write!(f, "the budget of {allowed} calls is used up"),
            Self::Tokens { allowed, spent } => {
                write!(f, "{spent} of {allowed} tokens are used or reserved")
            }
            Self::Cost { allowed, spent } => write!(
                f,
                "{} of {} dollars are spent or reserved",
                dollars(*spent),
                dollars(*allowed)
            ),
            Self::Time { allowed } => write!(f, "the {allowed} ms allowed are over"),
        }
    }
}

/// Micro-dollars as dollars, exactly.
pub fn dollars(micro_usd: u64) -> String {
    format!("{}.{:06}", micro_usd / 1_000_000, micro_usd % 1_000_000)
}

/// What one call is expected to take, for limits that are only known afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens, read and written.
    pub tokens: u64,
    /// Micro-dollars.
    pub cost_micro_usd: u64,
}

/// Counts what is spent. Shared between threads by reference.
pub struct Meter {
    budget: Budget,
    clock: Arc<dyn Clock>,
    began_ms: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: u64,
    spent: Estimate,
    in_flight: u64,
    reserved: Estimate,
    arms: BTreeMap<String, Arm>,
}

#[derive(Default)]
struct Arm {
    answered: BTreeMap<ModelIdentity, Totals>,
    failed: BTreeMap<String, u64>,
    failed_retries: u64,
}

impl Meter {
    /// A meter at zero whose time begins now.
    pub fn new(budget: Budget, clock: Arc<dyn Clock>) -> Self {
        Self {
            budget,
            began_ms: clock.elapsed_ms(),
            clock,
            state: Mutex::default(),
        }
    }

    /// The limits.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Ask to make one call. The reservation is settled with how it ended;
    /// dropped unsettled, it gives back what it held.
    pub fn reserve(&self, estimate: Estimate) -> Result<Reservation<'_>, Exhausted> {
        let mut state = self.state();
        self.refusal(&state)
            .or_else(|| {
                let tokens = state.spent.tokens + state.reserved.tokens;
                let cost = state.spent.cost_micro_usd + state.reserved.cost_micro_usd;
                over(self.budget.tokens, tokens.saturating_add(estimate.tokens))
                    .map(|allowed| Exhausted::Tokens {
                        allowed,
                        spent: tokens,
                    })
                    .or_else(|| {
                        over(
                            self.budget.cost_micro_usd,
                            cost.saturating_add(estimate.cost_micro_usd),
                        )
                        .map(|allowed| Exhausted::Cost {
                            allowed,
                            spent: cost,
                        })
                    })
            })
            .map_or(Ok(()), Err)?;
        state.in_flight += 1;
        state.reserved.tokens += estimate.tokens;
        state.reserved.cost_micro_usd += estimate.cost_micro_usd;
        Ok(Reservation {
            meter: self,
            estimate,
        })
    }

    /// Which limit is reached, if any: the answer to "may I go on?".
    pub fn exhausted(&self) -> Option<Exhausted> {
        self.refusal(&self.state())
    }

    fn refusal(&self, state: &State) -> Option<Exhausted> {
        let reached = |limit: Option<u64>, used| limit.filter(|limit| used >= *limit);
        let tokens = state.spent.tokens + state.reserved.tokens;
        let cost = state.spent.cost_micro_usd + state.reserved.cost_micro_usd;
        let time = || self.clock.elapsed_ms().saturating_sub(self.began_ms);
        reached(self.budget.calls, state.calls + state.in_flight)
            .map(|allowed| Exhausted::Calls { allowed })
            .or_else(|| {
                reached(self.budget.tokens, tokens).map(|allowed| Exhausted::Tokens {
                    allowed,
                    spent: tokens,
                })
            })
            .or_else(|| {
                reached(self.budget.cost_micro_usd, cost).map(|allowed| Exhausted::Cost {
                    allowed,
                    spent: cost,
                })
            })
            .or_else(|| {
                let allowed = self.budget.time_ms?;
                (time() >= allowed).then_some(Exhausted::Time { allowed })
            })
    }

    /// An answer came from the cache: nothing was paid.
    pub fn cached(&self, arm: &str, completion: &Completion) {
        let mut state = self.state();
        let totals = state.arm(arm).totals(&completion.answered_by);
        totals.cached += 1;
        totals.fallbacks += u64::from(completion.fallback.is_some());
    }

    /// Who answered in an arm, cached answers included.
    pub fn identities(&self, arm: &str) -> Vec<ModelIdentity> {
        let state = self.state();
        let arm = state.arms.get(arm);
        arm.map(|arm| arm.answered.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether more than one model answered in an arm: such an evaluation can't promote.
    pub fn is_mixed(&self, arm: &str) -> bool {
        let state = self.state();
        state
            .arms
            .get(arm)
            .is_some_and(|arm| arm.answered.len() > 1)
    }

    /// Everything counted so far.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let mut total = Totals::default();
        let mut failed = BTreeMap::new();
        let mut failed_retries = 0;
        let arms = state.arms.iter().map(|(label, arm)| {
            for totals in arm.answered.values() {
                total.add(totals);
            }
            for (code, count) in &arm.failed {
                *failed.entry(code.clone()).or_insert(0) += count;
            }
            failed_retries += arm.failed_retries;
            let answered = arm.answered.iter().map(|(identity, totals)| ByModel {
                identity: identity.clone(),
                totals: totals.figures(),
            });
            ByArm {
                arm: label.clone(),
                mixed: arm.answered.len() > 1,
                answered: answered.collect(),
                failed: arm.failed.clone(),
            }
        });
        let arms = arms.collect();
        let mut total = total.figures();
        total.retries += failed_retries;
        Snapshot {
            calls: state.calls,
            in_flight: state.in_flight,
            elapsed_ms: self.clock.elapsed_ms().saturating_sub(self.began_ms),
            answered: total,
            failed,
            arms,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts stay consistent: nothing between two changes can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn over(limit: Option<u64>, wanted: u64) -> Option<u64> {
    limit.filter(|limit| wanted > *limit)
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("budget", &self.budget)
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}

impl State {
    fn arm(&mut self, label: &str) -> &mut Arm {
        if !self.arms.contains_key(label) {
            self.arms.insert(label.to_owned(), Arm::default());
        }
        self.arms
            .get_mut(label)
            .expect("because it was put there just now")
    }
}

impl Arm {
    fn totals(&mut self, identity: &ModelIdentity) -> &mut Totals {
        if !self.answered.contains_key(identity) {
            self.answered.insert(identity.clone(), Totals::default());
        }
        self.answered
            .get_mut(identity)
            .expect("because it was put there just now")
    }
}

/// The right to make one call.
#[derive(Debug)]
#[must_use = "a call that isn't settled isn't counted"]
pub struct Reservation<'a> {
    meter: &'a Meter,
    estimate: Estimate,
}

impl Reservation<'_> {
    /// The call was answered.
    pub fn answered(self, arm: &str, completion: &Completion) {
        let mut state = self.meter.state();
        state.calls += 1;
        state.spent.tokens += completion.usage.input_tokens + completion.usage.output_tokens;
        state.spent.cost_micro_usd += completion.cost_micro_usd;
        let totals = state.arm(arm).totals(&completion.answered_by);
        totals.calls += 1;
        totals.retries += u64::from(completion.attempts.saturating_sub(1));
        totals.fallbacks += u64::from(completion.fallback.is_some());
        totals.usage.input_tokens += completion.usage.input_tokens;
        totals.usage.output_tokens += completion.usage.output_tokens;
        totals.cost_micro_usd += completion.cost_micro_usd;
        totals.latency.record(completion.latency_ms);
    }

    /// The call failed. One that was never sent (an open circuit) costs no call.
    pub fn failed(self, arm: &str, error: &ModelError) {
        let mut state = self.meter.state();
        state.calls += u64::from(error.attempts > 0);
        let arm = state.arm(arm);
        arm.failed_retries += u64::from(error.attempts.saturating_sub(1));
        *arm.failed
            .entry(error.failure.code().to_owned())
            .or_insert(0) += 1;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        // Settling drops too, after it counted: what was held becomes what was spent.
        let mut state = self.meter.state();
        state.in_flight -= 1;
        state.reserved.tokens -= self.estimate.tokens;
        state.reserved.cost_micro_usd -= self.estimate.cost_micro_usd;
    }
}

#[derive(Debug, Clone, Default)]
struct Totals {
    calls: u64,
    cached: u64,
    retries: u64,
    fallbacks: u64,
    usage: Usage,
    cost_micro_usd: u64,
    latency: Histogram,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.cached += other.cached;
        self.retries += other.retries;
        self.fallbacks += other.fallbacks;
        self.usage.input_tokens += other.usage.input_tokens;
        self.usage.output_tokens += other.usage.output_tokens;
        self.cost_micro_usd += other.cost_micro_usd;
        self.latency.add(&other.latency);
    }

    fn figures(&self) -> Figures {
        Figures {
            calls: self.calls,
            cached: self.cached,
            retries: self.retries,
            fallbacks: self.fallbacks,
            input_tokens: self.usage.input_tokens,
            output_tokens: self.usage.output_tokens,
            cost_micro_usd: self.cost_micro_usd,
            latency: self.latency.summary(),
        }
    }
}

/// Latencies in buckets of at most an eighth of their size, up to an hour and beyond.
#[derive(Debug, Clone, Default)]
struct Histogram {
    counts: BTreeMap<u64, u64>,
    sum_ms: u64,
    max_ms: u64,
}

impl Histogram {
    fn record(&mut self, ms: u64) {
        *self.counts.entry(bucket_top(ms)).or_insert(0) += 1;
        self.sum_ms += ms;
        self.max_ms = self.max_ms.max(ms);
    }

    fn add(&mut self, other: &Self) {
        for (top, count) in &other.counts {
            *self.counts.entry(*top).or_insert(0) += count;
        }
        self.sum_ms += other.sum_ms;
        self.max_ms = self.max_ms.max(other.max_ms);
    }

    fn quantile(&self, per_mille: u64) -> u64 {
        let total: u64 = self.counts.values().sum();
        let rank = (total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (top, count) in &self.counts {
            seen += count;
            if seen >= rank {
                return (*top).min(self.max_ms);
            }
        }
        0
    }

    fn summary(&self) -> Latency {
        Latency {
            sum_ms: self.sum_ms,
            p50_ms: self.quantile(500),
            p90_ms: self.quantile(900),
            p99_ms: self.quantile(990),
            max_ms: self.max_ms,
        }
    }
}

/// The largest value that shares a bucket: eight buckets per power of two.
fn bucket_top(ms: u64) -> u64 {
    if ms < 16 {
        return ms;
    }
    let step = 1_u64 << (ms.ilog2() - 3);
    ms - ms % step + (step - 1)
}

/// Everything a meter has counted, for records and pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Calls that reached a model, answered or not.
    pub calls: u64,
    /// Calls reserved and not settled yet.
    pub in_flight: u64,
    /// Time since the meter was made.
    pub elapsed_ms: u64,
    /// Sums over all arms.
    pub answered: Figures,
    /// Failed calls by kind.
    pub failed: BTreeMap<String, u64>,
    /// The same by arm.
    pub arms: Vec<ByArm>,
}

/// One arm's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByArm {
    /// The label that the caller gave.
    pub arm: String,
    /// Whether more than one model answered.
    pub mixed: bool,
    /// By who answered.
    pub answered: Vec<ByModel>,
    /// Failed calls by kind.
    pub failed: BTreeMap<String, u64>,
}

/// One answering model's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByModel {
    /// Who answered.
    pub identity: ModelIdentity,
    /// What that took.
    #[serde(flatten)]
    pub totals: Figures,
}

/// Sums over answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Answered calls.
    pub calls: u64,
    /// Answers from the cache; not calls.
    pub cached: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Answers of another model than the one asked.
    pub fallbacks: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Money, in millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// How long calls took.
    pub latency: Latency,
}

/// How long calls took. Quantiles are right to an eighth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The sum.
    pub sum_ms: u64,
    /// The median.
    pub p50_ms: u64,
    /// Nine in ten were faster.
    pub p90_ms: u64,
    /// Ninety-nine in a hundred were faster.
    pub p99_ms: u64,
    /// The slowest, exactly.
    pub max_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SystemClock;
    use crate::models::error::Context;
    use crate::models::pool::run_bounded;
    use crate::models::{Failure, FinishReason};
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
        fn elapsed_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn completion(model: &str, latency_ms: u64) -> Completion {
        Completion {
            text: "x".into(),
            answered_by: ModelIdentity {
                provider: "test".into(),
                model: model.into(),
                revision: None,
            },
            usage: Usage {
                input_tokens: 10,
                output_tokens: 2,
            },
            finish: FinishReason::Stop,
            latency_ms,
            attempts: 2,
            cost_micro_usd: 7,
            cached: false,
            fallback: None,
            server_request_id: None,
        }
    }

    fn error(attempts: u32) -> ModelError {
        ModelError::new(
            Failure::Connect {
                reason: "refused".into(),
            },
            Context {
                at: "x".into(),
                elapsed_ms: 1,
                attempts,
                correlation_id: "c".into(),
                server_request_id: None,
                cause: None,
            },
        )
    }

    fn meter(budget: Budget) -> Meter {
        Meter::new(budget, Arc::new(SystemClock::default()))
    }

    #[test]
    fn concurrent_calls_never_pass_the_limit() {
        let meter = meter(Budget {
            calls: Some(100),
            ..Budget::default()
        });
        let made = AtomicU64::new(0);
        run_bounded(
            &[(); 1000],
            16,
            || false,
            |index, ()| {
                if let Ok(reservation) = meter.reserve(Estimate::default()) {
                    made.fetch_add(1, Ordering::SeqCst);
                    match index % 3 {
                        0 => reservation.answered("a", &completion("m", 1)),
                        _ => reservation.failed("a", &error(1)),
                    }
                }
            },
        );
        assert_eq!(made.load(Ordering::SeqCst), 100);
        let snapshot = meter.snapshot();
        assert_eq!((snapshot.calls, snapshot.in_flight), (100, 0));
        assert_eq!(meter.exhausted(), Some(Exhausted::Calls { allowed: 100 }));
    }

    #[test]
    fn every_limit_stops() {
        let clock = Arc::new(HandClock::default());
        let cases = [
            (
                Budget {
                    calls: Some(1),
                    ..Budget::default()
                },
                Exhausted::Calls { allowed: 1 },
            ),
            (
                Budget {
                    tokens: Some(12),
                    ..Budget::default()
                },
                Exhausted::Tokens {
                    allowed: 12,
                    spent: 12,
                },
            ),
            (
                Budget {
                    cost_micro_usd: Some(5),
                    ..Budget::default()
                },
                Exhausted::Cost {
                    allowed: 5,
                    spent: 7,
                },
            ),
            (
                Budget {
                    time_ms: Some(50),
                    ..Budget::default()
                },
                Exhausted::Time { allowed: 50 },
            ),
        ];
        for (budget, expected) in cases {
            let meter = Meter::new(budget, clock.clone());
            meter
                .reserve(Estimate::default())
                .expect("the first call is within it")
                .answered("a", &completion("m", 1));
            clock.0.fetch_add(50, Ordering::SeqCst);
            assert_eq!(meter.reserve(Estimate::default()).err(), Some(expected));
            assert_eq!(meter.exhausted(), Some(expected), "{expected}");
        }
    }

    #[test]
    fn an_estimate_is_held_and_given_back() {
        let meter = meter(Budget {
            tokens: Some(100),
            ..Budget::default()
        });
        let sixty = Estimate {
            tokens: 60,
            cost_micro_usd: 0,
        };
        let held = meter.reserve(sixty).expect("60 of 100");
        assert!(meter.reserve(sixty).is_err());
        drop(held);
        let held = meter.reserve(sixty).expect("it was given back");
        held.answered("a", &completion("m", 1));
        meter
            .reserve(sixty)
            .expect("12 were used")
            .failed("a", &error(0));
        assert_eq!(meter.snapshot().calls, 1, "an unsent call is none");
    }

    #[test]
    fn mixed_arms_are_seen() {
        let meter = meter(Budget::default());
        let answer = |arm: &str, model: &str| {
            let reservation = meter.reserve(Estimate::default()).expect("no limit");
            reservation.answered(arm, &completion(model, 5));
        };
        answer("control", "m-1");
        answer("candidate", "m-1");
        answer("candidate", "m-2");
        meter.cached("control", &completion("m-1", 5));
        assert!(!meter.is_mixed("control"));
        assert!(meter.is_mixed("candidate"));
        assert!(!meter.is_mixed("nobody"));
        assert_eq!(meter.identities("candidate").len(), 2);
        meter.cached("control", &completion("m-3", 5));
        assert!(meter.is_mixed("control"), "cached answers count");
        let snapshot = meter.snapshot();
        assert_eq!(snapshot.answered.calls, 3);
        assert_eq!(snapshot.answered.cached, 2);
        assert_eq!(snapshot.answered.retries, 3);
        assert_eq!(snapshot.answered.cost_micro_usd, 21);
        let text = serde_json::to_string(&snapshot).expect("it is JSON");
        let again: Snapshot = serde_json::from_str(&text).expect("it reads back");
        assert_eq!(again, snapshot);
    }

    proptest! {
        #[test]
        fn quantiles_are_right_to_an_eighth(mut values in prop::collection::vec(0_u64..5_000_000, 1..300)) {
            let mut histogram = Histogram::default();
            for value in &values {
                histogram.record(*value);
            }
            values.sort_unstable();
            for per_mille in [500, 900, 990] {
                let rank = (values.len() as u64 * per_mille).div_ceil(1000).max(1) as usize;
                let exact = values[rank - 1];
                let shown = histogram.quantile(per_mille);
                prop_assert!(shown >= exact && shown <= exact + exact / 8, "{shown} for {exact}");
            }
        }
    }
}
