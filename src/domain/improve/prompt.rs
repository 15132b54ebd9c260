//! Prompts and answers of `direct.v1`, pure: the same program and input always
//! give the same messages, and an answer is always read the same way.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value as TemplateValue};
use serde_json::Value;

use crate::canon;
use crate::models::{Message, Role};

use super::artifact::Program;
use super::report::Failure;
use super::signature::DecodeMode;

/// A prompt frame that cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[error("the prompt frame's {part} template: {message}")]
pub struct PromptError {
    /// `system` or `user`.
    pub part: &'static str,
    /// What is wrong, with its line.
    pub message: String,
}

/// A program's prompt, with everything rendered that does not depend on the input.
#[derive(Debug, Clone)]
pub struct Prompt {
    user: String,
    instruction: String,
    schema: Value,
    before: Vec<Message>,
}

impl Prompt {
    /// Render the system message and the few-shots.
    pub fn new(program: &Program) -> Result<Self, PromptError> {
        let frame = &program.interface.prompt;
        let mut prompt = Self {
            user: frame.user.clone(),
            instruction: program.instruction.text.clone(),
            schema: program.interface.output.clone(),
            before: Vec::new(),
        };
        let system = prompt.template("system", &frame.system, None)?;
        let mut before = Vec::new();
        if !system.trim().is_empty() {
            before.push(Message {
                role: Role::System,
                content: system,
            });
        }
        for shot in &program.few_shots {
            before.push(Message {
                role: Role::User,
                content: prompt.template("user", &frame.user, Some(&shot.input))?,
            });
            before.push(Message {
                role: Role::Assistant,
                content: as_text(&shot.expected),
            });
        }
        prompt.before = before;
        Ok(prompt)
    }

    /// The messages that come before every input: instruction and few-shots.
    pub fn fixed(&self) -> &[Message] {
        &self.before
    }

    /// The messages for one input.
    pub fn messages(&self, input: &Value) -> Result<Vec<Message>, PromptError> {
        let mut messages = self.before.clone();
        messages.push(Message {
            role: Role::User,
            content: self.template("user", &self.user, Some(input))?,
        });
        Ok(messages)
    }

    fn template(
        &self,
        part: &'static str,
        source: &str,
        input: Option<&Value>,
    ) -> Result<String, PromptError> {
        let fail = |error: minijinja::Error| PromptError {
            part,
            message: match error.line() {
                Some(line) => format!("{} (line {line} of the template)", error),
                None => error.to_string(),
            },
        };
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(
            SyntaxConfig::builder()
                .keep_trailing_newline(true)
                .build()
                .map_err(fail)?,
        );
        // JSON in a prompt is JSON, not a template engine's idea of it.
        environment.set_formatter(|out, _state, value| {
            let text = match value.as_str() {
                Some(text) => text.to_owned(),
                None => {
                    let json = serde_json::to_value(value).map_err(|error| {
                        minijinja::Error::new(
                            minijinja::ErrorKind::BadSerialization,
                            error.to_string(),
                        )
                    })?;
                    as_text(&json)
                }
            };
            out.write_str(&text).map_err(minijinja::Error::from)
        });
        let context = minijinja::context! {
            instruction => self.instruction.as_str(),
            output_schema => TemplateValue::from(Serde(&self.schema)),
            input => input.map(|input| TemplateValue::from(Serde(input))),
        };
        environment.render_str(source, context).map_err(fail)
    }
}

fn as_text(value: &Value) -> String {
    // Canonical where it can be; a number beyond 2^53 is still shown as it is.
    canon::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// An answer that is not an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Which kind of failure.
    pub failure: Failure,
    /// What is wrong, in words that a model can act on.
    pub reason: String,
}

/// Read an answer as JSON.
pub fn decode(mode: DecodeMode, answer: &str) -> Result<Value, Unusable> {
    let fail = |reason: String| Unusable {
        failure: Failure::Decode,
        reason,
    };
    match mode {
        DecodeMode::StrictJson => serde_json::from_str(answer.trim())
            .map_err(|error| fail(format!("it is not one JSON document: {error}"))),
        DecodeMode::Jsonish => {
            if let Ok(value) = serde_json::from_str(answer.trim()) {
                return Ok(value);
            }
            // The first place from which a whole JSON object can be read.
            answer
                .match_indices('{')
                .take(64)
                .find_map(|(at, _)| {
                    let mut stream =
                        serde_json::Deserializer::from_str(&answer[at..]).into_iter::<Value>();
                    stream.next().and_then(Result::ok)
                })
                .ok_or_else(|| fail("it holds no JSON object".to_owned()))
        }
    }
}

/// The messages that show a model its mistake and ask again.
pub fn repair(messages: &mut Vec<Message>, answer: &str, reason: &str) {
    // A long wrong answer would crowd the prompt; its beginning shows the mistake.
    let shown: String = answer.chars().take(2_000).collect();
    messages.push(Message {
        role: Role::Assistant,
        content: shown,
    });
    messages.push(Message {
        role: Role::User,
        content: format!(
            "That answer cannot be used: {reason}. Answer again with one JSON document that satisfies the schema, and nothing else."
        ),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strict_and_lenient_decoding() {
        let table = [
            (r#" {"tool":"none"} "#, true, true),
            ("```json\n{\"tool\":\"none\"}\n```", false, true),
            (
                "Sure! {not json} {\"tool\":\"none\"} hope it helps",
                false,
                true,
            ),
            ("{\"tool\":\"none\"", false, false),
            ("", false, false),
            ("no object", false, false),
        ];
        for (answer, strict, lenient) in table {
            assert_eq!(
                decode(DecodeMode::StrictJson, answer).is_ok(),
                strict,
                "{answer:?}"
            );
            let read = decode(DecodeMode::Jsonish, answer);
            assert_eq!(read.is_ok(), lenient, "{answer:?}");
            if lenient {
                assert_eq!(read, Ok(json!({"tool": "none"})));
            }
        }
    }
}
