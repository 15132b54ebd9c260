//! Commits: who made them, what they say, and the signature over them.

use gix::bstr::ByteSlice;
use jiff::Timestamp;

use super::name::ObjectName;
use super::open::{ObjectFormat, Store};
use super::snapshot::{ReadError, damaged};

/// Who makes a commit, and when. Author and committer are the same, the zone is UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    name: String,
    email: String,
    time: Timestamp,
}

/// Why nobody can be named as the author of a commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// Git has no name or address for the user.
    #[error(
        "git doesn't know who you are; run `git config user.name \"Your Name\"` and `git config user.email you@example.com`"
    )]
    Unknown,
    /// It would not survive being written into a commit.
    #[error("`{text}` can't be an author's {what}: {reason}")]
    Unwritable {
        /// "name" or "email".
        what: &'static str,
        /// The text.
        text: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

impl Author {
    /// Name somebody. Neither text may hold `<`, `>`, control characters or
    /// surrounding space, and the name is not empty; seconds count, not fractions.
    pub fn new(
        name: impl Into<String>,
        email: impl Into<String>,
        time: Timestamp,
    ) -> Result<Self, AuthorError> {
        let author = Self {
            name: name.into(),
            email: email.into(),
            time,
        };
        for (what, text) in [("name", &author.name), ("email", &author.email)] {
            let reason = if text.contains(['<', '>']) || text.chars().any(char::is_control) {
                "it holds `<`, `>` or a control character"
            } else if text.trim() != text {
                "it begins or ends with a space"
            } else if what == "name" && text.is_empty() {
                "it is empty"
            } else {
                continue;
            };
            return Err(AuthorError::Unwritable {
                what,
                text: text.escape_debug().to_string(),
                reason,
            });
        }
        Ok(author)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The e-mail address.
    pub fn email(&self) -> &str {
        &self.email
    }

    /// The time, to the second in a commit.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    pub(super) fn to_git(&self) -> gix::actor::Signature {
        gix::actor::Signature {
            name: self.name.as_str().into(),
            email: self.email.as_str().into(),
            time: gix::date::Time::new(self.time.as_second(), 0),
        }
    }
}

/// Signs commits: what an `ssh-keygen`, `gpg` or in-process signer implements.
pub trait SignCommit {
    /// An armored signature (SSH, OpenPGP or X.509, `-----BEGIN …`) over exactly these bytes.
    fn sign(&self, payload: &[u8]) -> Result<String, SignError>;
}

/// Why a commit could not be signed. Nothing was written to any ref.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the commit could not be signed: {reason}")]
pub struct SignError {
    /// What the signer said, and what to do.
    pub reason: String,
}

/// A commit, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRecord {
    /// Its name.
    pub id: ObjectName,
    /// Its tree.
    pub tree: ObjectName,
    /// Its parents; the first one is the branch it landed on.
    pub parents: Vec<ObjectName>,
    /// The author's name, as it stands there.
    pub author_name: String,
    /// The author's address, as it stands there.
    pub author_email: String,
    /// The committer's name, as it stands there.
    pub committer_name: String,
    /// The committer's address, as it stands there.
    pub committer_email: String,
    /// When it was committed.
    pub time: Timestamp,
    /// The message, with its final newline.
    pub message: String,
    /// The armored signature, when there is one.
    pub signature: Option<String>,
    /// The bytes that the signature covers: the commit without it.
    pub payload: Vec<u8>,
}

/// The header that holds a signature.
pub(super) fn signature_header(format: ObjectFormat) -> &'static str {
    match format {
        ObjectFormat::Sha1 => "gpgsig",
        ObjectFormat::Sha256 => "gpgsig-sha256",
    }
}

/// The bytes of a commit.
pub(super) struct Draft<'a> {
    pub(super) tree: ObjectName,
    pub(super) parent: Option<ObjectName>,
    pub(super) author: &'a Author,
    pub(super) message: &'a str,
}

impl Draft<'_> {
    /// Write it out, signed when there is a signer.
    pub(super) fn encode(
        &self,
        format: ObjectFormat,
        signer: Option<&dyn SignCommit>,
    ) -> Result<Vec<u8>, SignError> {
        // Git refuses a NUL in a message, and ends every message with a newline.
        let mut message = self.message.replace('\0', "\u{fffd}");
        if !message.ends_with('\n') {
            message.push('\n');
        }
        let mut commit = gix::objs::Commit {
            tree: self.tree.id(),
            parents: self.parent.iter().map(|parent| parent.id()).collect(),
            author: self.author.to_git(),
            committer: self.author.to_git(),
            encoding: None,
            message: message.into(),
            extra_headers: Vec::new(),
        };
        if let Some(signer) = signer {
            let armored = signer.sign(&bytes_of(&commit))?;
            let armored = armored.trim_end();
            if !armored.starts_with("-----BEGIN ") {
                return Err(SignError {
                    reason: "the signer's answer is not an armored signature".to_owned(),
                });
            }
            commit
                .extra_headers
                .push((signature_header(format).into(), armored.into()));
        }
        Ok(bytes_of(&commit))
    }
}

