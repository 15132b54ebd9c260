//! Rows that are almost the same in two splits.
//!
//! Two inputs are near when, as sets of words, they have at least four fifths of
//! their words in common (Jaccard similarity of .8; equal sets of words are the
//! extreme case). Words are what remains of all texts in the input after Unicode
//! compatibility composition, lower case, and with everything but letters and
//! digits turned into space.
//!
//! The search is exact, not sampled: an index over the rarest words of each row,
//! as many as two near rows cannot avoid sharing one of (prefix filtering:
//! S. Chaudhuri, V. Ganti, R. Kaushik, "A primitive operator for similarity joins
//! in data cleaning", ICDE 2006; R. Bayardo, Y. Ma, R. Srikant, "Scaling up all
//! pairs similarity search", WWW 2007). Unlike MinHash it misses nothing and
//! needs no seed. Text made from templates can defeat the index, so the number of
//! steps has a limit, and the result says when it was reached.

use std::collections::HashMap;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::{Kept, Split};

/// Near rows share at least this share of their words: 4/5, kept as whole numbers so that it is exact.
const SHARE: (usize, usize) = (4, 5);

/// Steps after which the search stops, a word looked at being one: about a second.
const STEPS_MAX: u64 = 300_000_000;

/// Two rows in different splits that are almost the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Index of one, the smaller index.
    pub left: usize,
    /// Index of the other.
    pub right: usize,
    /// Words in common.
    pub shared: usize,
    /// Words in either.
    pub all: usize,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Near {
    /// Pairs with a holdout row first, then by index; for sets of equal words one pair per two splits.
    pub pairs: Vec<Pair>,
    /// Whether every pair was looked at.
    pub complete: bool,
}

/// Every pair of near rows that stand in different splits. `touched` says which rows matter: a pair needs one of them.
pub fn near(rows: &[Kept], touched: impl Fn(usize) -> bool) -> Near {
    let sets = sets(rows);
    let mut found = Near {
        pairs: Vec::new(),
        complete: true,
    };
    let mut index: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut last_seen = vec![u32::MAX; sets.len()];
    let mut steps = 0;
    // Shorter sets first: a set only has to look back at those it can be near to.
    'sets: for (at, set) in sets.iter().enumerate() {
        inner_pairs(set, rows, &touched, &mut found.pairs);
        for word in &set.words[..prefix(set.words.len())] {
            let postings = index.entry(*word).or_default();
            for &other in postings.iter() {
                let candidate = &sets[other as usize];
                steps += 1;
                if last_seen[other as usize] == at as u32 || !candidate.may_be_near(set) {
                    continue;
                }
                last_seen[other as usize] = at as u32;
                let shared = shared(&set.words, &candidate.words);
                let all = set.words.len() + candidate.words.len() - shared;
                steps += all as u64;
                if shared * SHARE.1 >= all * SHARE.0 {
                    let share = (shared, all);
                    outer_pairs((set, candidate), rows, &touched, share, &mut found.pairs);
                }
            }
            if steps > STEPS_MAX {
                found.complete = false;
                break 'sets;
            }
            postings.push(at as u32);
        }
    }
    let has_holdout = |pair: &Pair| {
        [pair.left, pair.right]
            .iter()
            .any(|row| rows[*row].split == Some(Split::Holdout))
    };
    found
        .pairs
        .sort_by_key(|pair| (!has_holdout(pair), pair.left, pair.right));
    found
}

/// Rows with the same set of words.
struct WordSet {
    /// Ranks of the words, the rarest word of all rows having rank 0; ascending.
    words: Vec<u32>,
    /// The first row of each split, in the order of the splits.
    rows: Vec<(Split, usize)>,
    /// The split, when there is only one.
    one_split: Option<Split>,
}

impl WordSet {
    /// Whether sizes and splits allow a pair with a set that is as large or larger.
    fn may_be_near(&self, larger: &Self) -> bool {
        let same_split = self.one_split.is_some() && self.one_split == larger.one_split;
        !same_split && self.words.len() * SHARE.1 >= larger.words.len() * SHARE.0
    }
}

