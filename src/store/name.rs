//! Names in a repository: objects, refs and paths in a tree. A name that
//! exists as a value has been checked; the only ways in run the same check.

use std::fmt;
use std::str::FromStr;

use gix::bstr::{BStr, ByteSlice};
use serde::{Deserialize, Serialize};

/// Why a text is not the name it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {reason}")]
pub struct NameError {
    /// What the text was read as: "object name", "ref name", "tree path".
    pub kind: &'static str,
    /// The text, as given (cut at 200 characters, control characters escaped).
    pub text: String,
    /// Which rule it breaks.
    pub reason: String,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, text: &str, reason: impl Into<String>) -> Self {
        let text = text.chars().take(200).flat_map(char::escape_debug);
        Self {
            kind,
            text: text.collect(),
            reason: reason.into(),
        }
    }
}

/// The name of an object: 40 (SHA-1) or 64 (SHA-256) hex digits, lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(gix::ObjectId);

impl ObjectName {
    /// The raw bytes of the hash: 20 or 32.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }

    pub(crate) fn id(&self) -> gix::ObjectId {
        self.0
    }
}

impl From<gix::ObjectId> for ObjectName {
    fn from(id: gix::ObjectId) -> Self {
        Self(id)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for ObjectName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let fail = || {
            NameError::new(
                "object name",
                text,
                "expected 40 or 64 lower-case hex digits",
            )
        };
        if !matches!(text.len(), 40 | 64)
            || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(fail());
        }
        gix::ObjectId::from_hex(text.as_bytes())
            .map(Self)
            .map_err(|_| fail())
    }
}

impl TryFrom<String> for ObjectName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> String {
        name.to_string()
    }
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

checked_text!(
    /// A full ref name, such as `refs/heads/proofline/control`: shared by all
    /// worktrees (never `HEAD`, `refs/bisect/…`, `refs/worktree/…` or
    /// `refs/rewritten/…`) and valid by git's rules.
    RefName,
    check_ref
);
checked_text!(
    /// A path in a tree, components separated by `/`: relative, UTF-8, no empty
    /// component, no `.` or `..`, nothing that a file system could take for
    /// `.git`, no control characters, no name that Windows reserves; at most 255
    /// bytes a component and 4,096 in all.
    ///
    /// A path that was *read* from somebody else's tree may break these rules
    /// (a file named `aux.c`, say) and can be shown and read; writing checks again.
    TreePath,
    check_path
);

impl RefName {
    /// The branch of this short name: `proofline/control` is `refs/heads/proofline/control`.
    pub fn branch(short: &str) -> Result<Self, NameError> {
        format!("refs/heads/{short}").parse()
    }

    /// The name without `refs/heads/` for a branch, else the full name: what one would type.
    pub fn short(&self) -> &str {
        self.0.strip_prefix("refs/heads/").unwrap_or(&self.0)
    }
}

impl TreePath {
    /// The path of something below this folder; `below` may have several components.
    pub fn join(&self, below: &str) -> Result<Self, NameError> {
        format!("{}/{below}", self.0).parse()
    }

    /// This path with text added to its last component: `a/b` and `.jsonl` give `a/b.jsonl`.
    pub fn with_suffix(&self, suffix: &str) -> Result<Self, NameError> {
        format!("{}{suffix}", self.0).parse()
    }

