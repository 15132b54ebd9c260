//! A model as bytes: version 1.
//!
//! | field | form |
//! |---|---|
//! | magic | `PLLX` |
//! | version | u8, 1 |
//! | knobs | length, then JSON as [`Knobs`] writes it |
//! | rows | number |
//! | labels | number, then each: length and UTF-8, ascending |
//! | β | f64 |
//! | per label | largest weight and bias, f32 each |
//! | features | number |
//! | keys | per feature: number, the distance from the key before |
//! | document frequencies | per feature: number |
//! | weights | per feature and label: i8, see `quantise.rs` |
//! | checksum | SHA-256 of everything before it |
//!
//! Numbers and lengths are LEB128 in their shortest form; floats are little-endian. There is one way to write a model, and reading refuses every other: the
//! same model is the same bytes. Reading never allocates more than a fixed multiple of the bytes it was given.

use std::fmt;

use sha2::{Digest, Sha256};

use super::knobs::Knobs;
use super::model::{Model, Parts};
use super::quantise::Quantised;

const MAGIC: &[u8; 4] = b"PLLX";
const VERSION: u8 = 1;
const CHECKSUM: usize = 32;

/// Why bytes are not a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// They don't begin as a model does.
    NotAModel,
    /// They are of a format version that this program doesn't know.
    Version(u8),
    /// They were cut short, or changed: the checksum differs.
    Checksum,
    /// They break the format although the checksum is right.
    Malformed {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
        /// Where, in bytes from the beginning.
        offset: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAModel => f.write_str("not a lexical model: it doesn't begin with PLLX"),
            Self::Version(version) => write!(
                f,
                "lexical model of format version {version}: this program reads version {VERSION}"
            ),
            Self::Checksum => {
                f.write_str("lexical model damaged: its bytes don't match their checksum")
            }
            Self::Malformed {
                field,
                reason,
                offset,
            } => write!(
                f,
                "lexical model malformed at byte {offset}: {field} {reason}"
            ),
        }
    }
}

impl std::error::Error for DecodeError {}

impl Model {
    /// The model as bytes; the same model is the same bytes everywhere.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Parts {
            knobs,
            rows,
            labels,
            beta,
            keys,
            document_frequency,
            weights,
        } = &self.parts;
        let mut out = Vec::with_capacity(keys.len() * (labels.len() + 5) + 1024);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        put_text(&mut out, &knobs_text(knobs));
        put_number(&mut out, *rows);
        put_number(&mut out, labels.len() as u32);
        labels.iter().for_each(|label| put_text(&mut out, label));
        out.extend_from_slice(&beta.to_le_bytes());
        for (scale, bias) in weights.scales.iter().zip(&weights.biases) {
            out.extend_from_slice(&scale.to_le_bytes());
            out.extend_from_slice(&bias.to_le_bytes());
        }
        put_number(&mut out, keys.len() as u32);
        let mut before = 0;
        for &key in keys {
            put_number(&mut out, key - before);
            before = key;
        }
        document_frequency
            .iter()
            .for_each(|&df| put_number(&mut out, df));
        out.extend(weights.codes.iter().map(|code| code.cast_unsigned()));
        let checksum = Sha256::digest(&out);
        out.extend_from_slice(&checksum);
        out
    }

    /// Reads what [`Model::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::NotAModel)?;
        let &version = rest.first().ok_or(DecodeError::Checksum)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let body = bytes
            .len()
            .checked_sub(CHECKSUM)
            .filter(|&end| end > MAGIC.len())
            .ok_or(DecodeError::Checksum)?;
        let (body, checksum) = bytes.split_at(body);
        if Sha256::digest(body)[..] != *checksum {
            return Err(DecodeError::Checksum);
        }
        let mut reader = Reader {
            bytes: body,
            offset: MAGIC.len() + 1,
            field: "knobs",
        };
        let parts = reader.parts()?;
        Ok(Self::new(parts))
    }
}

fn knobs_text(knobs: &Knobs) -> String {
    serde_json::to_string(knobs)
        .expect("knobs are numbers, flags and one text, which JSON can hold")
}

fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(
        out,
        u32::try_from(text.len()).expect("a label of 4 GiB doesn't come out of a dataset"),
    );
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'b> {
    bytes: &'b [u8],
    offset: usize,
    field: &'static str,
}

