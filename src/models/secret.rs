//! Values that must never be shown.

use std::fmt;

/// A key. It has no `Display` and no serialiser, and its `Debug` shows nothing.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keep a value from being shown.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Remove every secret from a text that came from outside: providers quote keys
/// in their error messages, programs print their environment.
pub fn redact(text: &str, secrets: &[Secret]) -> String {
    let mut clean = text.to_owned();
    for Secret(secret) in secrets {
        // A very short value would erase innocent text and is no secret anyway.
        if secret.len() >= 4 && clean.contains(secret.as_str()) {
            clean = clean.replace(secret.as_str(), "[redacted]");
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_it() {
        let key = Secret::new("sk-planted-0123");
        assert_eq!(format!("{key:?}"), "Secret(…)");
        assert_eq!(
            redact("bad key sk-planted-0123, sk-planted-0123!", &[key]),
            "bad key [redacted], [redacted]!"
        );
    }
}
