//! An error of the JSON Schema library, in words for people: what is wrong, and
//! what to do, from the schema's own titles, descriptions and names.

use std::cmp::Reverse;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

use super::diagnostic::without_credentials;
use super::registry;
use super::soundness::{local_target, percent_decoded};
use super::source::push_token;
use super::validator::Fault;

/// Turns an error of the library into faults for people.
pub(super) fn explain(root: &Value, error: &ValidationError<'_>, faults: &mut Vec<Fault>) {
    let pointer = error.instance_path().to_string();
    let schema_path = error.evaluation_path().to_string();
    let instance: &Value = error.instance();
    let rules = rules_around(root, &schema_path);
    let mut fault = |pointer: String, message: String, hint: Option<String>, at_key: bool| {
        faults.push(Fault {
            pointer,
            message,
            schema_path: schema_path.clone(),
            hint,
            at_key,
        });
    };
    let value = || shown(instance);
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            for name in unexpected {
                let mut at = pointer.clone();
                push_token(&mut at, name);
                let hint = hint_for_property(rules, instance, name);
                fault(at, format!("unknown property `{}`", cut(name)), hint, true);
            }
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let hint = rules
                .and_then(|rules| rules.get("properties")?.get(name))
                .and_then(about);
            fault(pointer, format!("`{name}` is missing"), hint, false);
        }
        ValidationErrorKind::Enum { options } => {
            let names: Vec<&str> = options
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let hint = instance
                .as_str()
                .and_then(|text| did_you_mean(text, &names));
            let all: Vec<String> = options
                .as_array()
                .into_iter()
                .flatten()
                .map(shown)
                .collect();
            fault(
                pointer,
                format!("{} is not one of {}", value(), listed(&all)),
                hint,
                false,
            );
        }
        ValidationErrorKind::Constant { expected_value } => {
            let message = format!("expected {}, found {}", shown(expected_value), value());
            fault(pointer, message, None, false);
        }
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(kind) => with_article(&kind.to_string()),
                TypeKind::Multiple(kinds) => {
                    let all: Vec<String> = kinds
                        .iter()
                        .map(|kind| with_article(&kind.to_string()))
                        .collect();
                    all.join(" or ")
                }
            };
            let hint = rules.and_then(about);
            let message = format!("expected {wanted}, found {}", described(instance));
            fault(pointer, message, hint, false);
        }
        ValidationErrorKind::Pattern { pattern } => {
            let hint = rules.and_then(about);
            let title = rules.and_then(|rules| rules.get("title")?.as_str());
            let message = match (title, &hint) {
                // The description says it better than a regular expression does.
                (Some(title), Some(_)) => {
                    format!("{} is not a valid {}", value(), title.to_lowercase())
                }
                _ => format!("{} does not match `{}`", value(), cut(pattern)),
            };
            fault(pointer, message, hint, false);
        }
        ValidationErrorKind::MaxLength { limit } => {
            let length = instance.as_str().map_or(0, |text| text.chars().count());
            let message = format!("the text has {length} characters; at most {limit} are allowed");
            fault(pointer, message, rules.and_then(about), false);
        }
        ValidationErrorKind::MaxItems { limit } => {
            let length = instance.as_array().map_or(0, Vec::len);
            let message = format!("the list has {length} items; at most {limit} are allowed");
            fault(pointer, message, rules.and_then(about), false);
        }
        ValidationErrorKind::Not { schema }
            if schema.as_object().is_some_and(|rules| rules.is_empty()) =>
        {
            let name = pointer.rsplit('/').next().unwrap_or_default();
            let message = format!("`{}` may not stand here", cut(name));
            fault(pointer, message, rules.and_then(about), true);
        }
        ValidationErrorKind::Format { format } => {
            let hint = rules.and_then(about);
            fault(
                pointer,
                format!("{} is not a valid {format}", value()),
                hint,
                false,
            );
        }
        ValidationErrorKind::PropertyNames { error } => {
            let name = error.instance().as_str().unwrap_or_default();
            let mut at = pointer;
            push_token(&mut at, name);
            let hint = rules
                .and_then(|rules| rules.get("propertyNames"))
                .and_then(about);
            fault(
                at,
                format!("`{}` cannot be a name here", cut(name)),
                hint,
                true,
            );
        }
        ValidationErrorKind::MinLength { limit: 1 } => {
            fault(
                pointer,
                "the text is empty".to_owned(),
                rules.and_then(about),
                false,
            );
        }
        ValidationErrorKind::MinItems { limit: 1 } => {
            fault(
                pointer,
                "the list is empty".to_owned(),
                rules.and_then(about),
                false,
            );
        }
        ValidationErrorKind::MinProperties { limit: 1 } => {
            fault(
                pointer,
                "it has no members".to_owned(),
                rules.and_then(about),
                false,
            );
        }
        ValidationErrorKind::UniqueItems => {
            let message = match first_duplicate(instance) {
                Some((item, first, again)) => {
                    let mut at = pointer;
                    push_token(&mut at, &again.to_string());
                    let message = format!(
                        "{} is in the list twice (items {first} and {again})",
                        shown(item)
                    );
                    return fault(at, message, Some("keep one".to_owned()), false);
                }
                None => "the list has the same item twice".to_owned(),
            };
            fault(pointer, message, None, false);
        }
        ValidationErrorKind::FalseSchema => {
            fault(
                pointer,
                "nothing may stand here".to_owned(),
                rules.and_then(about),
                true,
            );
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            // The branch that went deepest into the value is the one that was meant.
            let meant = context
                .iter()
                .filter(|branch| !branch.is_empty())
                .map(|branch| {
                    let depth = branch
                        .iter()
                        .map(|error| error.instance_path().to_string().len())
                        .min()
                        .unwrap_or(0);
                    (depth, branch)
                })
                .max_by_key(|(depth, branch)| (*depth, Reverse(branch.len())));
            // … or the only one that takes this type of value.
            let mut of_this_type = context.iter().filter(|branch| {
                !branch.iter().any(|error| {
                    matches!(error.kind(), ValidationErrorKind::Type { .. })
                        && error.instance_path().to_string() == pointer
                })
            });
            let only = match (of_this_type.next(), of_this_type.next()) {
                (Some(branch), None) => Some((usize::MAX, branch)),
                _ => None,
            };
            match only.or(meant) {
                Some((depth, branch)) if depth > pointer.len() || context.len() == 1 => {
                    for error in branch {
                        explain(root, error, faults);
                    }
                }
                _ => {
                    let mut reasons = Vec::new();
                    for branch in context.iter().take(4) {
                        let mut inner = Vec::new();
                        if let Some(error) = branch.first() {
                            explain(root, error, &mut inner);
                        }
                        reasons.extend(inner.into_iter().next().map(|fault| fault.message));
                    }
                    reasons.dedup();
                    fault(
                        pointer,
                        format!("no alternative fits: {}", reasons.join("; or ")),
                        rules.and_then(about),
                        false,
                    );
                }
            }
        }
        _ => fault(
            pointer,
            cut(&error.to_string()),
            rules.and_then(about),
            false,
        ),
    }
}

