//! Canonical JSON (RFC 8785) and the digests over it.
//!
//! A digest covers raw bytes or the canonical JSON of a value, never "whatever
//! serde printed": members are sorted by UTF-16 code units, numbers are written
//! as ECMAScript would, and there is no insignificant space.
//!
//! Integers beyond ±2^53 are refused, because RFC 8785 writes numbers as
//! doubles and two different integers would share one digest (Appendix B).

use serde::Serialize;
use serde_json::Value;

use crate::id::Digest;

/// Why a value has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonError {
    /// An integer outside ±(2^53 − 1).
    #[error(
        "{number} at `{pointer}` is beyond 2^53: other readers would round it; write it as a string"
    )]
    Integer {
        /// The number, as written.
        number: String,
        /// JSON pointer to it.
        pointer: String,
    },
    /// The value is not JSON: a NaN, a non-string key, or a failing serialiser.
    #[error("not representable as JSON: {0}")]
    NotJson(String),
}

/// The canonical bytes of a value.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonError> {
    let value = serde_json::to_value(value).map_err(|e| CanonError::NotJson(e.to_string()))?;
    check_integers(&value, &mut String::new())?;
    serde_json_canonicalizer::to_vec(&value).map_err(|e| CanonError::NotJson(e.to_string()))
}

/// The canonical text of a value.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonError> {
    let bytes = to_bytes(value)?;
    Ok(String::from_utf8(bytes).expect("because canonical JSON is UTF-8"))
}

/// The digest of a value's canonical bytes.
pub fn digest<T: Serialize + ?Sized>(value: &T) -> Result<Digest, CanonError> {
    Ok(Digest::of(&to_bytes(value)?))
}

fn check_integers(value: &Value, pointer: &mut String) -> Result<(), CanonError> {
    const LARGEST: u64 = (1 << 53) - 1;
    match value {
        Value::Number(number) => {
            let size = number
                .as_u64()
                .or_else(|| number.as_i64().map(i64::unsigned_abs));
            // A float that is a whole number beyond the limit has the same trouble.
            let beyond = match size {
                Some(size) => size > LARGEST,
                None => number
                    .as_f64()
                    .is_some_and(|float| float.fract() == 0.0 && float.abs() > LARGEST as f64),
            };
            if beyond {
                return Err(CanonError::Integer {
                    number: number.to_string(),
                    pointer: pointer.clone(),
                });
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let length = pointer.len();
                pointer.push('/');
                pointer.push_str(&index.to_string());
                check_integers(item, pointer)?;
                pointer.truncate(length);
            }
        }
        Value::Object(members) => {
            for (key, item) in members {
                let length = pointer.len();
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                check_integers(item, pointer)?;
                pointer.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn canonical_form() {
        let value = json!({"b": [1, 2.50, "é\n"], "a": {"z": null, "y": true}, "ä": 1e-7});
        assert_eq!(
            to_string(&value).expect("canonical"),
            r#"{"a":{"y":true,"z":null},"b":[1,2.5,"é\n"],"ä":1e-7}"#
        );
    }

    #[test]
    fn large_integers_are_refused() {
        assert!(to_bytes(&json!({"n": 9_007_199_254_740_991_u64})).is_ok());
        let error = to_bytes(&json!({"a/b": [9_007_199_254_740_993_u64]})).unwrap_err();
        assert_eq!(
            error,
            CanonError::Integer {
                number: "9007199254740993".into(),
                pointer: "/a~1b/0".into()
            }
        );
        assert!(
            to_bytes(&json!({"n": 1e21})).is_err(),
            "a rounded integer must not be digested"
        );
    }
}
