//! A model that is asked again when asking again may help, left alone while it
//! is out, and replaced only by the model the user named, on the record.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::host::signal::Interrupt;

use super::breaker::{Admission, Breaker};
use super::error::Context;
use super::retry::{Decision, Jitter, RetryPolicy};
use super::{Completion, Failure, Model, ModelError, ModelIdentity, Request, Surroundings};

/// Retries, circuit breaker, fallback and a bound on requests in flight, around any model.
#[derive(Debug)]
pub struct Resilient {
    name: String,
    model: Arc<dyn Model>,
    policy: RetryPolicy,
    breaker: Option<Mutex<Breaker>>,
    fallback: Option<(String, Arc<dyn Model>)>,
    permits: Permits,
    surroundings: Surroundings,
}

impl Resilient {
    /// `model` with retries.
    pub fn new(
        name: &str,
        model: Arc<dyn Model>,
        policy: RetryPolicy,
        surroundings: &Surroundings,
    ) -> Self {
        Self {
            name: name.to_owned(),
            permits: Permits::new(model.concurrency()),
            model,
            policy,
            breaker: None,
            fallback: None,
            surroundings: surroundings.clone(),
        }
    }

    /// Leave it alone while it is out.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = Some(Mutex::new(breaker));
        self
    }

    /// Ask another model instead when this one is out. The completion says so.
    pub fn fallback(mut self, name: &str, model: Arc<dyn Model>) -> Self {
        self.fallback = Some((name.to_owned(), model));
        self
    }

    fn elapsed_since(&self, began_ms: u64) -> u64 {
        self.surroundings
            .clock
            .elapsed_ms()
            .saturating_sub(began_ms)
    }

    fn with_breaker<T>(&self, act: impl FnOnce(&mut Breaker, u64) -> T) -> Option<T> {
        let mut breaker = self
            .breaker
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(act(&mut breaker, self.surroundings.clock.elapsed_ms()))
    }

    fn error(
        &self,
        failure: Failure,
        request: &Request,
        began_ms: u64,
        attempts: u32,
    ) -> ModelError {
        ModelError::new(
            failure,
            Context {
                at: format!("models.{}", self.name),
                elapsed_ms: self.elapsed_since(began_ms),
                attempts,
                correlation_id: request.correlation_id.clone(),
                server_request_id: None,
                cause: None,
            },
        )
    }

    fn ask(&self, request: &Request) -> Result<Completion, ModelError> {
        let began_ms = self.surroundings.clock.elapsed_ms();
        let admission = self
            .with_breaker(|breaker, now_ms| match breaker.admit(now_ms) {
                Admission::Refuse { retry_in_ms } => Err(Failure::CircuitOpen {
                    retry_in_ms,
                    last: breaker.last_failure().to_owned(),
                }),
                admitted => Ok(admitted),
            })
            .unwrap_or(Ok(Admission::Pass))
            .map_err(|failure| self.error(failure, request, began_ms, 0))?;
        let outcome = self.attempts(request, began_ms);
        self.with_breaker(|breaker, now_ms| match &outcome {
            Ok(_) => breaker.answered(admission),
            Err(error) if error.failure == Failure::Interrupted => breaker.abandoned(admission),
            Err(error) if error.failure.is_outage() => {
                breaker.failed(admission, now_ms, &error.failure.to_string());
            }
            Err(_) => breaker.answered(admission),
        });
        outcome
    }

    fn attempts(&self, request: &Request, began_ms: u64) -> Result<Completion, ModelError> {
        let mut jitter = Jitter::new(self.surroundings.seed, &request.correlation_id);
        let mut attempts = 0;
        loop {
            let interrupted =
                |attempts| self.error(Failure::Interrupted, request, began_ms, attempts);
            let Some(permit) = self.permits.take(&self.surroundings.interrupt) else {
                return Err(interrupted(attempts));
            };
            attempts += 1;
            let outcome = self.model.complete(request);
            drop(permit);
            match outcome {
                Ok(mut completion) => {
                    completion.attempts = attempts;
                    completion.latency_ms = self.elapsed_since(began_ms);
                    return Ok(completion);
                }
                Err(mut error) => {
                    error.attempts = attempts;
                    error.elapsed_ms = self.elapsed_since(began_ms);
                    match self.policy.decide(
                        &error.failure,
                        attempts,
                        error.elapsed_ms,
                        &mut jitter,
                    ) {
                        Decision::GiveUp => return Err(error),
                        Decision::Again { pause_ms } => {
                            let pause = Duration::from_millis(pause_ms);
                            let slept = self
                                .surroundings
                                .sleeper
                                .sleep(pause, &self.surroundings.interrupt);
                            if !slept {
                                return Err(interrupted(attempts));
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Model for Resilient {
    fn complete(&self, request: &Request) -> Result<Completion, ModelError> {
        let error = match self.ask(request) {
            Ok(completion) => return Ok(completion),
            Err(error) => error,
        };
        let out = error.failure.is_outage() || matches!(error.failure, Failure::CircuitOpen { .. });
        let Some((name, fallback)) = self.fallback.as_ref().filter(|_| out) else {
            return Err(error);
        };
        match fallback.complete(request) {
            Ok(mut completion) => {
                let mut why = format!("`{name}` answered for `{}`: {}", self.name, error.failure);
                if let Some(further) = &completion.fallback {
                    why = format!("{why}; {further}");
                }
                completion.fallback = Some(why);
                completion.attempts += error.attempts;
                completion.latency_ms += error.elapsed_ms;
                Ok(completion)
            }
            Err(mut second) => {
                second.attempts += error.attempts;
                second.elapsed_ms += error.elapsed_ms;
                let mut innermost = &mut second.cause;
                while let Some(cause) = innermost {
                    innermost = &mut cause.cause;
                }
                *innermost = Some(Box::new(error));
                Err(second)
            }
        }
    }

    fn identity(&self) -> ModelIdentity {
        self.model.identity()
    }

    fn concurrency(&self) -> usize {
        self.model.concurrency()
    }

    fn cacheable(&self) -> bool {
        self.model.cacheable()
    }

    fn abort(&self) {
        self.model.abort();
        if let Some((_, fallback)) = &self.fallback {
            fallback.abort();
        }
    }
}

/// A counting semaphore whose waiters notice an interrupt.
#[derive(Debug)]
struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
}

struct Permit<'a>(&'a Permits);

impl Permits {
    fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(count.max(1)),
            returned: Condvar::new(),
        }
    }

    fn take(&self, interrupt: &Interrupt) -> Option<Permit<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if interrupt.is_set() {
                return None;
            }
            if *free > 0 {
                *free -= 1;
                return Some(Permit(self));
            }
            free = self
                .returned
                .wait_timeout(free, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}