/// The sets of words of all rows that have a split, the smallest first.
fn sets(rows: &[Kept]) -> Vec<WordSet> {
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut counts: Vec<u32> = Vec::new();
    let mut by_words: HashMap<Vec<u32>, Vec<(Split, usize)>> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let Some(split) = row.split else { continue };
        let mut words: Vec<u32> = Vec::new();
        for word in normalised(row.input())
            .split(' ')
            .filter(|word| !word.is_empty())
        {
            let number = match numbers.get(word) {
                Some(number) => *number,
                None => {
                    counts.push(0);
                    numbers.insert(word.to_owned(), counts.len() as u32 - 1);
                    counts.len() as u32 - 1
                }
            };
            words.push(number);
        }
        words.sort_unstable();
        words.dedup();
        if words.is_empty() {
            continue;
        }
        words.iter().for_each(|word| counts[*word as usize] += 1);
        let known = by_words.entry(words).or_default();
        // Many equal rows are one finding, not their square.
        if !known.iter().any(|(other, _)| *other == split) {
            known.push((split, index));
        }
    }
    let ranks = ranks(&counts);
    let mut sets: Vec<WordSet> = by_words
        .into_iter()
        .map(|(mut words, mut rows)| {
            words
                .iter_mut()
                .for_each(|word| *word = ranks[*word as usize]);
            words.sort_unstable();
            rows.sort_unstable();
            let one_split = (rows.len() == 1).then(|| rows[0].0);
            WordSet {
                words,
                rows,
                one_split,
            }
        })
        .collect();
    sets.sort_unstable_by(|left, right| {
        (left.words.len(), left.rows[0].1).cmp(&(right.words.len(), right.rows[0].1))
    });
    sets
}

/// The rank of each word when the rarest comes first.
fn ranks(counts: &[u32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..counts.len() as u32).collect();
    order.sort_unstable_by_key(|word| (counts[*word as usize], *word));
    let mut ranks = vec![0; counts.len()];
    for (rank, word) in order.into_iter().enumerate() {
        ranks[word as usize] = rank as u32;
    }
    ranks
}

/// How many of its rarest words a set must be indexed by.
fn prefix(words: usize) -> usize {
    words - (words * SHARE.0).div_ceil(SHARE.1) + 1
}

/// Pairs within one set of equal words.
fn inner_pairs(
    set: &WordSet,
    rows: &[Kept],
    touched: &impl Fn(usize) -> bool,
    pairs: &mut Vec<Pair>,
) {
    let size = set.words.len();
    for (number, (_, left)) in set.rows.iter().enumerate() {
        for (_, right) in &set.rows[number + 1..] {
            add(*left, *right, (size, size), rows, touched, pairs);
        }
    }
}

/// Pairs between two sets.
fn outer_pairs(
    sets: (&WordSet, &WordSet),
    rows: &[Kept],
    touched: &impl Fn(usize) -> bool,
    share: (usize, usize),
    pairs: &mut Vec<Pair>,
) {
    for (left_split, left) in &sets.0.rows {
        for (right_split, right) in &sets.1.rows {
            if left_split != right_split {
                add(*left, *right, share, rows, touched, pairs);
            }
        }
    }
}

fn add(
    left: usize,
    right: usize,
    (shared, all): (usize, usize),
    rows: &[Kept],
    touched: &impl Fn(usize) -> bool,
    pairs: &mut Vec<Pair>,
) {
    // The same content in two splits is refused elsewhere, as what it is.
    if (touched(left) || touched(right)) && rows[left].content != rows[right].content {
        pairs.push(Pair {
            left: left.min(right),
            right: left.max(right),
            shared,
            all,
        });
    }
}

/// How many words two sets share.
fn shared(left: &[u32], right: &[u32]) -> usize {
    let (mut at, mut shared) = (0, 0);
    for word in left {
        while at < right.len() && right[at] < *word {
            at += 1;
        }
        shared += usize::from(right.get(at) == Some(word));
    }
    shared
}

