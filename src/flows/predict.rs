//! One prediction: a frozen program on one input, through cache, meter and model.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::Value;

use crate::canon;
use crate::domain::improve::artifact::Program;
use crate::domain::improve::metric::Metric;
use crate::domain::improve::prompt::{self, Prompt, Unusable};
use crate::domain::improve::report::{Failure, Outcome, Usage};
use crate::domain::improve::signature::Strategy;
use crate::host::signal::Interrupt;
use crate::id::Digest;
use crate::models::cache::Cache;
use crate::models::meter::{Budget, Estimate, Meter};
use crate::models::{
    Completion, Decoding, FinishReason, Model, ModelConfig, ModelConfigs, ModelError, Request,
    ResponseFormat, Surroundings, connect, lexical,
};
use crate::schema::Validator;

use super::FlowError;

/// Everything predictions share: connected models, the cache, the meter.
#[derive(Debug)]
pub struct Engine {
    configs: ModelConfigs,
    surroundings: Surroundings,
    connected: Mutex<BTreeMap<String, Arc<dyn Model>>>,
    cache: Option<Cache>,
    /// What calls took and cost.
    pub meter: Meter,
}

impl Engine {
    /// An engine over the configured models. Nothing is connected until it is needed.
    pub fn new(configs: ModelConfigs, surroundings: Surroundings, cache: Option<Cache>) -> Self {
        let clock = Arc::clone(&surroundings.clock);
        Self {
            configs,
            surroundings,
            connected: Mutex::default(),
            cache,
            meter: Meter::new(Budget::default(), clock),
        }
    }

    /// Set when work should end.
    pub fn interrupt(&self) -> &Interrupt {
        &self.surroundings.interrupt
    }

    /// The configured models.
    pub fn configs(&self) -> &ModelConfigs {
        &self.configs
    }

    /// Answer for a name with a model made elsewhere, instead of connecting what is configured.
    pub fn connect_as(&self, name: &str, model: Arc<dyn Model>) {
        let mut connected = self
            .connected
            .lock()
            .expect("because no holder of this lock panics");
        connected.insert(name.to_owned(), model);
    }

    fn model(&self, name: &str) -> Result<Arc<dyn Model>, FlowError> {
        let mut connected = self
            .connected
            .lock()
            .expect("because no holder of this lock panics");
        if let Some(model) = connected.get(name) {
            return Ok(Arc::clone(model));
        }
        let model = connect(&self.configs, name, &self.surroundings).map_err(|error| {
            FlowError::input(error).hint(format!(
                "models are configured in proofline.toml, under `[models.{name}]`"
            ))
        })?;
        connected.insert(name.to_owned(), Arc::clone(&model));
        Ok(model)
    }
}

/// A program, ready to answer. Shared by threads; every prediction has its own state.
#[derive(Debug)]
pub struct Predictor {
    /// Which program.
    pub artifact: Digest,
    program: Program,
    output: Validator,
    brain: Brain,
}

#[derive(Debug)]
enum Brain {
    Direct {
        prompt: Prompt,
        model: Arc<dyn Model>,
        response: ResponseFormat,
    },
    Lexical {
        classifier: Box<lexical::Model>,
        /// The output that each label of the classifier stands for.
        outputs: BTreeMap<String, Value>,
    },
}

/// What came of one prediction.
#[derive(Debug, Clone, Serialize)]
pub struct Prediction {
    /// The output, valid by the output schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The failure in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How sure the embedded model is, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// How often the model was asked again.
    pub repairs: u32,
    /// What it costs when nothing is cached.
    pub usage: Usage,
    /// Who answered, `provider/model@revision`.
    pub answered_by: String,
    /// Whether every call came from the cache.
    pub cached: bool,
    /// Milliseconds of the calls.
    pub latency_ms: u64,
    /// Why another model than the configured one answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

impl Prediction {
    /// Score it against what was expected.
    pub fn outcome(&self, metric: &Metric, expected: &Value) -> Outcome {
        Outcome {
            score: metric.score(self.output.as_ref(), expected),
            output: self.output.clone(),
            failure: self.failure,
            repairs: self.repairs,
            usage: self.usage,
            answered_by: self.answered_by.clone(),
        }
    }
}

/// Which prediction this is: decides the cache key and ties our records to a provider's logs.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Part of the cache key: empty for compile and eval; the attempt's or the
    /// canary's id where answers must be fresh, yet a resumed run pays once.
    pub context: &'a str,
    /// Part of the cache key: which of several equal calls.
    pub repetition: u32,
    /// Sent to the provider; in no digest.
    pub correlation_id: String,
}