    /// The folder it is in; `None` for a path at the root.
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once('/')
            .map(|(folder, _)| Self(folder.to_owned()))
    }

    /// The path of an entry that stands in a tree already.
    pub(super) fn found(folder: Option<&TreePath>, name: &str) -> Self {
        match folder {
            Some(folder) => Self(format!("{}/{name}", folder.0)),
            None => Self(name.to_owned()),
        }
    }

    /// Whether the rules for writing hold; see the type's text.
    pub(super) fn check(&self) -> Result<(), NameError> {
        check_path(&self.0)
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether it is this folder or below it, by whole components.
    pub fn starts_with(&self, folder: &TreePath) -> bool {
        self.0
            .strip_prefix(folder.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn check_ref(text: &str) -> Result<(), NameError> {
    const KIND: &str = "ref name";
    let fail = |reason: &str| Err(NameError::new(KIND, text, reason));
    let Some(below) = text.strip_prefix("refs/") else {
        return fail("it must be a full name that starts with `refs/`");
    };
    if ["bisect/", "worktree/", "rewritten/"]
        .iter()
        .any(|private| below.starts_with(private))
    {
        return fail("refs in this folder belong to a single worktree");
    }
    if text.split('/').any(|part| part.len() > 200) {
        return fail("a component is longer than 200 bytes");
    }
    if text.split('/').any(|part| part.starts_with('-')) {
        return fail("a component starts with `-`");
    }
    match gix::validate::reference::name(BStr::new(text)) {
        Ok(_) => Ok(()),
        Err(error) => Err(NameError::new(KIND, text, error.to_string())),
    }
}

fn check_path(text: &str) -> Result<(), NameError> {
    const KIND: &str = "tree path";
    let fail = |reason: &str| Err(NameError::new(KIND, text, reason));
    if text.is_empty() {
        return fail("it is empty");
    }
    if text.len() > 4096 {
        return fail("it is longer than 4096 bytes");
    }
    if text.starts_with('/') {
        return fail("it is absolute");
    }
    for part in text.split('/') {
        if part.is_empty() {
            return fail("it has an empty component");
        }
        if part.len() > 255 {
            return fail("a component is longer than 255 bytes");
        }
        if part.chars().any(char::is_control) {
            return fail("it holds a control character");
        }
        if part.eq_ignore_ascii_case(".gitmodules") {
            return fail("`.gitmodules` would be read as configuration");
        }
        if let Err(error) =
            gix::validate::path::component(part.as_bytes().as_bstr(), None, Default::default())
        {
            return Err(NameError::new(KIND, text, error.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_tree() {
        for good in [
            "a",
            "a/b.jsonl",
            "promotions/org/app/Name.v1/0001/promotion.yaml",
            "é/ü",
            ".github/x",
            ".gitattributes",
        ] {
            assert!(good.parse::<TreePath>().is_ok(), "{good} was refused");
        }
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "./a",
            ".git",
            "a/.GIT/b",
            ".git.",
            ".git ",
            "git~1",
            ".g\u{200c}it",
            ".git::$INDEX_ALLOCATION",
            ".gitmodules",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "c:x",
            "a\\b",
            "con",
            "nul.txt",
        ] {
            assert!(bad.parse::<TreePath>().is_err(), "{bad:?} was accepted");
        }
        assert!("x".repeat(256).parse::<TreePath>().is_err());
        assert!(vec!["x"; 3000].join("/").parse::<TreePath>().is_err());
    }

    #[test]
    fn refs_are_full_and_shared() {
        for good in ["refs/heads/proofline/control", "refs/proofline/receipts/w1"] {
            assert!(good.parse::<RefName>().is_ok(), "{good} was refused");
        }
        for bad in [
            "HEAD",
            "proofline/control",
            "refs/heads/a..b",
            "refs/heads/a.lock",
            "refs/heads/",
            "refs/heads/a b",
            "refs/heads/a^",
            "refs/bisect/bad",
            "refs/worktree/x",
            "refs/heads/-x",
            "refs/heads/a:b",
            "refs/../x",
            "refs/heads/@{x",
        ] {
            assert!(bad.parse::<RefName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn object_names_have_either_length() {
        for length in [40, 64] {
            let text = "a1".repeat(length / 2);
            assert_eq!(text.parse::<ObjectName>().unwrap().to_string(), text);
        }
        for bad in ["", "a1", &"A1".repeat(20), &"g1".repeat(20)] {
            assert!(bad.parse::<ObjectName>().is_err());
        }
    }
}
