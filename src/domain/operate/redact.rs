//! Secrets out of texts that came from outside, before anything of them is
//! kept: known values first, then whatever has the form of a credential.
//!
//! The values are only those that are known here: a secret that a command made
//! up itself, in a form nobody knows, passes. So the tail that is kept is short.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

/// What stands in a secret's place.
pub const REDACTED: &str = "[redacted]";

/// Shorter values would erase innocent text, and are no secrets.
const SECRET_BYTES_MIN: usize = 4;

/// Replaces secrets.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a value is not left in part because it holds another.
    values: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor")
            .field("values", &self.values.len())
            .finish()
    }
}

impl Redactor {
    /// Knows these values, each also as a JSON string would hold it.
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut known = BTreeSet::new();
        for value in values {
            // A multi-line key is printed line by line, with who knows what between.
            for part in value.lines().map(str::trim).chain([value.trim()]) {
                if part.len() < SECRET_BYTES_MIN || is_common(part) {
                    continue;
                }
                let quoted = serde_json::Value::from(part).to_string();
                known.insert(quoted[1..quoted.len() - 1].to_owned());
                known.insert(part.to_owned());
            }
        }
        let mut values: Vec<String> = known.into_iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values }
    }

    /// Knows the values of those variables whose names say that they hold a secret.
    pub fn of_variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(
            variables
                .into_iter()
                .filter(|(name, _)| is_secret_name(name))
                .map(|(_, value)| value.to_owned()),
        )
    }

    /// The text without secrets.
    pub fn redact(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for value in &self.values {
            if clean.contains(value.as_str()) {
                clean = clean.replace(value.as_str(), REDACTED);
            }
        }
        for (form, with) in FORMS.iter() {
            if let std::borrow::Cow::Owned(replaced) = form.replace_all(&clean, *with) {
                clean = replaced;
            }
        }
        clean
    }
}

/// Whether a variable's name says that its value is a secret.
pub fn is_secret_name(name: &str) -> bool {
    const WORDS: [&str; 12] = [
        "KEY",
        "TOKEN",
        "SECRET",
        "PASSW",
        "PASSPHRASE",
        "PGPASS",
        "CREDENTIAL",
        "AUTH",
        "PRIVATE",
        "COOKIE",
        "DSN",
        "SIGNING",
    ];
    let upper = name.to_ascii_uppercase();
    WORDS.iter().any(|word| upper.contains(word))
        || upper
            .split('_')
            .any(|part| matches!(part, "PAT" | "PWD" | "PASS" | "JWT" | "CREDS"))
            && upper != "PWD"
            && upper != "OLDPWD"
}

/// Words that a "secret" variable may hold and that mean nothing.
fn is_common(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "true" | "false" | "none" | "null" | "auto" | "default" | "enabled" | "disabled" | "test"
    )
}

