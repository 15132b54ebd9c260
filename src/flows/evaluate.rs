//! Many predictions at once: programs on rows, bounded concurrency, answers in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::domain::improve::dataset::Example;
use crate::domain::improve::metric::Metric;
use crate::domain::improve::report::{Failure, Outcome};
use crate::models::pool;

use super::predict::{Call, Engine, Prediction, Predictor};
use super::{FlowError, Kind};

/// One prediction to make.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// The program.
    pub predictor: &'a Predictor,
    /// The row.
    pub row: &'a Example,
}

/// Where predictions belong: part of cache keys and correlation ids.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Part of cache keys; see [`Call::context`].
    pub key: &'a str,
    /// First part of correlation ids: the run, or the verb.
    pub run: &'a str,
}

/// Make the predictions; results are in the order of the work, whatever the concurrency.
///
/// A model that cannot be reached fails the whole batch: an outage says nothing
/// about a program, and must not be scored as if it did.
pub fn outcomes(
    engine: &Engine,
    metric: &Metric,
    work: &[Work<'_>],
    context: Context<'_>,
) -> Result<Vec<Outcome>, FlowError> {
    let concurrency = work
        .iter()
        .map(|work| work.predictor.concurrency())
        .max()
        .unwrap_or(1);
    // The first outage ends the batch: each further call would wait through its retries for the same answer.
    let out = AtomicBool::new(false);
    let done = pool::run_bounded(
        work,
        concurrency,
        || engine.interrupt().is_set() || out.load(Ordering::Relaxed),
        |index, work| {
            let call = Call {
                context: context.key,
                repetition: 0,
                correlation_id: format!(
                    "{}-{}-{index}",
                    context.run,
                    work.predictor.artifact.short()
                ),
            };
            let prediction = work.predictor.predict(engine, &work.row.input, &call)?;
            if prediction.failure == Some(Failure::Transport) {
                out.store(true, Ordering::Relaxed);
                return Err(outage(&prediction, &call));
            }
            Ok(prediction.outcome(metric, &work.row.expected))
        },
    );
    collect(done)
}

/// A model that did not answer, as the end of a step: where, after how long, and which request.
pub fn outage(prediction: &Prediction, call: &Call<'_>) -> FlowError {
    FlowError::new(Kind::Outside, prediction.reason.as_deref().unwrap_or("the model did not answer"))
        .hint(format!("correlation id {}", call.correlation_id))
        .hint("answers that arrived are cached: run the same again once the model answers, and only the rest is asked")
}

/// All results, or the first error in the order of the work.
fn collect<T>(done: Vec<Option<Result<T, FlowError>>>) -> Result<Vec<T>, FlowError> {
    let mut results = Vec::with_capacity(done.len());
    let mut missing = false;
    for result in done {
        match result {
            Some(result) => results.push(result?),
            // Never begun: because of an interrupt, or of an error that is among the others.
            None => missing = true,
        }
    }
    if missing {
        Err(FlowError::interrupted())
    } else {
        Ok(results)
    }
}

/// Predictors by artifact, made once.
pub type Predictors = BTreeMap<crate::id::Digest, Arc<Predictor>>;
