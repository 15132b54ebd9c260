//! Changes of rows for people: which came, which went, and within a text which words changed.

use std::fmt::Write as _;

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::Difference;
use crate::cli::table::shortened;
use crate::domain::improve::dataset::difference::{Field, Whole};
use crate::flows::dataset::split_name;

/// The most rows of a kind that a page names.
const SHOWN: usize = 20;

/// A page of changes; `--json` has all of them.
pub fn changes(difference: &Difference) -> String {
    let mut page = String::new();
    wholes(&mut page, '+', "added", &difference.added);
    wholes(&mut page, '-', "removed", &difference.removed);
    if !difference.changed.is_empty() {
        let _ = writeln!(page, "{} changed", difference.changed.len());
    }
    for row in difference.changed.iter().take(SHOWN) {
        let _ = writeln!(page, "~ {} ({})", row.id, split_name(row.split));
        for field in &row.fields {
            let _ = writeln!(page, "    {}: {}", field.pointer, in_words(field));
        }
    }
    rest(&mut page, difference.changed.len());
    if difference.is_empty() {
        page.push_str("No row differs.\n");
    }
    page
}

fn wholes(page: &mut String, mark: char, what: &str, rows: &[Whole]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(page, "{} {what}", rows.len());
    for row in rows.iter().take(SHOWN) {
        let text = match &row.row {
            Some(whole) => shortened(&format!("{} → {}", whole.input, whole.expected)),
            None => "(a holdout row: not shown)".to_owned(),
        };
        let _ = writeln!(page, "{mark} {} ({}) {text}", row.id, split_name(row.split));
    }
    rest(page, rows.len());
}

fn rest(page: &mut String, rows: usize) {
    if rows > SHOWN {
        let _ = writeln!(page, "  … and {} more; `--json` names all", rows - SHOWN);
    }
}

/// `book a [-table-]{+flight+}` for texts, before and after for anything else.
fn in_words(field: &Field) -> String {
    match (&field.before, &field.after) {
        (None, None) => "(of a holdout row: not shown)".to_owned(),
        (Some(Value::String(before)), Some(Value::String(after)))
            if after.contains(' ') || before.contains(' ') =>
        {
            let diff = TextDiff::from_words(before.as_str(), after.as_str());
            let mut text = String::new();
            let mut open = ChangeTag::Equal;
            for change in diff.iter_all_changes() {
                if change.tag() != open {
                    text.push_str(marks(open).1);
                    open = change.tag();
                    text.push_str(marks(open).0);
                }
                text.push_str(change.value());
            }
            text.push_str(marks(open).1);
            text
        }
        (before, after) => {
            let show = |value: &Option<Value>| {
                value
                    .as_ref()
                    .map_or_else(|| "nothing".to_owned(), Value::to_string)
            };
            format!("{} → {}", show(before), show(after))
        }
    }
}

fn marks(tag: ChangeTag) -> (&'static str, &'static str) {
    match tag {
        ChangeTag::Equal => ("", ""),
        ChangeTag::Delete => ("[-", "-]"),
        ChangeTag::Insert => ("{+", "+}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_differ_word_by_word() {
        let field = |before: Option<Value>, after: Option<Value>| {
            in_words(&Field {
                pointer: String::new(),
                before,
                after,
            })
        };
        assert_eq!(
            field(Some(json!("book a table")), Some(json!("book a flight"))),
            "book a [-table-]{+flight+}"
        );
        assert_eq!(field(Some(json!("a")), Some(json!("b"))), "\"a\" → \"b\"");
        assert_eq!(field(None, Some(json!(1))), "nothing → 1");
    }
}