/// Forms of credentials, and what they become. Groups keep what makes the text readable.
static FORMS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        // A private key, to its end or the text's.
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)", "[redacted]"),
        (r"(?i)\b(authorization|proxy-authorization|x-api-key|api-key|cookie|set-cookie)(\\?[\x22']?\s*[:=]\s*\\?[\x22']?)[^\r\n\x22']+", "$1$2[redacted]"),
        (r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{8,}", "$1$2[redacted]"),
        // Credentials in a URL.
        (r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s:@\x22']*:[^/\s@\x22']+@", "$1[redacted]@"),
        // Assignments such as OPENAI_API_KEY=… and "client_secret": "…".
        (
            r"(?i)\b([A-Za-z0-9_-]*(?:api_?-?key|secret|passw(?:or)?d|passphrase|access_?-?token|auth_?-?token|refresh_?-?token|private_?-?key)[A-Za-z0-9_-]*)(\\?[\x22']?\s*[:=]\s*\\?[\x22']?)[^\s\x22',;&\\\[][^\s\x22',;&\\]{5,}",
            "$1$2[redacted]",
        ),
        // Tokens that their issuers made recognisable.
        (r"\bsk-[A-Za-z0-9_-]{16,}", "[redacted]"),
        (r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{10,}", "[redacted]"),
        (r"\bgh[pousr]_[A-Za-z0-9]{16,}", "[redacted]"),
        (r"\bgithub_pat_[A-Za-z0-9_]{16,}", "[redacted]"),
        (r"\bglpat-[A-Za-z0-9_-]{16,}", "[redacted]"),
        (r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", "[redacted]"),
        (r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b", "[redacted]"),
        (r"\bAIza[0-9A-Za-z_-]{30,}", "[redacted]"),
        (r"\bhf_[A-Za-z0-9]{20,}", "[redacted]"),
        (r"\bnpm_[A-Za-z0-9]{30,}", "[redacted]"),
        (r"\bpypi-[A-Za-z0-9_-]{20,}", "[redacted]"),
        // A JSON web token.
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", "[redacted]"),
    ]
    .into_iter()
    .map(|(form, with)| (Regex::new(form).expect("because every form is compiled by a test"), with))
    .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_go_wherever_they_stand() {
        let redactor = Redactor::of_variables([
            ("DEPLOY_TOKEN", "hunter2-hunter2"),
            ("DEPLOY_TOKEN_LONG", "hunter2-hunter2-and-more"),
            ("SOME_PASSWORD", "with \"quotes\""),
            ("PEM_KEY", "line-one-of-it\nline-two-of-it"),
            ("EDITOR", "vi-editor"),
            ("FEATURE_KEY", "true"),
        ]);
        let table = [
            ("x hunter2-hunter2-and-more y", "x [redacted] y"),
            ("xhunter2-hunter2y", "x[redacted]y"),
            (r#"{"p":"with \"quotes\""}"#, r#"{"p":"[redacted]"}"#),
            ("with \"quotes\"", "[redacted]"),
            ("> line-two-of-it <", "> [redacted] <"),
            ("vi-editor is true", "vi-editor is true"),
        ];
        for (text, clean) in table {
            assert_eq!(redactor.redact(text), clean);
        }
        assert_eq!(format!("{redactor:?}").matches("hunter").count(), 0);
    }

    #[test]
    fn forms_of_credentials_go_and_their_surroundings_stay() {
        let redactor = Redactor::default();
        let table = [
            ("key sk-proj-abcdefghijklmnop0123 ok", "key [redacted] ok"),
            ("ghp_abcdefghijklmnopqrstuvwx", "[redacted]"),
            ("AKIAIOSFODNN7EXAMPLE!", "[redacted]!"),
            (
                "Authorization: Bearer abc.def.ghi-0123\nnext",
                "Authorization: [redacted]\nnext",
            ),
            ("sent bearer 0123456789abcdef", "sent bearer [redacted]"),
            (
                "postgres://app:s3cr3t!@db:5432/x",
                "postgres://[redacted]@db:5432/x",
            ),
            (
                "OPENAI_API_KEY=abcdef123456 rest",
                "OPENAI_API_KEY=[redacted] rest",
            ),
            (
                r#"{"client_secret": "abcdef123456"}"#,
                r#"{"client_secret": "[redacted]"}"#,
            ),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "[redacted]"),
            (
                "a\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n-----END OPENSSH PRIVATE KEY-----\nz",
                "a\n[redacted]\nz",
            ),
            ("-----BEGIN PRIVATE KEY-----\ncut off", "[redacted]"),
            (
                "unexpected token: identifier",
                "unexpected token: identifier",
            ),
            ("x-request-id: req_123456", "x-request-id: req_123456"),
            (
                "test password_is_checked ... ok",
                "test password_is_checked ... ok",
            ),
            ("https://example.com/a:b@c", "https://example.com/a:b@c"),
        ];
        for (text, clean) in table {
            assert_eq!(redactor.redact(text), clean);
            assert_eq!(
                redactor.redact(clean),
                clean,
                "redacting twice changes nothing"
            );
        }
    }

    #[test]
    fn names_of_secrets() {
        for name in [
            "OPENAI_API_KEY",
            "GITHUB_TOKEN",
            "DB_PASSWORD",
            "my_secret",
            "PGPASS",
            "GH_PAT",
            "SENTRY_DSN",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PATH", "HOME", "PWD", "OLDPWD", "LANG", "EDITOR", "COMPASS"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
