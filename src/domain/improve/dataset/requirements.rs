//! The data gate: does a dataset hold what a night needs?

use crate::domain::improve::signature::DataRules;
use crate::domain::prove::policy::Gates;
use crate::domain::prove::verdict::{GateResult, Label, Verdict};

use super::Split;
use super::census::Census;

/// Whether a dataset holds what the policy and the signature ask for. Of two
/// rules about the same, the stricter counts. Rows without a split don't count.
pub fn requirements(census: &Census, gates: &Gates, rules: &DataRules) -> GateResult {
    let rows = census.assigned();
    let holdout = census.rows_in(Split::Holdout);
    let min_rows = gates.min_rows.max(rules.min_rows.map_or(0, u64::from));
    let min_holdout = gates
        .min_holdout_rows
        .max(rules.min_holdout_rows.map_or(0, u64::from));
    let mut reasons = Vec::new();
    if rows < min_rows {
        reasons.push(format!(
            "{} in its splits; at least {min_rows} are asked for",
            counted(rows)
        ));
    }
    for split in [Split::Train, Split::Dev] {
        if census.rows_in(split) == 0 {
            reasons.push(format!("there are no {split} rows"));
        }
    }
    if holdout == 0 {
        reasons.push("there is no holdout, so nothing can be proven".to_owned());
    } else if holdout < min_holdout {
        reasons.push(format!(
            "{} in holdout; at least {min_holdout} are asked for",
            counted(holdout)
        ));
    }
    for (who, tags) in [
        ("the policy", &gates.required_tags),
        ("the signature", &rules.required_tags),
    ] {
        let lacking = if tags.is_empty() {
            0
        } else {
            census.without_any(tags)
        };
        if lacking > 0 {
            reasons.push(format!(
                "{} without any of the tags that {who} asks for: {}",
                counted(lacking),
                tags.join(", ")
            ));
        }
    }
    if !reasons.is_empty() && census.unassigned() > 0 {
        reasons.push(format!(
            "{} without a split: `proofline dataset split` assigns them",
            counted(census.unassigned())
        ));
    }
    let mut result = GateResult::new("data", Verdict::from_reasons(reasons));
    for split in Split::ALL {
        let name = format!("{split} rows");
        result = result.with(&name, census.rows_in(split), &Label::Recomputed);
    }
    result
        .with("rows asked for", min_rows, &Label::Recomputed)
        .with("holdout rows asked for", min_holdout, &Label::Recomputed)
}

fn counted(rows: u64) -> String {
    match rows {
        1 => "there is 1 row".to_owned(),
        rows => format!("there are {rows} rows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::improve::dataset::census::Count;

    fn census(train: u64, dev: u64, holdout: u64, unassigned: u64) -> Census {
        let counts = [
            (Some(Split::Train), train),
            (Some(Split::Dev), dev),
            (Some(Split::Holdout), holdout),
            (None, unassigned),
        ];
        let splits = counts
            .into_iter()
            .filter(|(_, rows)| *rows > 0)
            .map(|(split, rows)| {
                let tag_sets = [
                    (vec!["plain".to_owned()], rows - 1),
                    (vec!["a".to_owned(), "b".to_owned()], 1),
                ];
                let count = Count {
                    rows,
                    groups: rows,
                    tag_sets: tag_sets.into(),
                };
                (split, count)
            })
            .collect();
        Census { splits }
    }

    #[test]
    fn what_is_asked_for() {
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        let rules = |min_rows, required: &[&str]| DataRules {
            min_rows,
            required_tags: tags(required),
            ..DataRules::default()
        };
        // (census, rules, one word of each reason)
        let table: [(Census, DataRules, &[&str]); 8] = [
            (census(10, 10, 10, 0), rules(None, &[]), &[]),
            (census(10, 9, 10, 0), rules(None, &[]), &["at least 30"]),
            (
                census(10, 9, 10, 5),
                rules(None, &[]),
                &["at least 30", "dataset split"],
            ),
            (census(0, 20, 10, 0), rules(None, &[]), &["no train rows"]),
            (
                census(40, 0, 0, 0),
                rules(None, &[]),
                &["no dev rows", "no holdout"],
            ),
            (census(40, 10, 9, 0), rules(None, &[]), &["at least 10"]),
            (
                census(10, 10, 10, 0),
                rules(Some(31), &[]),
                &["at least 31"],
            ),
            (
                census(10, 10, 10, 3),
                rules(None, &["b", "c"]),
                &["27 rows without any", "dataset split"],
            ),
        ];
        for (census, rules, words) in table {
            let result = requirements(&census, &Gates::default(), &rules);
            let reasons = match &result.verdict {
                Verdict::Pass => Vec::new(),
                Verdict::Refuse { reasons } => reasons.clone(),
                Verdict::Undecidable { .. } => panic!("counts are always decidable"),
            };
            assert_eq!(reasons.len(), words.len(), "{reasons:?}");
            for (reason, word) in reasons.iter().zip(words) {
                assert!(reason.contains(word), "{reason}");
            }
            assert!(
                result
                    .figures
                    .iter()
                    .any(|figure| figure.name == "holdout rows")
            );
        }
    }
}