/// All texts of an input, as words with one space between them.
pub fn normalised(input: &str) -> String {
    let value: Value = serde_json::from_str(input).unwrap_or(Value::Null);
    let mut text = String::new();
    gather(&value, &mut text);
    let mut words = String::with_capacity(text.len());
    for c in text.nfkc().flat_map(char::to_lowercase) {
        match c.is_alphanumeric() {
            true => words.push(c),
            false if !words.ends_with(' ') => words.push(' '),
            false => {}
        }
    }
    words
}

fn gather(value: &Value, text: &mut String) {
    match value {
        Value::String(part) => text.push_str(part),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::Bool(_) | Value::Null => {}
        Value::Array(items) => items.iter().for_each(|item| gather(item, text)),
        Value::Object(members) => members.values().for_each(|item| gather(item, text)),
    }
    text.push(' ');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::improve::dataset::Row;
    use crate::domain::prove::stats::rng::Rng;
    use serde_json::{Map, json};
    use std::collections::BTreeSet;

    fn row(id: usize, text: &str, split: Split) -> Kept {
        Kept::new(&Row {
            id: format!("{id}").parse().expect("an id"),
            input: json!({"text": text}),
            expected: json!(1),
            split: Some(split),
            tags: Vec::new(),
            group: None,
            source: None,
            meta: Map::new(),
        })
        .expect("canonical")
    }

    #[test]
    fn what_is_near() {
        let table = [
            ("Play some Jazz, please!", "please PLAY some jazz", true),
            ("ﬁve full－width", "five full width", true),
            ("one two three four five", "one two three four", true),
            ("one two three four five", "one two three four six", false),
            (
                "one two three four five six seven eight nine",
                "one two three four five six seven eight ten",
                true,
            ),
            ("", "", false),
            ("hello", "hello there", false),
        ];
        for (left, right, is_near) in table {
            let rows = [row(1, left, Split::Train), row(2, right, Split::Dev)];
            let found = near(&rows, |_| true);
            assert_eq!(
                (found.pairs.len(), found.complete),
                (usize::from(is_near), true),
                "{left} / {right}"
            );
            let same = [row(1, left, Split::Train), row(2, right, Split::Train)];
            assert!(
                near(&same, |_| true).pairs.is_empty(),
                "one split is not two"
            );
            assert!(
                near(&rows, |_| false).pairs.is_empty(),
                "rows that did not change are old news"
            );
        }
    }

    #[test]
    fn the_index_finds_what_comparing_all_finds() {
        let mut rng = Rng::new(5);
        for round in 0..30 {
            let rows: Vec<Kept> = (0..60)
                .map(|id| {
                    let words: Vec<String> = (0..3 + rng.below(8))
                        .map(|_| format!("w{}", rng.below(4 + round)))
                        .collect();
                    let split = Split::ALL[rng.below(4) as usize];
                    row(id, &format!("{} {}", words.join(" "), rng.below(3)), split)
                })
                .collect();
            let words: Vec<BTreeSet<String>> = rows
                .iter()
                .map(|row| {
                    normalised(row.input())
                        .split_whitespace()
                        .map(str::to_owned)
                        .collect()
                })
                .collect();
            // Pairs of word sets and splits, because equal rows count once.
            let name = |row: usize| (words[row].clone(), rows[row].split);
            let mut all = BTreeSet::new();
            for left in 0..rows.len() {
                for right in left + 1..rows.len() {
                    let shared = words[left].intersection(&words[right]).count();
                    let either = words[left].union(&words[right]).count();
                    if rows[left].split != rows[right].split
                        && shared * 5 >= either * 4
                        && rows[left].content != rows[right].content
                    {
                        let mut pair = [name(left), name(right)];
                        pair.sort();
                        all.insert(pair);
                    }
                }
            }
            let found: BTreeSet<_> = near(&rows, |_| true)
                .pairs
                .iter()
                .map(|pair| {
                    let mut pair = [name(pair.left), name(pair.right)];
                    pair.sort();
                    pair
                })
                .collect();
            // One pair stands for all rows of equal words, and that pair may be one of equal content.
            assert!(found.is_subset(&all), "round {round}");
            let missed: Vec<_> = all
                .difference(&found)
                .filter(|[left, right]| left.0 != right.0)
                .collect();
            assert!(missed.is_empty(), "round {round}: {missed:?}");
        }
    }
}
