//! A circuit breaker: stop asking a model that is out, try again with one
//! request after a while. Time is passed in.
//!
//! ```text
//!            failures in a row                 cool-down over
//!   closed ────────────────────▶ open ──────────────────────▶ half-open
//!     ▲                            ▲     one probe is admitted   │   │
//!     │                            └────────── it failed ────────┘   │
//!     └──────────────────────────── it was answered ─────────────────┘
//! ```
//!
//! A call that was admitted before the circuit opened says nothing about now:
//! its outcome is ignored once the circuit is open. A probe that never reports
//! is replaced after another cool-down.

use super::config::BreakerConfig;

/// The state of one circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    last: String,
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests pass; so many outages in a row were seen.
    Closed {
        /// Outages since the last answer.
        failures: u32,
    },
    /// Nothing passes until the cool-down is over.
    Open {
        /// When it opened.
        since_ms: u64,
    },
    /// One request is trying.
    HalfOpen {
        /// When it was admitted.
        since_ms: u64,
    },
}

/// What a circuit says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Ask.
    Pass,
    /// Ask: the answer decides whether the circuit closes.
    Probe,
    /// Don't ask.
    Refuse {
        /// When asking may be worth it again.
        retry_in_ms: u64,
    },
}

impl Breaker {
    /// A closed circuit.
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed { failures: 0 },
            last: String::new(),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The failure that opened it, in words.
    pub fn last_failure(&self) -> &str {
        &self.last
    }

    /// Whether a request may go out now. Every admitted request reports back.
    pub fn admit(&mut self, now_ms: u64) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Pass,
            State::Open { since_ms } | State::HalfOpen { since_ms } => {
                let passed = now_ms.saturating_sub(since_ms);
                if passed >= self.config.cool_down_ms {
                    self.state = State::HalfOpen { since_ms: now_ms };
                    Admission::Probe
                } else {
                    Admission::Refuse {
                        retry_in_ms: self.config.cool_down_ms - passed,
                    }
                }
            }
        }
    }

    /// An admitted request was answered, even if with a refusal.
    pub fn answered(&mut self, admission: Admission) {
        match (self.state, admission) {
            (State::Closed { .. }, _) | (_, Admission::Probe) => {
                self.state = State::Closed { failures: 0 };
            }
            _ => {}
        }
    }

    /// An admitted request met an outage.
    pub fn failed(&mut self, admission: Admission, now_ms: u64, failure: &str) {
        match (self.state, admission) {
            (State::Closed { failures }, _) => {
                let failures = failures + 1;
                self.state = if failures >= self.config.failures {
                    self.last = failure.to_owned();
                    State::Open { since_ms: now_ms }
                } else {
                    State::Closed { failures }
                };
            }
            (State::HalfOpen { .. }, Admission::Probe) => {
                self.last = failure.to_owned();
                self.state = State::Open { since_ms: now_ms };
            }
            _ => {}
        }
    }

    /// An admitted request was given up without learning anything (an interrupt).
    pub fn abandoned(&mut self, admission: Admission) {
        if let (State::HalfOpen { .. }, Admission::Probe) = (self.state, admission) {
            // The cool-down was over: the next request may probe at once.
            self.state = State::Open { since_ms: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Admission::{Pass, Probe, Refuse};

    enum Step {
        Admit(u64, Admission),
        Answered(Admission),
        Failed(Admission, u64),
        Abandoned(Admission),
        Is(State),
    }
    use Step::{Abandoned, Admit, Answered, Failed, Is};

    #[test]
    fn stories() {
        let opened = || {
            vec![
                Failed(Pass, 10),
                Failed(Pass, 20),
                Is(State::Open { since_ms: 20 }),
            ]
        };
        let stories: Vec<(&str, Vec<Step>)> = vec![
            (
                "an answer forgives",
                vec![
                    Failed(Pass, 1),
                    Is(State::Closed { failures: 1 }),
                    Answered(Pass),
                    Failed(Pass, 2),
                    Is(State::Closed { failures: 1 }),
                    Admit(3, Pass),
                ],
            ),
            ("two in a row open it", {
                let mut s = opened();
                s.extend([
                    Admit(21, Refuse { retry_in_ms: 99 }),
                    Admit(119, Refuse { retry_in_ms: 1 }),
                ]);
                s
            }),
            ("one probe, answered", {
                let mut s = opened();
                s.extend([
                    Admit(120, Probe),
                    Admit(120, Refuse { retry_in_ms: 100 }),
                    Answered(Probe),
                    Is(State::Closed { failures: 0 }),
                    Admit(121, Pass),
                ]);
                s
            }),
            ("one probe, failed", {
                let mut s = opened();
                s.extend([
                    Admit(120, Probe),
                    Failed(Probe, 130),
                    Is(State::Open { since_ms: 130 }),
                ]);
                s
            }),
            ("late outcomes say nothing", {
                let mut s = opened();
                s.extend([
                    Answered(Pass),
                    Is(State::Open { since_ms: 20 }),
                    Failed(Pass, 50),
                    Is(State::Open { since_ms: 20 }),
                    Admit(120, Probe),
                    Answered(Pass),
                    Failed(Pass, 121),
                    Is(State::HalfOpen { since_ms: 120 }),
                ]);
                s
            }),
            ("an abandoned probe lets the next one try", {
                let mut s = opened();
                s.extend([Admit(120, Probe), Abandoned(Probe), Admit(121, Probe)]);
                s
            }),
            ("a lost probe is replaced", {
                let mut s = opened();
                s.extend([
                    Admit(120, Probe),
                    Admit(219, Refuse { retry_in_ms: 1 }),
                    Admit(220, Probe),
                ]);
                s
            }),
        ];
        for (name, steps) in stories {
            let mut breaker = Breaker::new(BreakerConfig {
                failures: 2,
                cool_down_ms: 100,
            });
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Admit(now, expected) => {
                        assert_eq!(breaker.admit(now), expected, "{name}, step {n}");
                    }
                    Answered(admission) => breaker.answered(admission),
                    Failed(admission, now) => breaker.failed(admission, now, "HTTP 503"),
                    Abandoned(admission) => breaker.abandoned(admission),
                    Is(state) => assert_eq!(breaker.state(), state, "{name}, step {n}"),
                }
            }
        }
    }
}