fn first_duplicate(list: &Value) -> Option<(&Value, usize, usize)> {
    let items = list.as_array()?;
    items.iter().enumerate().find_map(|(again, item)| {
        let first = items[..again].iter().position(|earlier| earlier == item)?;
        Some((item, first, again))
    })
}

/// The schema object that holds the rule at `path`, which may lead through `$ref`s.
fn rules_around<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    let tokens: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|token| token.replace("~1", "/").replace("~0", "~"))
        .collect();
    let (_, folders) = tokens.split_last()?;
    let mut document = root;
    let mut at = root;
    for token in folders {
        at = match at {
            Value::Array(items) => items.get(token.parse::<usize>().ok()?)?,
            _ => at.get(token)?,
        };
        if token == "$ref"
            && let Some(target) = at.as_str()
        {
            let (uri, _) = target.split_once('#').unwrap_or((target, ""));
            if let Some(other) = registry::by_uri(uri) {
                document = other;
            }
            let pointer = match target.split_once('#') {
                Some((_, fragment)) if fragment.starts_with('/') => percent_decoded(fragment)?,
                Some((_, "")) | None => String::new(),
                _ => local_target(document, target)?,
            };
            at = document.pointer(&pointer)?;
        }
    }
    Some(at)
}

/// What a schema says about a value, in one sentence.
fn about(schema: &Value) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    let sentence = match text.find(". ") {
        Some(end) => &text[..end],
        None => text.trim_end_matches('.'),
    };
    (!sentence.is_empty()).then(|| sentence.to_owned())
}

fn hint_for_property(rules: Option<&Value>, instance: &Value, name: &str) -> Option<String> {
    let properties = rules?.get("properties")?.as_object()?;
    let free: Vec<&str> = properties
        .keys()
        .map(String::as_str)
        .filter(|known| instance.get(known).is_none())
        .collect();
    if let Some(hint) = did_you_mean(name, &free) {
        return Some(hint);
    }
    match free.len() {
        0 => Some("remove it".to_owned()),
        1..=16 => {
            let names: Vec<String> = free.iter().map(|name| format!("`{name}`")).collect();
            Some(format!(
                "what may still be given here: {}",
                names.join(", ")
            ))
        }
        _ => None,
    }
}

/// `did you mean …?` when one of the names is close enough.
pub fn did_you_mean(written: &str, names: &[&str]) -> Option<String> {
    let plain = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let wanted = plain(written);
    let close = names
        .iter()
        .map(|name| {
            let distance = strsim::damerau_levenshtein(&wanted, &plain(name));
            (distance, *name)
        })
        .min()
        .filter(|&(distance, name)| {
            let length = wanted.chars().count().max(plain(name).chars().count());
            distance <= length / 3
        });
    let by_prefix = || {
        names.iter().find(|name| {
            let plain = plain(name);
            wanted.len() >= 4
                && (plain.starts_with(&wanted) || wanted.starts_with(&plain) && plain.len() >= 4)
        })
    };
    let name = match close {
        Some((_, name)) => name,
        None => by_prefix()?,
    };
    Some(format!("did you mean `{name}`?"))
}

fn listed(options: &[String]) -> String {
    const SHOWN: usize = 12;
    match options.len() {
        0..=SHOWN => options.join(", "),
        more => format!(
            "{} and {} others",
            options[..SHOWN].join(", "),
            more - SHOWN
        ),
    }
}

fn with_article(kind: &str) -> String {
    match kind {
        "null" => "null".to_owned(),
        "array" | "integer" | "object" => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => format!("the boolean {}", shown(value)),
        Value::Number(_) => format!("the number {}", shown(value)),
        Value::String(_) => format!("the string {}", shown(value)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A value for a message: texts in backticks, all cut to a readable length.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{}`", cut(text)),
        other => cut(&other.to_string()),
    }
}

fn cut(text: &str) -> String {
    const LENGTH: usize = 80;
    let text = without_credentials(text);
    let mut short: String = text
        .chars()
        .take(LENGTH)
        .map(|c| if c.is_control() { '·' } else { c })
        .collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
