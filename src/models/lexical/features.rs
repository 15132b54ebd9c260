//! From a text to the keys of its n-grams.
//!
//! A text is normalised (NFKC, lower case, digits folded: each by its knob), cut into words (runs of letters, digits and combining marks) and
//! symbols (every other visible character by itself), and read as
//! - word n-grams: 1 to `word_ngram_max` neighbouring words, symbols left out; with `sentence_edges` the text is framed by two marks, so that "begins
//!   with *play*" is a feature of its own; every symbol is a word feature by itself;
//! - word shapes (`word_shapes`): n-grams of up to three places in which some words are replaced by their [`Shape`], so that "rate *Capitalised
//!   Capitalised*" is a feature whatever the names are;
//! - character n-grams: `char_ngram_min` to `char_ngram_max` characters inside one word framed by blanks (scikit-learn's `char_wb`).
//!
//! A feature is known by a 32-bit key: leading bits say its kind, the rest is a hash of the n-gram. Two n-grams that share a key share a weight; among
//! 50,000 features about one such pair is expected.
//!
//! Letters, case and normal forms follow the Unicode tables of the Rust release and of `unicode-normalization` that the binary was built with.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::knobs::Knobs;

/// The bit of a key that marks a feature of the word block; without it, the feature is of the character block.
pub(super) const WORD_BIT: u32 = 1 << 31;

/// Whether the n-gram of a key holds a word, symbol or character itself. Those made of shapes and ends of the text alone are in any text, in any language, and
/// so are no evidence that the text is of a kind that training knew.
pub(super) fn names_text(key: u32) -> bool {
    key & (WORD_BIT | SHAPES_ONLY_BIT) != (WORD_BIT | SHAPES_ONLY_BIT)
}

/// In keys of the word block: shapes and ends of the text alone. (In keys of the character block it is part of the hash.)
const SHAPES_ONLY_BIT: u32 = 1 << 30;

/// What frames a word in character n-grams.
const BLANK: u32 = b' ' as u32;
/// Start values that keep the kinds of n-grams apart.
const SEED_CHARACTERS: u64 = 0x243f_6a88_85a3_08d3;
const SEED_WORDS: u64 = 0x1319_8a2e_0370_7344;
const SEED_SYMBOL: u64 = 0xa409_3822_299f_31d0;
const SEED_SHAPES: u64 = 0x4528_21e6_38d0_1377;

/// What a word looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Not a word but the beginning or end of the text.
    Edge = 0,
    /// None of the others.
    Plain = 1,
    /// It begins with an upper-case letter.
    Capitalised = 2,
    /// Two or more letters, all upper case.
    Capitals = 3,
    /// It begins with a digit.
    Number = 4,
}

/// A word, or an end of the text, in word n-grams.
#[derive(Debug, Clone, Copy)]
struct Word {
    hash: u64,
    shape: Shape,
}

const TEXT_START: Word = Word {
    hash: 1,
    shape: Shape::Edge,
};
const TEXT_END: Word = Word {
    hash: 2,
    shape: Shape::Edge,
};

/// One step of a multiply-rotate hash (the one of rustc's FxHash), which can be extended by a character at a time without storing the n-gram.
#[inline]
fn step(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// 31 bits that depend on the whole hash.
#[inline]
fn finish(hash: u64) -> u32 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) as u32
}

/// The key of an n-gram of the word block.
#[inline]
fn word_key(hash: u64) -> u32 {
    (finish(hash) >> 1) | WORD_BIT
}

/// Reusable memory for reading texts, so that an n-gram never costs an allocation.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Characters of all words, each word framed by blanks.
    characters: Vec<u32>,
    /// End of each word in `characters`.
    ends: Vec<usize>,
    /// The words, with the ends of the text where asked for; empty when there is no word between them.
    words: Vec<Word>,
    /// All keys found.
    keys: Vec<u32>,
}

impl Scratch {
    /// The keys of all n-grams of the text, ascending, repeated as often as they occur.
    pub(super) fn keys(&mut self, text: &str, knobs: &Knobs) -> &[u32] {
        self.characters.clear();
        self.ends.clear();
        self.words.clear();
        self.keys.clear();
        if knobs.sentence_edges {
            self.words.push(TEXT_START);
        }
        Cutter::new(self, knobs).cut(text, knobs.nfkc);
        if self.ends.is_empty() {
            self.words.clear();
        } else if knobs.sentence_edges {
            self.words.push(TEXT_END);
        }
        self.word_ngrams(knobs.word_ngram_max);
        if knobs.word_shapes && knobs.word_ngram_max > 0 {
            self.shape_ngrams();
        }
        if knobs.char_ngram_max > 0 {
            self.character_ngrams(
                usize::from(knobs.char_ngram_min),
                usize::from(knobs.char_ngram_max),
            );
        }
        self.keys.sort_unstable();
        &self.keys
    }

