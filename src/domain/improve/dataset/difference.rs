//! What differs between two states of a dataset, row by row and field by field.

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::id::ExampleId;

use super::{Kept, Row, Split};

/// What differs between two states of a dataset, in id order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Rows that only the newer state has.
    pub added: Vec<Whole>,
    /// Rows that only the older state has.
    pub removed: Vec<Whole>,
    /// Rows that both have and that differ.
    pub changed: Vec<Changed>,
}

/// A row that one state has and the other has not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Whole {
    /// Its id.
    pub id: ExampleId,
    /// Its split.
    pub split: Option<Split>,
    /// The row; absent for a holdout row unless holdout was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<Row>,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    /// Its id.
    pub id: ExampleId,
    /// Its split in the newer state.
    pub split: Option<Split>,
    /// What differs in it; without values for a holdout row unless holdout was asked for.
    pub fields: Vec<Field>,
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Where: `/input/message`, `/split`, ….
    pub pointer: String,
    /// What stood there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What stands there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Compare two states, both in id order. What holdout rows say is withheld unless asked for.
pub fn between(before: &[Kept], after: &[Kept], with_holdout: bool) -> Difference {
    let mut difference = Difference::default();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return difference,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.id.cmp(&new.id),
        };
        let taken = (
            old.next_if(|_| order != Ordering::Greater),
            new.next_if(|_| order != Ordering::Less),
        );
        match taken {
            (Some(old), Some(new)) if old.line() != new.line() => {
                difference.changed.push(changed(old, new, with_holdout))
            }
            (Some(old), None) => difference.removed.push(whole(old, with_holdout)),
            (None, Some(new)) => difference.added.push(whole(new, with_holdout)),
            _ => {}
        }
    }
}

fn whole(row: &Kept, with_holdout: bool) -> Whole {
    Whole {
        id: row.id.clone(),
        split: row.split,
        row: (with_holdout || row.split != Some(Split::Holdout)).then(|| row.row()),
    }
}

fn changed(old: &Kept, new: &Kept, with_holdout: bool) -> Changed {
    let value = |row: &Kept| serde_json::from_str(row.line()).unwrap_or(Value::Null);
    let mut fields = Vec::new();
    compare(
        Some(&value(old)),
        Some(&value(new)),
        &mut String::new(),
        &mut fields,
    );
    if !with_holdout
        && [old, new]
            .iter()
            .any(|row| row.split == Some(Split::Holdout))
    {
        for field in fields.iter_mut().filter(|field| field.pointer != "/split") {
            (field.before, field.after) = (None, None);
        }
    }
    Changed {
        id: new.id.clone(),
        split: new.split,
        fields,
    }
}

/// Objects are compared member by member; anything else is a value.
fn compare(
    before: Option<&Value>,
    after: Option<&Value>,
    pointer: &mut String,
    fields: &mut Vec<Field>,
) {
    if before == after {
        return;
    }
    let empty = Map::new();
    let (old, new) = match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => (old, new),
        // An optional object that is not there reads as an empty one.
        (None, Some(Value::Object(new))) => (&empty, new),
        (Some(Value::Object(old)), None) => (old, &empty),
        _ => {
            fields.push(Field {
                pointer: pointer.clone(),
                before: before.cloned(),
                after: after.cloned(),
            });
            return;
        }
    };
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        compare(old.get(name), new.get(name), pointer, fields);
        pointer.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(id: &str, text: &str, split: Split) -> Kept {
        let row: Row = serde_json::from_value(json!({
            "id": id, "input": {"text": text, "n": 1}, "expected": [1], "split": split,
        }))
        .expect("a row");
        Kept::new(&row).expect("canonical")
    }

    #[test]
    fn rows_and_fields() {
        let before = [
            row("a", "x", Split::Train),
            row("b", "x", Split::Train),
            row("d", "x", Split::Holdout),
        ];
        let after = [
            row("b", "y", Split::Dev),
            row("c", "x", Split::Holdout),
            row("d", "y", Split::Holdout),
        ];
        let found = between(&before, &after, false);
        assert_eq!(found.removed[0].id.as_str(), "a");
        assert!(found.removed[0].row.is_some());
        assert!(found.added[0].row.is_none(), "a holdout row is withheld");
        let fields: Vec<&str> = found.changed[0]
            .fields
            .iter()
            .map(|field| field.pointer.as_str())
            .collect();
        assert_eq!(fields, ["/input/text", "/split"]);
        assert_eq!(found.changed[0].fields[0].after, Some(json!("y")));
        assert_eq!(
            found.changed[1].fields[0].after, None,
            "a holdout row's text is withheld"
        );
        let open = between(&before, &after, true);
        assert_eq!(open.changed[1].fields[0].after, Some(json!("y")));
        assert!(open.added[0].row.is_some() && between(&after, &after, true).is_empty());
    }
}