impl<'b> Reader<'b> {
    fn parts(&mut self) -> Result<Parts, DecodeError> {
        let text = self.text()?;
        let knobs: Knobs = serde_json::from_str(text).map_err(|_| self.refusal("are not knobs"))?;
        self.require(knobs.validate().is_ok(), "are out of range")?;
        self.require(knobs_text(&knobs) == text, "are not in their one form")?;

        self.field = "rows";
        let rows = self.number()?;
        self.require(rows >= 2, "are fewer than two")?;

        self.field = "labels";
        let label_count = self.count(1)?;
        self.require(
            (2..=usize::from(u16::MAX)).contains(&label_count),
            "are fewer than 2 or more than 65535",
        )?;
        let mut labels: Vec<String> = Vec::with_capacity(label_count);
        for _ in 0..label_count {
            let label = self.text()?;
            self.require(
                labels.last().is_none_or(|before| before.as_str() < label),
                "don't ascend",
            )?;
            labels.push(label.to_owned());
        }

        self.field = "β";
        let beta = f64::from_le_bytes(self.array()?);
        self.require(
            beta.is_finite() && beta.is_sign_positive(),
            "is not a finite number from 0",
        )?;

        self.field = "largest weight or bias";
        self.require(self.left() / 8 >= label_count, "is missing")?;
        let (mut scales, mut biases) = (
            Vec::with_capacity(label_count),
            Vec::with_capacity(label_count),
        );
        for _ in 0..label_count {
            scales.push(self.float()?);
            biases.push(self.float()?);
        }
        self.require(
            scales.iter().all(|scale| scale.is_sign_positive()),
            "is negative",
        )?;

        self.field = "features";
        let feature_count = self.count(2 + label_count)?;
        self.require(feature_count > 0, "are none")?;

        self.field = "keys";
        let mut keys: Vec<u32> = Vec::with_capacity(feature_count);
        for place in 0..feature_count {
            let distance = self.number()?;
            let key = keys
                .last()
                .copied()
                .unwrap_or(0)
                .checked_add(distance)
                .ok_or_else(|| self.refusal("pass 32 bits"))?;
            self.require(place == 0 || distance > 0, "don't ascend")?;
            keys.push(key);
        }

        self.field = "document frequencies";
        let mut document_frequency = Vec::with_capacity(feature_count);
        for _ in 0..feature_count {
            let df = self.number()?;
            self.require(
                (knobs.min_document_frequency_for(rows as usize)..=rows).contains(&df),
                "are below the minimum or above the rows",
            )?;
            document_frequency.push(df);
        }

        self.field = "weights";
        let size = feature_count
            .checked_mul(label_count)
            .ok_or_else(|| self.refusal("are too many"))?;
        self.require(self.left() == size, "are too few or too many")?;
        let codes: Vec<i8> = self
            .take(size)?
            .iter()
            .map(|byte| byte.cast_signed())
            .collect();
        self.require(!codes.contains(&i8::MIN), "hold −128")?;
        Ok(Parts {
            knobs,
            rows,
            labels,
            beta,
            keys,
            document_frequency,
            weights: Quantised {
                scales,
                biases,
                codes,
            },
        })
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    fn refusal(&self, reason: &'static str) -> DecodeError {
        DecodeError::Malformed {
            field: self.field,
            reason,
            offset: self.offset,
        }
    }

    fn require(&self, holds: bool, reason: &'static str) -> Result<(), DecodeError> {
        if holds {
            Ok(())
        } else {
            Err(self.refusal(reason))
        }
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], DecodeError> {
        self.require(length <= self.left(), "end too early")?;
        let taken = &self.bytes[self.offset..self.offset + length];
        self.offset += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self
            .take(N)?
            .try_into()
            .expect("as many bytes as asked for"))
    }

    fn float(&mut self) -> Result<f32, DecodeError> {
        let float = f32::from_le_bytes(self.array()?);
        self.require(float.is_finite(), "is not finite")?;
        Ok(float)
    }

    fn number(&mut self) -> Result<u32, DecodeError> {
        let mut number = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            self.require(shift < 28 || bits < 0x10, "hold a number past 32 bits")?;
            number |= bits << shift;
            if byte & 0x80 == 0 {
                self.require(
                    byte != 0 || shift == 0,
                    "hold a number that isn't in its shortest form",
                )?;
                return Ok(number);
            }
        }
        Err(self.refusal("hold a number past 32 bits"))
    }

    /// A number of things that take at least so many bytes each, so that what is allocated for them is bounded by what is there.
    fn count(&mut self, bytes_each: usize) -> Result<usize, DecodeError> {
        let count = self.number()? as usize;
        self.require(
            count <= self.left() / bytes_each,
            "are more than the bytes left can hold",
        )?;
        Ok(count)
    }

    fn text(&mut self) -> Result<&'b str, DecodeError> {
        let length = self.count(1)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| self.refusal("are not UTF-8"))
    }
}
