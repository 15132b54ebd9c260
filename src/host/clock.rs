//! Wall-clock time, as a value that can be passed in.

use std::time::Instant;

use jiff::Timestamp;

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// The current wall-clock time.
    fn now(&self) -> Timestamp;
    /// Milliseconds since this clock was made; never goes back.
    fn elapsed_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn elapsed_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// A clock that stands still: tests and documentation sessions set it with
/// `PROOFLINE_NOW`, so that commits and events have the same bytes everywhere.
#[derive(Debug, Clone)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
    fn elapsed_ms(&self) -> u64 {
        0
    }
}

/// The clock the environment asks for: `PROOFLINE_NOW` (RFC 3339) or the machine's.
pub fn from_environment() -> Result<Box<dyn Clock>, jiff::Error> {
    match std::env::var("PROOFLINE_NOW") {
        Ok(text) if !text.is_empty() => Ok(Box::new(FixedClock(text.parse()?))),
        _ => Ok(Box::new(SystemClock::default())),
    }
}
