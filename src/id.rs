//! Newtypes for every id, each with the one rule that makes it well-formed.
//!
//! An id that exists as a value has been checked: the only ways in are
//! [`std::str::FromStr`] and serde, and both run the same check. Ids become
//! path components on our branches, so the rules are also what keeps a path
//! from data inside its folder.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the id it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {reason}")]
pub struct IdError {
    /// What the text was read as, for people: "signature id", "digest", ….
    pub kind: &'static str,
    /// The text, as given (cut at 120 characters).
    pub text: String,
    /// Which rule it breaks, and the rule.
    pub reason: String,
}

impl IdError {
    pub(crate) fn new(kind: &'static str, text: &str, reason: impl Into<String>) -> Self {
        let mut shown: String = text.chars().take(120).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self {
            kind,
            text: shown,
            reason: reason.into(),
        }
    }
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                $check(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                $check(&text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

string_id!(
    /// A signature's id: `@org/app[/part…]/Name.vN`.
    ///
    /// ASCII, at most 100 bytes, only the last component has the `.vN` form, so
    /// that no id is a folder of another. `org/app/Name.v1` is accepted and
    /// normalised to the form with `@`.
    SignatureId,
    check_signature
);
string_id!(
    /// One execution of the loop: letters, digits, `.`, `_`, `-`, at most 64 bytes.
    RunId,
    check_run
);
string_id!(
    /// An example's id within its signature: printable, no control characters, at most 200 bytes.
    ExampleId,
    check_example
);
string_id!(
    /// A group of examples that must stay together (paraphrases, one conversation).
    GroupId,
    check_example
);
string_id!(
    /// A person or machine with keys and roles: letters, digits, `.`, `_`, `-`, `@`, at most 64 bytes.
    PrincipalId,
    check_principal
);
string_id!(
    /// One canary of a signature: same alphabet as a run id.
    CanaryId,
    check_canary
);
string_id!(
    /// Who writes receipts: one clone of a repository. Same alphabet as a run id.
    WriterId,
    check_writer
);

impl SignatureId {
    /// The id without its leading `@`: a relative path of two or more components.
    pub fn path(&self) -> &str {
        &self.0[1..]
    }

    /// The last component, such as `SelectTool.v1`.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

fn check_signature(text: &str) -> Result<String, IdError> {
    const KIND: &str = "signature id";
    let fail = |reason: &str| Err(IdError::new(KIND, text, reason));
    let bare = text.strip_prefix('@').unwrap_or(text);
    if bare.len() + 1 > 100 {
        return fail("it is longer than 100 bytes");
    }
    let parts: Vec<&str> = bare.split('/').collect();
    if parts.len() < 3 {
        return fail("it needs at least `@org/app/Name.vN`");
    }
    let (last, folders) = parts
        .split_last()
        .expect("because there are at least three parts");
    for part in &parts {
        if part.is_empty() {
            return fail("it has an empty component");
        }
        if !part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return fail("components hold only ASCII letters, digits, `-`, `_` and `.`");
        }
        if part.starts_with(['.', '-']) || part.ends_with('.') || part.contains("..") {
            return fail("a component starts with `.` or `-`, ends with `.`, or holds `..`");
        }
        if part.to_ascii_lowercase().ends_with(".lock") {
            return fail("a component ends with `.lock`, which git reserves");
        }
        if is_reserved(part) {
            return fail("a component is a name that some file systems reserve");
        }
    }
    if folders.iter().any(|part| is_versioned(part)) {
        return fail("only the last component may have the `.vN` form");
    }
    if !is_versioned(last) {
        return fail("its last component must end in a version, as in `SelectTool.v1`");
    }
    Ok(format!("@{bare}"))
}

/// Device names of Windows, with or without an extension, and git's own folder.
fn is_reserved(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).to_ascii_lowercase();
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul" | "git")
        || (stem.len() == 4
            && (stem.starts_with("com") || stem.starts_with("lpt"))
            && stem.as_bytes()[3].is_ascii_digit())
}

fn is_versioned(part: &str) -> bool {
    part.rsplit_once(".v").is_some_and(|(name, version)| {
        !name.is_empty()
            && !version.is_empty()
            && version.bytes().all(|b| b.is_ascii_digit())
            && !version.starts_with('0')
    })
}

fn check_token(kind: &'static str, text: &str, extra: &[u8]) -> Result<String, IdError> {
    if text.is_empty() || text.len() > 64 {
        return Err(IdError::new(kind, text, "it must have 1 to 64 bytes"));
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.') || extra.contains(&b))
    {
        return Err(IdError::new(
            kind,
            text,
            "only ASCII letters, digits, `-`, `_` and `.` are allowed",
        ));
    }
    if text.starts_with(['.', '-'])
        || text.ends_with('.')
        || text.contains("..")
        || text.to_ascii_lowercase().ends_with(".lock")
        || is_reserved(text)
    {
        return Err(IdError::new(
            kind,
            text,
            "it must not start with `.` or `-`, end with `.` or `.lock`, hold `..`, or be a reserved name",
        ));
    }
    Ok(text.to_owned())
}

fn check_run(text: &str) -> Result<String, IdError> {
    check_token("run id", text, b"")
}

fn check_canary(text: &str) -> Result<String, IdError> {
    check_token("canary id", text, b"")
}

fn check_writer(text: &str) -> Result<String, IdError> {
    check_token("writer id", text, b"")
}

fn check_principal(text: &str) -> Result<String, IdError> {
    check_token("principal", text, b"@")
}

fn check_example(text: &str) -> Result<String, IdError> {
    const KIND: &str = "example or group id";
    if text.is_empty() || text.len() > 200 {
        return Err(IdError::new(KIND, text, "it must have 1 to 200 bytes"));
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err(IdError::new(
            KIND,
            text,
            "control characters and surrounding space are not allowed",
        ));
    }
    Ok(text.to_owned())
}

/// A SHA-256 digest, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of raw bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without the `sha256:` prefix: a file name.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            use fmt::Write as _;
            write!(text, "{byte:02x}").expect("because writing to a String cannot fail");
        }
        text
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let fail = || {
            IdError::new(
                "digest",
                text,
                "expected `sha256:` and 64 lower-case hex digits",
            )
        };
        let hex = text.strip_prefix("sha256:").ok_or_else(fail)?;
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(fail());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).map_err(|_| fail())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_ids() {
        for good in ["@a/b/C.v1", "a/b/C.v1", "@org/app/part/Select-Tool_x.v12"] {
            let id: SignatureId = good.parse().expect(good);
            assert!(id.as_str().starts_with('@'));
            assert_eq!(id.path(), good.trim_start_matches('@'));
        }
        for bad in [
            "",
            "@",
            "@a/C.v1",
            "@a/b/C",
            "@a/b/C.v0",
            "@a/b/C.v01",
            "@a/b/C.v",
            "@a//C.v1",
            "@a/../C.v1",
            "@a/b.v1/C.v1",
            "@a/b/C.lock.v1/",
            "@a/x.LOCK/C.v1",
            "@a/con/C.v1",
            "@a/Nul.x/C.v1",
            "@a/b/C é.v1",
            "@a/.b/C.v1",
            "@a/-b/C.v1",
            "@.git/a/C.v1",
            "@git/a/C.v1",
            "@a/com1/C.v1",
        ] {
            assert!(bad.parse::<SignatureId>().is_err(), "{bad} was accepted");
        }
        let long = format!("@a/b/{}.v1", "x".repeat(100));
        assert!(long.parse::<SignatureId>().is_err());
    }

    #[test]
    fn digests_round_trip() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        for bad in [
            "",
            "sha256:",
            "sha256:E3",
            "e3b0",
            &digest.to_string().to_uppercase(),
        ] {
            assert!(bad.parse::<Digest>().is_err());
        }
    }

    #[test]
    fn tokens_cannot_leave_their_folder() {
        for bad in [
            "", "..", ".x", "a/b", "a\\b", "a\0b", "x.lock", "con", "-x", "a..b",
        ] {
            assert!(bad.parse::<RunId>().is_err(), "{bad:?} was accepted");
        }
        assert!("night-2026-11-21.1".parse::<RunId>().is_ok());
    }
}
