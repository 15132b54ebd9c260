//! Retries, breaker, fallback and permits on a clock that is moved by hand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proofline::host::clock::Clock;
use proofline::host::signal::Interrupt;
use proofline::models::breaker::Breaker;
use proofline::models::config::BreakerConfig;
use proofline::models::error::Context;
use proofline::models::retry::{RetryPolicy, Sleeper};
use proofline::models::{
    Completion, Decoding, Failure, FinishReason, Message, Model, ModelError, ModelIdentity,
    Request, Resilient, ResponseFormat, Surroundings, Usage,
};

/// Time that passes only when someone sleeps or says so.
#[derive(Debug, Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
    fn elapsed_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Sleeper for HandClock {
    fn sleep(&self, pause: Duration, interrupt: &Interrupt) -> bool {
        self.0.fetch_add(pause.as_millis() as u64, Ordering::SeqCst);
        !interrupt.is_set()
    }
}

/// Fails as told; each attempt takes some time.
#[derive(Debug)]
struct Scripted {
    name: &'static str,
    clock: Arc<HandClock>,
    takes_ms: u64,
    out: AtomicBool,
    failure: Mutex<Failure>,
    asked: AtomicU64,
}

impl Model for Scripted {
    fn complete(&self, request: &Request) -> Result<Completion, ModelError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.clock.0.fetch_add(self.takes_ms, Ordering::SeqCst);
        if self.out.load(Ordering::SeqCst) {
            let failure = self.failure.lock().expect("no panic").clone();
            return Err(ModelError::new(
                failure,
                Context {
                    at: self.name.into(),
                    elapsed_ms: self.takes_ms,
                    attempts: 1,
                    correlation_id: request.correlation_id.clone(),
                    server_request_id: None,
                    cause: None,
                },
            ));
        }
        Ok(Completion {
            text: self.name.into(),
            answered_by: self.identity(),
            usage: Usage::default(),
            finish: FinishReason::Stop,
            latency_ms: self.takes_ms,
            attempts: 1,
            cost_micro_usd: 0,
            cached: false,
            fallback: None,
            server_request_id: None,
        })
    }
    fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            provider: "scripted".into(),
            model: self.name.into(),
            revision: None,
        }
    }
    fn concurrency(&self) -> usize {
        2
    }
}

fn request() -> Request {
    Request {
        messages: vec![Message::user("x")],
        decoding: Decoding::default(),
        response: ResponseFormat::Text,
        repetition: 0,
        correlation_id: "c".into(),
    }
}

struct Stage {
    clock: Arc<HandClock>,
    surroundings: Surroundings,
}

impl Stage {
    fn new() -> Self {
        let clock = Arc::new(HandClock::default());
        let mut surroundings = Surroundings::new(clock.clone(), Interrupt::default(), |_| None);
        surroundings.sleeper = clock.clone();
        Self {
            clock,
            surroundings,
        }
    }

    fn model(&self, name: &'static str, takes_ms: u64, failure: Option<Failure>) -> Arc<Scripted> {
        Arc::new(Scripted {
            name,
            clock: self.clock.clone(),
            takes_ms,
            out: AtomicBool::new(failure.is_some()),
            failure: Mutex::new(failure.unwrap_or(Failure::Interrupted)),
            asked: AtomicU64::new(0),
        })
    }

    fn resilient(&self, model: &Arc<Scripted>, retries: u32) -> Resilient {
        let policy = RetryPolicy::with_retries(retries);
        Resilient::new("main", model.clone(), policy, &self.surroundings)
    }
}

fn truncated() -> Option<Failure> {
    Some(Failure::Truncated {
        reason: "half".into(),
    })
}

#[test]
fn the_budget_ends_retries_before_their_number_does() {
    let stage = Stage::new();
    let slow = stage.model("slow", 60_000, truncated());
    let error = stage
        .resilient(&slow, 20)
        .complete(&request())
        .expect_err("out");
    assert_eq!(slow.asked.load(Ordering::SeqCst), 5, "five minutes in all");
    assert_eq!(error.attempts, 5);
    assert!(error.elapsed_ms >= 300_000, "{}", error.elapsed_ms);
}