    fn word_ngrams(&mut self, longest: u8) {
        for start in 0..self.words.len() {
            let mut hash = SEED_WORDS;
            for (before, word) in self.words[start..]
                .iter()
                .take(usize::from(longest))
                .enumerate()
            {
                hash = step(hash, word.hash);
                // An end alone is in every text and says nothing.
                if before > 0 || word.shape != Shape::Edge {
                    self.keys.push(word_key(hash));
                }
            }
        }
    }

    fn shape_ngrams(&mut self) {
        let is = |word: Word| word.hash;
        let looks = |word: Word| word.shape as u64;
        let seed = |kind: u64| SEED_SHAPES ^ kind;
        for start in 0..self.words.len() {
            let mut put = |named: Option<Word>, hash: u64| {
                let names = named.is_some_and(|word| word.shape != Shape::Edge);
                self.keys
                    .push(word_key(hash) | if names { 0 } else { SHAPES_ONLY_BIT });
            };
            let rest = &self.words[start..];
            if let [a, ..] = *rest
                && a.shape != Shape::Edge
            {
                put(Some(a), step(step(seed(1), is(a)), looks(a)));
            }
            if let [a, b, ..] = *rest {
                put(Some(a), step(step(seed(2), is(a)), looks(b)));
                put(Some(b), step(step(seed(3), looks(a)), is(b)));
            }
            if let [a, b, c, ..] = *rest {
                put(
                    Some(a),
                    step(step(step(seed(4), is(a)), looks(b)), looks(c)),
                );
                put(
                    None,
                    step(step(step(seed(5), looks(a)), looks(b)), looks(c)),
                );
                put(
                    Some(c),
                    step(step(step(seed(6), looks(a)), looks(b)), is(c)),
                );
            }
        }
    }

    fn character_ngrams(&mut self, shortest: usize, longest: usize) {
        let mut begin = 0;
        for &end in &self.ends {
            let word = &self.characters[begin..end];
            begin = end;
            for start in 0..word.len() {
                let mut hash = SEED_CHARACTERS;
                for (before, &character) in word[start..].iter().take(longest).enumerate() {
                    hash = step(hash, u64::from(character));
                    if before + 1 >= shortest {
                        self.keys.push(finish(hash));
                    }
                }
            }
        }
    }
}

/// Cuts a text into words and symbols.
struct Cutter<'s> {
    scratch: &'s mut Scratch,
    lowercase: bool,
    fold_digits: bool,
    read_symbols: bool,
    /// The word being read; `None` between words.
    word: Option<Letters>,
}

/// What the shape of a word follows from.
#[derive(Debug, Clone, Copy)]
struct Letters {
    count: u32,
    upper: u32,
    first: char,
}

impl Letters {
    fn shape(self) -> Shape {
        if self.first.is_numeric() {
            Shape::Number
        } else if self.upper >= 2 && self.upper == self.count {
            Shape::Capitals
        } else if self.first.is_uppercase() {
            Shape::Capitalised
        } else {
            Shape::Plain
        }
    }
}

impl<'s> Cutter<'s> {
    fn new(scratch: &'s mut Scratch, knobs: &Knobs) -> Self {
        Self {
            scratch,
            lowercase: knobs.lowercase,
            fold_digits: knobs.fold_digits,
            read_symbols: knobs.word_ngram_max > 0,
            word: None,
        }
    }

    fn cut(mut self, text: &str, nfkc: bool) {
        if text.is_ascii() {
            text.bytes().for_each(|byte| self.take(char::from(byte)));
        } else if nfkc {
            text.nfkc().for_each(|character| self.take(character));
        } else {
            text.chars().for_each(|character| self.take(character));
        }
        self.end_word();
    }

    #[inline]
    fn take(&mut self, character: char) {
        if character.is_alphanumeric() {
            self.letter(character);
        } else if !character.is_ascii() && is_combining_mark(character) {
            if self.word.is_some() {
                self.put(character);
            }
        } else if !is_ignorable(character) {
            self.end_word();
            if self.read_symbols && !character.is_whitespace() && !character.is_control() {
                self.scratch
                    .keys
                    .push(word_key(step(SEED_SYMBOL, u64::from(character))));
            }
        }
    }

    #[inline]
    fn letter(&mut self, character: char) {
        if self.word.is_none() {
            self.scratch.characters.push(BLANK);
        }
        let word = self.word.get_or_insert(Letters {
            count: 0,
            upper: 0,
            first: character,
        });
        word.count += 1;
        word.upper += u32::from(character.is_uppercase());
        if self.fold_digits && character.is_numeric() {
            self.put('0');
        } else if !self.lowercase {
            self.put(character);
        } else if character.is_ascii() {
            self.put(character.to_ascii_lowercase());
        } else {
            character.to_lowercase().for_each(|lower| self.put(lower));
        }
    }

