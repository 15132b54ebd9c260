//! How one output is scored against what was expected.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canon;

/// The metric of a signature. Scores lie in 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Metric {
    /// 1 when the output equals the expected value as canonical JSON, else 0.
    #[default]
    ExactMatch,
    /// 1 when the value at a JSON pointer equals the expected one, else 0.
    FieldMatch {
        /// JSON pointer (RFC 6901), such as `/tool`.
        field: String,
    },
    /// 0.2 for an output of the right format, 0.8 more for an exact match.
    Reward,
}

impl Metric {
    /// Whether every score is 0 or 1, so that McNemar's test applies.
    pub fn is_binary(&self) -> bool {
        !matches!(self, Self::Reward)
    }

    /// The score of an output that passed its schema; an output that did not scores 0.
    pub fn score(&self, output: Option<&Value>, expected: &Value) -> f64 {
        let Some(output) = output else {
            return 0.0;
        };
        let hit = |hit: bool| if hit { 1.0 } else { 0.0 };
        match self {
            Self::ExactMatch => hit(same(output, expected)),
            Self::FieldMatch { field } => match (output.pointer(field), expected.pointer(field)) {
                (Some(got), Some(wanted)) => hit(same(got, wanted)),
                _ => 0.0,
            },
            Self::Reward => 0.2 + 0.8 * hit(same(output, expected)),
        }
    }
}

/// Equality of canonical JSON, so that `1`, `1.0` and member order make no difference.
fn same(left: &Value, right: &Value) -> bool {
    left == right
        || matches!((canon::to_bytes(left), canon::to_bytes(right)), (Ok(left), Ok(right)) if left == right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scores() {
        let expected = json!({"tool": "none", "n": 1});
        let table = [
            (
                Metric::ExactMatch,
                Some(json!({"n": 1.0, "tool": "none"})),
                1.0,
            ),
            (Metric::ExactMatch, Some(json!({"tool": "none"})), 0.0),
            (Metric::ExactMatch, None, 0.0),
            (
                Metric::FieldMatch {
                    field: "/tool".into(),
                },
                Some(json!({"tool": "none"})),
                1.0,
            ),
            (
                Metric::FieldMatch {
                    field: "/gone".into(),
                },
                Some(json!({"tool": "none"})),
                0.0,
            ),
            (Metric::Reward, Some(json!({"tool": "other"})), 0.2),
            (Metric::Reward, Some(expected.clone()), 1.0),
            (Metric::Reward, None, 0.0),
        ];
        for (metric, output, score) in table {
            assert_eq!(
                metric.score(output.as_ref(), &expected),
                score,
                "{metric:?} {output:?}"
            );
        }
    }
}
