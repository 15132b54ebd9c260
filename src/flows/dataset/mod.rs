//! What can be done with a dataset: bring rows in and out, look at them, divide them into splits.
//!
//! These are the only flows that see whole datasets (`records::datasets::upkeep`).
//! What holdout rows say is shown only when it is asked for by name: whoever
//! reads them and then changes a program has made them worthless as proof.

pub mod diff;
pub mod export;
pub mod import;
pub mod provable;
pub mod show;
pub mod split;
pub mod stats;

use crate::domain::improve::dataset::near::Pair;
use crate::domain::improve::dataset::{Kept, Split};
use crate::flows::FlowError;

/// The name of a split, or of having none.
pub fn split_name(split: Option<Split>) -> &'static str {
    split.map_or("unassigned", Split::as_str)
}

/// Two rows that are almost the same, in words.
fn pair_in_words(rows: &[Kept], pair: &Pair) -> String {
    let name = |row: usize| format!("{} ({})", rows[row].id, split_name(rows[row].split));
    format!(
        "{} and {} share {} of {} words",
        name(pair.left),
        name(pair.right),
        pair.shared,
        pair.all
    )
}

/// Refusal to show what holdout rows say.
fn withheld(what: &str) -> FlowError {
    FlowError::usage(format!("{what} in holdout, and holdout rows are not shown"))
        .hint("a holdout proves something only as long as nobody fits a program to it: few-shots, instructions and fixes must not come from these rows")
        .hint("if it must be, say so: `--include-holdout`")
}