fn bytes_of(commit: &gix::objs::Commit) -> Vec<u8> {
    use gix::objs::WriteTo as _;
    let mut bytes = Vec::new();
    commit
        .write_to(&mut bytes)
        .expect("because the author was checked and writing to memory does not fail");
    bytes
}

impl Store {
    /// A commit's bytes as they are stored, for whoever checks its signature.
    pub fn commit_bytes(&self, id: ObjectName) -> Result<Vec<u8>, ReadError> {
        self.inner.object(id, gix::object::Kind::Commit)
    }

    /// Read a commit.
    pub fn commit(&self, id: ObjectName) -> Result<CommitRecord, ReadError> {
        let bytes = self.inner.object(id, gix::object::Kind::Commit)?;
        let fail = |error: gix::Error| damaged(id, &error);
        let hash = self.inner.hash();
        let commit = gix::objs::CommitRef::from_bytes(&bytes, hash).map_err(fail)?;
        let author = commit.author().map_err(fail)?;
        let committer = commit.committer().map_err(fail)?;
        let seconds = commit.time().map_err(fail)?.seconds;
        let time = Timestamp::from_second(seconds).map_err(|error| ReadError::Corrupt {
            object: id,
            reason: error.to_string(),
        })?;
        let signature = gix::objs::CommitRefIter::signature(&bytes, hash).map_err(fail)?;
        let (signature, payload) = match signature {
            Some((armored, signed)) => (
                Some(armored.to_str_lossy().into_owned()),
                Vec::from(signed.to_bstring()),
            ),
            None => (None, bytes.clone()),
        };
        Ok(CommitRecord {
            id,
            tree: commit.tree().into(),
            parents: commit.parents().map(ObjectName::from).collect(),
            author_name: author.name.to_str_lossy().into_owned(),
            author_email: author.email.to_str_lossy().into_owned(),
            committer_name: committer.name.to_str_lossy().into_owned(),
            committer_email: committer.email.to_str_lossy().into_owned(),
            time,
            message: commit.message.to_str_lossy().into_owned(),
            signature,
            payload,
        })
    }

    /// The commits from `tip` back along first parents, newest first, at most
    /// `limit`. Where a shallow clone cuts history off, the last record has a
    /// parent that is not here, and [`Store::has_object`] says so.
    pub fn first_parents(
        &self,
        tip: ObjectName,
        limit: usize,
    ) -> Result<Vec<CommitRecord>, ReadError> {
        let mut records = Vec::new();
        let mut next = Some(tip);
        while let Some(id) = next.filter(|_| records.len() < limit) {
            let record = match self.commit(id) {
                Err(ReadError::Missing { shallow: true, .. }) if !records.is_empty() => break,
                other => other?,
            };
            next = record.parents.first().copied();
            records.push(record);
        }
        Ok(records)
    }

    /// Whether `ancestor` is `descendant` or reachable from it, as far as history is here.
    pub fn is_ancestor(
        &self,
        ancestor: ObjectName,
        descendant: ObjectName,
    ) -> Result<bool, ReadError> {
        if ancestor == descendant {
            return Ok(true);
        }
        let fail = |error: gix::Error| damaged(descendant, &error);
        let repo = self.inner.local();
        let walk = repo.rev_walk([descendant.id()]).all().map_err(fail)?;
        for info in walk {
            let info = info.map_err(fail)?;
            if info.id == ancestor.id() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Who the user is by git's configuration and environment (`user.name`, `GIT_COMMITTER_EMAIL`, …).
    pub fn author(&self, time: Timestamp) -> Result<Author, AuthorError> {
        let repo = self.inner.local();
        let Some(Ok(known)) = repo.committer() else {
            return Err(AuthorError::Unknown);
        };
        let text = |bytes: &gix::bstr::BStr| {
            // Git drops the same characters from a configured name.
            let text = bytes.to_str_lossy().replace(['<', '>', '\n'], "");
            text.trim().to_owned()
        };
        Author::new(text(known.name), text(known.email), time)
    }
}