#[test]
fn an_interrupt_during_a_pause_ends_it() {
    let stage = Stage::new();
    let model = stage.model("m", 1, truncated());
    let resilient = stage.resilient(&model, 4);
    let before = stage.surroundings.interrupt.clone();
    before.set();
    let error = resilient.complete(&request()).expect_err("interrupted");
    assert_eq!(
        (error.failure.clone(), error.attempts),
        (Failure::Interrupted, 0)
    );
    assert_eq!(model.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn the_circuit_opens_probes_and_closes() {
    let stage = Stage::new();
    let main = stage.model("main", 10, truncated());
    let resilient = stage
        .resilient(&main, 0)
        .breaker(Breaker::new(BreakerConfig {
            failures: 2,
            cool_down_ms: 1_000,
        }));
    let asked = || main.asked.load(Ordering::SeqCst);
    let code = || match resilient.complete(&request()) {
        Ok(_) => "answered",
        Err(error) => error.failure.code(),
    };
    assert_eq!(
        [code(), code(), code()],
        ["truncated", "truncated", "circuit_open"]
    );
    assert_eq!(asked(), 2);
    stage.clock.0.fetch_add(1_000, Ordering::SeqCst);
    assert_eq!([code(), code()], ["truncated", "circuit_open"], "one probe");
    assert_eq!(asked(), 3);
    main.out.store(false, Ordering::SeqCst);
    assert_eq!(code(), "circuit_open");
    stage.clock.0.fetch_add(1_000, Ordering::SeqCst);
    assert_eq!([code(), code()], ["answered", "answered"]);
}

#[test]
fn who_answered_and_why_is_recorded_through_a_chain() {
    let stage = Stage::new();
    let (a, b, c) = (
        stage.model("a", 10, truncated()),
        stage.model("b", 20, truncated()),
        stage.model("c", 30, None),
    );
    let wrap = |name: &str, model: &Arc<Scripted>| {
        Resilient::new(
            name,
            model.clone() as Arc<dyn Model>,
            RetryPolicy::with_retries(0),
            &stage.surroundings,
        )
    };
    let b_then_c = wrap("b", &b).fallback("c", Arc::new(wrap("c", &c)));
    let model = wrap("a", &a).fallback("b", Arc::new(b_then_c));
    let answer = model.complete(&request()).expect("the third answers");
    assert_eq!(answer.answered_by.model, "c");
    assert_eq!((answer.attempts, answer.latency_ms), (3, 60));
    let why = answer.fallback.expect("it is recorded");
    assert!(
        why.contains("`b` answered for `a`") && why.contains("`c` answered for `b`"),
        "{why}"
    );

    c.out.store(true, Ordering::SeqCst);
    *c.failure.lock().expect("no panic") = Failure::Refused {
        message: "no".into(),
    };
    let error = model.complete(&request()).expect_err("all are out");
    assert_eq!(error.failure.code(), "refused");
    assert_eq!((error.attempts, error.elapsed_ms), (3, 60));
    let text = error.to_string();
    assert_eq!(text.matches("it was asked because").count(), 2, "{text}");
}

#[test]
fn a_bad_request_goes_to_nobody_else() {
    let stage = Stage::new();
    let rejected = Failure::Status {
        status: 400,
        message: "no".into(),
        retry_after_ms: None,
    };
    let (main, spare) = (
        stage.model("main", 1, Some(rejected)),
        stage.model("spare", 1, None),
    );
    let model = stage.resilient(&main, 4).fallback("spare", spare.clone());
    let error = model.complete(&request()).expect_err("it is our fault");
    assert_eq!((error.failure.code(), error.attempts), ("rejected", 1));
    assert_eq!(spare.asked.load(Ordering::SeqCst), 0);
}