impl Predictor {
    /// Make a program ready. `weights` are the embedded classifier's bytes, for a lexical program.
    pub fn new(
        engine: &Engine,
        program: Program,
        weights: Option<&[u8]>,
    ) -> Result<Self, FlowError> {
        let artifact = program.artifact_id()?;
        let output = Validator::new(&program.interface.output).map_err(|error| {
            FlowError::input(format!("the output schema of {artifact}: {error}"))
        })?;
        let brain = match program.strategy {
            Strategy::Direct => {
                let prompt = Prompt::new(&program).map_err(FlowError::input)?;
                let model = engine.model(&program.model.name)?;
                let response = response_format(&engine.configs, &program);
                Brain::Direct {
                    prompt,
                    model,
                    response,
                }
            }
            Strategy::DistilledLexical => {
                let frozen = program.lexical.as_ref().ok_or_else(|| {
                    FlowError::input(format!(
                        "artifact {artifact} is lexical, but names no weights"
                    ))
                })?;
                let weights = weights.ok_or_else(|| {
                    FlowError::input(format!(
                        "the weights {} of {artifact} are missing",
                        frozen.weights
                    ))
                })?;
                if Digest::of(weights) != frozen.weights {
                    return Err(FlowError::input(format!(
                        "the weights of {artifact} have digest {}, not {}",
                        Digest::of(weights),
                        frozen.weights
                    )));
                }
                let classifier = lexical::Model::from_bytes(weights).map_err(|error| {
                    FlowError::input(format!(
                        "the weights {} of {artifact}: {error}",
                        frozen.weights
                    ))
                })?;
                // The answer of a text that no label suits need not be a label.
                let outputs = classifier
                    .labels()
                    .iter()
                    .chain(&classifier.knobs().none_label)
                    .map(|label| {
                        let output = serde_json::from_str(label).map_err(|error| {
                            FlowError::input(format!("label `{label}` of {artifact}: {error}"))
                        })?;
                        Ok((label.clone(), output))
                    })
                    .collect::<Result<_, FlowError>>()?;
                Brain::Lexical {
                    classifier: Box::new(classifier),
                    outputs,
                }
            }
        };
        Ok(Self {
            artifact,
            program,
            output,
            brain,
        })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// How many predictions are worth having in flight.
    pub fn concurrency(&self) -> usize {
        match &self.brain {
            Brain::Direct { model, .. } => model.concurrency(),
            Brain::Lexical { .. } => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Answer one input. An error is only what leaves nothing to conclude: an
    /// interrupt, a spent budget, a broken prompt frame. A model that does not answer is an outcome.
    pub fn predict(
        &self,
        engine: &Engine,
        input: &Value,
        call: &Call<'_>,
    ) -> Result<Prediction, FlowError> {
        match &self.brain {
            Brain::Lexical {
                classifier,
                outputs,
            } => Ok(self.classify(classifier, outputs, input)),
            Brain::Direct {
                prompt,
                model,
                response,
            } => {
                let messages = prompt.messages(input).map_err(FlowError::input)?;
                self.ask(engine, model.as_ref(), response, messages, call)
            }
        }
    }

    fn classify(
        &self,
        classifier: &lexical::Model,
        outputs: &BTreeMap<String, Value>,
        input: &Value,
    ) -> Prediction {
        let answer = classifier.predict(&plain_text(input));
        let output = outputs
            .get(answer.label)
            .expect("because every label of the classifier has an output")
            .clone();
        let errors = self.output.errors(&output);
        let failure = (!errors.is_empty()).then_some(Failure::Schema);
        Prediction {
            output: failure.is_none().then_some(output),
            failure,
            reason: errors.first().map(ToString::to_string),
            confidence: Some(answer.confidence),
            repairs: 0,
            usage: Usage {
                calls: 1,
                ..Usage::default()
            },
            answered_by: "lexical/lexical.v1".to_owned(),
            cached: false,
            latency_ms: 0,
            fallback: None,
        }
    }

    fn ask(
        &self,
        engine: &Engine,
        model: &dyn Model,
        response: &ResponseFormat,
        messages: Vec<crate::models::Message>,
        call: &Call<'_>,
    ) -> Result<Prediction, FlowError> {
        let budgets = &self.program.budgets;
        let mut prediction = Prediction {
            output: None,
            failure: None,
            reason: None,
            confidence: None,
            repairs: 0,
            usage: Usage::default(),
            answered_by: model.identity().to_string(),
            cached: true,
            latency_ms: 0,
            fallback: None,
        };
        let mut request = Request {
            messages,
            decoding: Decoding {
                temperature: Some(self.program.sampling.temperature),
                top_p: Some(self.program.sampling.top_p),
                max_tokens: Some(self.program.sampling.max_tokens),
                seed: None,
            },
            response: response.clone(),
            repetition: call.repetition,
            correlation_id: call.correlation_id.clone(),
        };
        loop {
            let out_of_calls = budgets
                .max_lm_calls
                .is_some_and(|max| prediction.usage.calls >= u64::from(max));
            let out_of_time = budgets
                .max_time_ms
                .is_some_and(|max| prediction.latency_ms >= max);
            if out_of_calls || out_of_time {
                prediction.failure = Some(Failure::Limit);
                prediction.reason =
                    Some("the program's own budget ended before a usable answer".to_owned());
                return Ok(prediction);
            }
            let completion = match self.complete(engine, model, &request, call.context) {
                Ok(completion) => completion,
                Err(error) => return self.unanswered(prediction, &error),
            };
            prediction.usage.calls += 1;
            prediction.usage.input_tokens += completion.usage.input_tokens;
            prediction.usage.output_tokens += completion.usage.output_tokens;
            prediction.usage.cost_micro_usd += completion.cost_micro_usd;
            prediction.latency_ms += completion.latency_ms;
            prediction.cached &= completion.cached;
            prediction.answered_by = completion.answered_by.to_string();
            prediction.fallback = prediction.fallback.or_else(|| completion.fallback.clone());
            match self.read(&completion) {
                Ok(output) => {
                    prediction.output = Some(output);
                    prediction.failure = None;
                    prediction.reason = None;
                    return Ok(prediction);
                }
                Err(unusable) => {
                    prediction.failure = Some(unusable.failure);
                    prediction.reason = Some(unusable.reason.clone());
                    if prediction.repairs >= self.program.decode.max_repairs {
                        return Ok(prediction);
                    }
                    prediction.repairs += 1;
                    prompt::repair(&mut request.messages, &completion.text, &unusable.reason);
                }
            }
        }
    }

    /// An answer as an output, or why it is none.
    fn read(&self, completion: &Completion) -> Result<Value, Unusable> {
        if let Some(max) = self.program.budgets.max_output_chars
            && completion.text.chars().count() > max
        {
            return Err(Unusable {
                failure: Failure::Limit,
                reason: format!("it is longer than {max} characters"),
            });
        }
        let value = prompt::decode(self.program.decode.mode, &completion.text).map_err(
            |mut unusable| {
                if completion.finish == FinishReason::Length {
                    unusable.failure = Failure::Limit;
                    unusable.reason = "it was cut off at the longest answer allowed".to_owned();
                }
                unusable
            },
        )?;
        match self.output.errors(&value).into_iter().next() {
            None => Ok(value),
            Some(fault) => Err(Unusable {
                failure: Failure::Schema,
                reason: fault.to_string(),
            }),
        }
    }

    fn complete(
        &self,
        engine: &Engine,
        model: &dyn Model,
        request: &Request,
        context: &str,
    ) -> Result<Completion, ModelError> {
        let key = (model.cacheable() && engine.cache.is_some())
            .then(|| self.cache_key(model, request, context))
            .flatten();
        let arm = self.artifact.to_string();
        if let (Some(key), Some(cache)) = (&key, &engine.cache)
            && let Some(completion) = cache.get(key)
        {
            engine.meter.cached(&arm, &completion);
            return Ok(completion);
        }
        let reservation = engine.meter.reserve(Estimate::default()).expect(
            "because the engine's meter has no limits: searches and programs keep their own",
        );
        match model.complete(request) {
            Ok(completion) => {
                // An answer from a stand-in is no answer of the model that the key names.
                if let (Some(key), Some(cache), None) = (&key, &engine.cache, &completion.fallback)
                {
                    // A cache that cannot be written costs money later, not correctness now.
                    let _ = cache.put(key, &completion);
                }
                reservation.answered(&arm, &completion);
                Ok(completion)
            }
            Err(error) => {
                reservation.failed(&arm, &error);
                Err(error)
            }
        }
    }

    /// Everything that can change an answer.
    fn cache_key(&self, model: &dyn Model, request: &Request, context: &str) -> Option<Digest> {
        canon::digest(&(
            self.artifact,
            model.identity(),
            &request.messages,
            &request.decoding,
            &request.response,
            request.repetition,
            context,
        ))
        .ok()
    }

    fn unanswered(
        &self,
        mut prediction: Prediction,
        error: &ModelError,
    ) -> Result<Prediction, FlowError> {
        use crate::models::Failure as Why;
        prediction.cached = false;
        prediction.usage.calls += u64::from(error.attempts);
        prediction.latency_ms += error.elapsed_ms;
        prediction.reason = Some(error.to_string());
        prediction.failure = Some(match &error.failure {
            Why::Interrupted => return Err(FlowError::interrupted()),
            Why::Refused { .. } => Failure::Refused,
            Why::Empty { .. } => Failure::Decode,
            Why::TooLarge { .. } => Failure::Limit,
            // The provider read the request and will not answer it: too long, or against its rules.
            Why::Status {
                status: 400 | 413 | 422,
                ..
            } => Failure::Refused,
            _ => Failure::Transport,
        });
        Ok(prediction)
    }
}

/// The shape asked of an answer: what the endpoint is configured to offer.
fn response_format(configs: &ModelConfigs, program: &Program) -> ResponseFormat {
    use crate::models::config::OfferedFormat;
    let offered = match configs.get(&program.model.name) {
        Some(ModelConfig::Openai(config)) => config.response_format,
        // A program on the other end of a pipe may make use of the schema; nothing obliges it to.
        _ => OfferedFormat::JsonSchema,
    };
    match offered {
        OfferedFormat::Text => ResponseFormat::Text,
        OfferedFormat::JsonObject => ResponseFormat::JsonObject,
        OfferedFormat::JsonSchema => ResponseFormat::JsonSchema {
            name: schema_name(program.interface.signature.name()),
            schema: program.interface.output.clone(),
        },
    }
}

fn schema_name(signature: &str) -> String {
    signature
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect()
}

/// What the embedded classifier reads: every string in the input, in member order.
pub fn plain_text(input: &Value) -> String {
    fn collect(value: &Value, into: &mut String) {
        match value {
            Value::String(text) => {
                if !into.is_empty() {
                    into.push('\n');
                }
                into.push_str(text);
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            Value::Object(members) => members.values().for_each(|item| collect(item, into)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut text = String::new();
    collect(input, &mut text);
    text
}