    #[inline]
    fn put(&mut self, character: char) {
        self.scratch.characters.push(u32::from(character));
    }

    fn end_word(&mut self) {
        let Some(letters) = self.word.take() else {
            return;
        };
        let begin = self.scratch.ends.last().copied().unwrap_or(0);
        let hash = self.scratch.characters[begin + 1..]
            .iter()
            .fold(SEED_WORDS, |hash, &c| step(hash, u64::from(c)));
        self.scratch.characters.push(BLANK);
        self.scratch.ends.push(self.scratch.characters.len());
        self.scratch.words.push(Word {
            hash,
            shape: letters.shape(),
        });
    }
}

/// Soft hyphen, zero-width space, joiners, word joiner, byte order mark: they neither end a word nor show.
fn is_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str, knobs: &Knobs) -> Vec<u32> {
        Scratch::default().keys(text, knobs).to_vec()
    }

    #[test]
    fn forms_that_mean_the_same_have_the_same_keys() {
        let knobs = Knobs {
            word_shapes: false,
            ..Knobs::default()
        };
        let same = [
            ("Play JAZZ", "play jazz"),
            ("cafe\u{301} au lait", "café au lait"),
            ("ﬁnd Ｍe", "find me"),
            ("play\u{200d}list \u{feff}x", "playlist x"),
            (" two\t words\r\n", "two words"),
            ("ÄRGER", "ärger"),
        ];
        for (one, other) in same {
            assert_eq!(keys(one, &knobs), keys(other, &knobs), "{one:?} {other:?}");
        }
        let folded = Knobs {
            fold_digits: true,
            ..knobs.clone()
        };
        assert_eq!(keys("at 7", &folded), keys("at 9", &folded));
        assert_ne!(keys("at 7", &knobs), keys("at 9", &knobs));
        let plain = Knobs {
            nfkc: false,
            lowercase: false,
            ..knobs
        };
        assert_ne!(keys("ﬁnd", &plain), keys("find", &plain));
        assert_ne!(keys("Find", &plain), keys("find", &plain));
    }

    #[test]
    fn every_kind_of_ngram_is_counted_where_it_is_due() {
        let none = Knobs {
            word_ngram_max: 1,
            char_ngram_max: 0,
            sentence_edges: false,
            word_shapes: false,
            ..Knobs::default()
        };
        let cases = [
            ("", none.clone(), 0),
            ("   \n", none.clone(), 0),
            ("\u{301}\u{200d}", none.clone(), 0),
            ("a b c", none.clone(), 3),
            ("a b, c!", none.clone(), 5),
            ("👩‍🚀", none.clone(), 2),
            (
                "a b c",
                Knobs {
                    word_ngram_max: 2,
                    ..none.clone()
                },
                5,
            ),
            (
                "a b c",
                Knobs {
                    word_ngram_max: 2,
                    sentence_edges: true,
                    ..none.clone()
                },
                7,
            ),
            (
                "a b c",
                Knobs {
                    word_shapes: true,
                    ..none.clone()
                },
                3 + 3 + 4 + 3,
            ),
            (
                "abc",
                Knobs {
                    word_ngram_max: 0,
                    char_ngram_min: 2,
                    char_ngram_max: 3,
                    ..none.clone()
                },
                4 + 3,
            ),
            (
                "abc!",
                Knobs {
                    word_ngram_max: 0,
                    char_ngram_min: 5,
                    char_ngram_max: 8,
                    ..none
                },
                1,
            ),
        ];
        for (text, knobs, count) in cases {
            assert_eq!(keys(text, &knobs).len(), count, "{text:?}");
        }
    }

    #[test]
    fn shapes_tell_names_from_words() {
        let shape = |text: &str| {
            let mut scratch = Scratch::default();
            scratch.keys(
                text,
                &Knobs {
                    sentence_edges: false,
                    ..Knobs::default()
                },
            );
            scratch.words[0].shape
        };
        let cases = [
            ("word", Shape::Plain),
            ("Word", Shape::Capitalised),
            ("A", Shape::Capitalised),
            ("TV", Shape::Capitals),
            ("7pm", Shape::Number),
            ("Élan", Shape::Capitalised),
            ("日本", Shape::Plain),
        ];
        for (text, expected) in cases {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn word_keys_have_their_bit_and_characters_have_not() {
        let words = Knobs {
            char_ngram_max: 0,
            ..Knobs::default()
        };
        let characters = Knobs {
            word_ngram_max: 0,
            ..Knobs::default()
        };
        assert!(
            keys("Add this, please", &words)
                .iter()
                .all(|key| key & WORD_BIT != 0)
        );
        assert!(
            keys("Add this, please", &characters)
                .iter()
                .all(|key| key & WORD_BIT == 0)
        );
    }
}
