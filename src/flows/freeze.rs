//! From parameters to a frozen program: few-shots looked up in train, the
//! classifier fitted to train rows, the model's name resolved to what it stands for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use crate::canon;
use crate::domain::improve::artifact::{Lexical, Program, ProgramModel, Sampling, Shot};
use crate::domain::improve::dataset::Example;
use crate::domain::improve::search::normalised;
use crate::domain::improve::signature::{Interface, Parameters, Strategy};
use crate::id::{Digest, ExampleId};
use crate::models::{ModelConfig, ModelConfigs, lexical};
use crate::schema::Validator;

use super::FlowError;
use super::predict::plain_text;

/// A knob of ours beside the classifier's own: at most this many train rows are
/// used, taken in rounds over the outputs, in the order of their content digests.
pub const TRAIN_ROWS_MAX: &str = "train_rows_max";

/// Freezes parameters against one set of train rows.
#[derive(Debug)]
pub struct Freezer<'a> {
    interface: Interface,
    seed: u64,
    models: &'a ModelConfigs,
    train: &'a [Example],
    by_id: HashMap<&'a ExampleId, &'a Example>,
    /// Weights made so far, by digest.
    weights: BTreeMap<Digest, Vec<u8>>,
}

impl<'a> Freezer<'a> {
    /// A freezer over the train rows. `seed` seeds every fit.
    pub fn new(
        interface: Interface,
        seed: u64,
        models: &'a ModelConfigs,
        train: &'a [Example],
    ) -> Self {
        Self {
            interface,
            seed,
            models,
            train,
            by_id: train.iter().map(|row| (&row.id, row)).collect(),
            weights: BTreeMap::new(),
        }
    }

    /// The weights of a program frozen here.
    pub fn weights(&self, program: &Program) -> Option<&[u8]> {
        let lexical = program.lexical.as_ref()?;
        self.weights.get(&lexical.weights).map(Vec::as_slice)
    }

    /// The program that the parameters stand for.
    pub fn freeze(&mut self, parameters: &Parameters) -> Result<Program, FlowError> {
        let parameters = normalised(parameters);
        let lexical = match parameters.strategy {
            Strategy::DistilledLexical => Some(self.fit(&parameters.lexical)?),
            Strategy::Direct => None,
        };
        let model = self.model(&parameters)?;
        let few_shots = parameters
            .few_shot
            .example_ids
            .iter()
            .map(|id| {
                let row = self.by_id.get(id).ok_or_else(|| {
                    FlowError::input(format!("few-shot `{id}` is not a train row of {}", self.interface.signature))
                        .hint("few-shots come from train alone; import the row into train, or name another")
                })?;
                Ok(Shot {
                    id: row.id.clone(),
                    input: row.input.clone(),
                    expected: row.expected.clone(),
                })
            })
            .collect::<Result<_, FlowError>>()?;
        Ok(Program {
            schema: Program::SCHEMA.to_owned(),
            interface: self.interface.clone(),
            strategy: parameters.strategy,
            model,
            instruction: parameters.instruction,
            few_shots,
            decode: parameters.decode,
            sampling: Sampling {
                temperature: parameters.temperature,
                top_p: parameters.top_p,
                max_tokens: parameters.max_tokens,
            },
            budgets: parameters.budgets,
            lexical,
        })
    }

    fn model(&self, parameters: &Parameters) -> Result<ProgramModel, FlowError> {
        let made = |provider: &str, model: String| ProgramModel {
            name: parameters.model.clone(),
            provider: provider.to_owned(),
            model,
        };
        if parameters.strategy == Strategy::DistilledLexical {
            return Ok(made("lexical", "lexical.v1".to_owned()));
        }
        match self.models.get(&parameters.model) {
            Some(ModelConfig::Openai(config)) => Ok(made("openai", config.model.clone())),
            Some(ModelConfig::Exec(config)) => Ok(made("exec", config.command.join(" "))),
            Some(ModelConfig::Lexical(_)) | None => {
                let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
                Err(FlowError::input(format!(
                    "{} asks for the model `{}`, which is not configured for prompts",
                    self.interface.signature, parameters.model
                ))
                .hint(if known.is_empty() {
                    format!("add `[models.{}]` to proofline.toml", parameters.model)
                } else {
                    format!("proofline.toml has: {}", known.join(", "))
                }))
            }
        }
    }

    fn fit(&mut self, knobs: &Map<String, Value>) -> Result<Lexical, FlowError> {
        let mut own = knobs.clone();
        let rows_max = match own.remove(TRAIN_ROWS_MAX) {
            None | Some(Value::Null) => usize::MAX,
            Some(value) => value
                .as_u64()
                .filter(|max| *max >= 2)
                .and_then(|max| usize::try_from(max).ok())
                .ok_or_else(|| FlowError::input(format!("lexical.{TRAIN_ROWS_MAX} is {value}; it must be a whole number of at least 2")))?,
        };
        let mut settings: lexical::Knobs =
            serde_json::from_value(Value::Object(own)).map_err(|error| {
                FlowError::input(format!(
                    "lexical knobs of {}: {error}",
                    self.interface.signature
                ))
                .hint(format!(
                    "`{TRAIN_ROWS_MAX}` and the knobs listed in docs/lexical.md are known"
                ))
            })?;
        let rows = spread(self.train, rows_max)?;
        let trained_on = canon::digest(&rows.iter().map(|(digest, _)| digest).collect::<Vec<_>>())?;
        let labelled: Vec<(String, String)> = rows
            .iter()
            .map(|(_, row)| Ok((plain_text(&row.input), canon::to_string(&row.expected)?)))
            .collect::<Result<_, FlowError>>()?;
        if let Some(text) = &settings.none_label {
            settings.none_label = Some(self.none_output(text, &labelled)?);
        }
        let model = lexical::fit(&labelled, &settings, self.seed).map_err(|error| {
            FlowError::input(format!(
                "the classifier of {} cannot be fitted: {error}",
                self.interface.signature
            ))
        })?;
        let bytes = model.to_bytes();
        let weights = Digest::of(&bytes);
        self.weights.insert(weights, bytes);
        Ok(Lexical {
            knobs: knobs.clone(),
            seed: self.seed,
            rows: rows.len() as u64,
            trained_on,
            weights,
        })
    }
}

impl Freezer<'_> {
    /// The output that `none_label` stands for, as canonical JSON, which is what the classifier's labels are: an
    /// output as JSON, or the one output of the train rows that says so, as `none` does for `{"tool":"none"}`.
    fn none_output(&self, text: &str, labelled: &[(String, String)]) -> Result<String, FlowError> {
        let outputs: BTreeSet<&str> = labelled.iter().map(|(_, output)| output.as_str()).collect();
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            let schema = Validator::new(&self.interface.output).map_err(|error| {
                FlowError::input(format!(
                    "the output schema of {}: {error}",
                    self.interface.signature
                ))
            })?;
            let output = canon::to_string(&value)?;
            if outputs.contains(output.as_str()) || schema.errors(&value).is_empty() {
                return Ok(output);
            }
        }
        let says_so = |output: &&&str| match serde_json::from_str(output) {
            Ok(Value::String(whole)) => whole == text,
            Ok(Value::Object(members)) => {
                members.values().any(|member| member.as_str() == Some(text))
            }
            _ => false,
        };
        let mut found = outputs.iter().filter(says_so);
        match (found.next(), found.next()) {
            (Some(output), None) => Ok((*output).to_owned()),
            (first, _) => {
                let how_many = if first.is_some() {
                    "more than one output"
                } else {
                    "no output"
                };
                let known: Vec<&str> = outputs.into_iter().take(10).collect();
                Err(FlowError::input(format!(
                    "lexical.none_label `{text}` stands for {how_many} of {}",
                    self.interface.signature
                ))
                .hint(format!(
                    "write an output as JSON, such as {}",
                    known.join(", ")
                )))
            }
        }
    }
}

/// At most `max` rows, taken in rounds over the distinct outputs, each output's rows in
/// the order of their content digests; the result is in digest order, so that the
/// order of a file or of ids makes no difference to what is fitted.
fn spread(rows: &[Example], max: usize) -> Result<Vec<(Digest, &Example)>, FlowError> {
    let mut by_output: BTreeMap<String, Vec<(Digest, &Example)>> = BTreeMap::new();
    for row in rows {
        by_output
            .entry(canon::to_string(&row.expected)?)
            .or_default()
            .push((row.content_digest()?, row));
    }
    for queue in by_output.values_mut() {
        queue.sort_by_key(|(digest, _)| std::cmp::Reverse(*digest));
    }
    let mut taken = Vec::new();
    while taken.len() < max && by_output.values().any(|queue| !queue.is_empty()) {
        for queue in by_output.values_mut() {
            if taken.len() < max {
                taken.extend(queue.pop());
            }
        }
    }
    taken.sort_by_key(|(digest, _)| *digest);
    Ok(taken)
}

/// The parameters that a program was frozen from, as a starting point for variations.
pub fn parameters_of(program: &Program) -> Parameters {
    Parameters {
        strategy: program.strategy,
        instruction: program.instruction.clone(),
        few_shot: crate::domain::improve::signature::FewShot {
            example_ids: program
                .few_shots
                .iter()
                .map(|shot| shot.id.clone())
                .collect(),
        },
        model: program.model.name.clone(),
        decode: program.decode.clone(),
        temperature: program.sampling.temperature,
        top_p: program.sampling.top_p,
        max_tokens: program.sampling.max_tokens,
        lexical: program
            .lexical
            .as_ref()
            .map(|lexical| lexical.knobs.clone())
            .unwrap_or_default(),
        budgets: program.budgets.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_none_label_is_an_output_or_stands_for_one() {
        let interface: Interface = serde_json::from_value(json!({
            "signature": "acme/demo/Route.v1",
            "input": {"type": "object"},
            "output": {"type": "object", "required": ["tool"], "properties": {
                "tool": {"enum": ["search", "none", "other"]},
                "why": {"enum": ["search", "small-talk"]},
            }},
            "prompt": {},
        }))
        .expect("an interface");
        let models = ModelConfigs::default();
        let freezer = Freezer::new(interface, 1, &models, &[]);
        let labelled = [
            r#"{"tool":"none"}"#,
            r#"{"tool":"search"}"#,
            r#"{"tool":"none","why":"search"}"#,
        ]
        .map(|output| (String::new(), output.to_owned()));
        let table = [
            (r#"{ "tool": "none" }"#, Some(r#"{"tool":"none"}"#)),
            // In no train row, but the schema knows it.
            (r#"{"tool":"other"}"#, Some(r#"{"tool":"other"}"#)),
            (r#"{"tool":"nonsense"}"#, None),
            ("small-talk", None),
            // Of two outputs.
            ("none", None),
            ("search", None),
        ];
        for (text, expected) in table {
            let found = freezer.none_output(text, &labelled);
            assert_eq!(found.as_deref().ok(), expected, "{text}");
        }
        assert_eq!(
            freezer
                .none_output("none", &labelled[..2])
                .expect("one output"),
            r#"{"tool":"none"}"#
        );
    }
}
