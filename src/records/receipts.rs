//! Receipts: each writer appends to its own ref, by signature and day.
//!
//! A writer is one clone; its id is made once and kept under the git common
//! dir, so that linked worktrees share it and no two clones append to one ref.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::domain::improve::receipt::Receipt;
use crate::host::files::{self, FileError};
use crate::id::{Digest, IdError, SignatureId, WriterId};
use crate::store::{
    Author, Decision, Edit, ObjectName, Outcome, RefName, Snapshot, Store, Transaction, TreePath,
    segment,
};

use super::{RecordError, Refs, document};

/// Why this clone has no writer id.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its file holds something else.
    #[error("{path}: {source}; delete the file and a new id is made")]
    Id {
        /// The file.
        path: String,
        /// What is wrong with its content.
        #[source]
        source: IdError,
    },
}

/// The id that this clone writes receipts under; made at the first call.
pub fn writer(store: &Store) -> Result<WriterId, WriterError> {
    let path = store.local_dir()?.join("writer");
    if let Some(id) = read_writer(&path)? {
        return Ok(id);
    }
    // The second half of a UUIDv7 is random.
    let made = format!("w-{}\n", &uuid::Uuid::now_v7().simple().to_string()[16..]);
    match files::write_new(&path, made.as_bytes()) {
        Ok(()) => {}
        // Another process of this clone was first: its id is ours.
        Err(error) if error.source.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    let id = read_writer(&path)?;
    Ok(id.expect("because the file was made just now"))
}

fn read_writer(path: &std::path::Path) -> Result<Option<WriterId>, WriterError> {
    let Some(bytes) = files::read_optional(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    text.trim()
        .parse()
        .map(Some)
        .map_err(|source| WriterError::Id {
            path: path.display().to_string(),
            source,
        })
}

/// The day a receipt is filed under, in UTC.
pub fn day(ts: Timestamp) -> Date {
    ts.to_zoned(TimeZone::UTC).date()
}

/// `receipts/<signature>` on a writer's ref.
fn folder(signature: &SignatureId) -> TreePath {
    format!("receipts/{}", signature.path())
        .parse()
        .expect("because ids are safe path components")
}

fn log(signature: &SignatureId, day: Date) -> TreePath {
    folder(signature)
        .join(&day.to_string())
        .expect("because a date is a safe path component")
}

/// Every writer whose receipts are here, with its ref and tip.
pub fn writers(
    refs: &Refs,
    store: &Store,
) -> Result<Vec<(WriterId, RefName, ObjectName)>, RecordError> {
    let prefix = refs.receipts_prefix();
    let mut found = Vec::new();
    for (reference, tip) in store.references(&prefix)? {
        let name = reference
            .as_str()
            .strip_prefix(&prefix)
            .and_then(|name| name.parse().ok());
        if let Some(writer) = name {
            found.push((writer, reference, tip));
        }
    }
    Ok(found)
}

/// The signatures that a writer's ref holds receipts of.
pub fn signatures(snapshot: &Snapshot) -> Result<BTreeSet<SignatureId>, RecordError> {
    let root: TreePath = "receipts".parse()?;
    let mut found = BTreeSet::new();
    for (path, _) in snapshot.walk(Some(&root))? {
        // receipts/<signature>/<day>/<folder>/<segment>
        let parts: Vec<&str> = path.components().collect();
        if let Some(signature) = parts.len().checked_sub(3).and_then(|end| parts.get(1..end)) {
            found.extend(signature.join("/").parse::<SignatureId>());
        }
    }
    Ok(found)
}

/// The days that hold receipts of a signature, oldest first, from `since` on.
pub fn days(
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    since: Option<Date>,
) -> Result<Vec<Date>, RecordError> {
    let Some(snapshot) = snapshot else {
        return Ok(Vec::new());
    };
    let mut days = Vec::new();
    for (name, _) in snapshot.list(Some(&folder(signature)))? {
        let day: Date = name.parse().map_err(|error| {
            RecordError::Other(format!("{}/{name}: {error}", folder(signature)))
        })?;
        if since.is_none_or(|since| day >= since) {
            days.push(day);
        }
    }
    days.sort();
    Ok(days)
}

/// The receipts of one day, in the order they were written.
pub fn of_day(
    reference: &RefName,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    day: Date,
) -> Result<Vec<Receipt>, RecordError> {
    let log = log(signature, day);
    let name = document::shown(reference, &log);
    segment::lines(snapshot, &log)?
        .enumerate()
        .map(|(index, line)| document::from_line(&name, index + 1, &line?))
        .collect()
}

/// The receipts of a signature on one ref, from a day on.
pub fn since(
    reference: &RefName,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    since: Option<Date>,
) -> Result<Vec<Receipt>, RecordError> {
    let mut receipts = Vec::new();
    for day in days(snapshot, signature, since)? {
        receipts.extend(of_day(reference, snapshot, signature, day)?);
    }
    Ok(receipts)
}

/// A writer's own receipts of one signature, open for appending.
#[derive(Debug)]
pub struct Book {
    store: Store,
    reference: RefName,
    signature: SignatureId,
    since: Option<Date>,
    /// Where the ref was when `known` was read.
    tip: Option<ObjectName>,
    known: HashSet<Digest>,
}

/// What an append came to.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Receipts that were new.
    pub new: u64,
    /// Where the ref is now.
    pub tip: Option<ObjectName>,
}

impl Book {
    /// Open a writer's receipts. Receipts older than `since` are not looked at: nothing that is appended may be among them.
    pub fn open(
        store: &Store,
        refs: &Refs,
        writer: &WriterId,
        signature: &SignatureId,
        since: Option<Date>,
    ) -> Result<(Self, Vec<Receipt>), RecordError> {
        let reference = refs.receipts(writer.as_str())?;
        let snapshot = store.snapshot(&reference)?;
        let receipts = self::since(&reference, snapshot.as_ref(), signature, since)?;
        let book = Self {
            store: store.clone(),
            reference,
            signature: signature.clone(),
            since,
            tip: snapshot.map(|snapshot| snapshot.commit()),
            known: receipts.iter().map(|receipt| receipt.id).collect(),
        };
        Ok((book, receipts))
    }

    /// The ref they are on.
    pub fn reference(&self) -> &RefName {
        &self.reference
    }

    /// Append receipts; those whose id is there already are passed over.
    pub fn append(
        &mut self,
        author: &Author,
        receipts: &[Receipt],
        subject: &str,
    ) -> Result<Appended, RecordError> {
        let transaction = Transaction::new(self.reference.clone(), author.clone());
        let (reference, signature, since) = (&self.reference, &self.signature, self.since);
        let (tip, known) = (self.tip, &mut self.known);
        let mut new = 0;
        let outcome =
            self.store
                .transact(&transaction, |snapshot| -> Result<Decision, RecordError> {
                    if snapshot.map(Snapshot::commit) != tip {
                        // Someone of this clone appended meanwhile: look again.
                        let receipts = self::since(reference, snapshot, signature, since)?;
                        *known = receipts.iter().map(|receipt| receipt.id).collect();
                    }
                    let (count, edits) = additions(snapshot, signature, known, receipts)?;
                    new = count;
                    Ok(if count == 0 {
                        Decision::Nothing
                    } else {
                        Decision::Commit {
                            edits,
                            message: format!(
                                "receipts {}: {subject}\n\nSignature: {signature}\n",
                                signature.name()
                            ),
                        }
                    })
                })?;
        self.tip = Outcome::tip(&outcome);
        self.known.extend(receipts.iter().map(|receipt| receipt.id));
        Ok(Appended { new, tip: self.tip })
    }
}

/// The edits that append what is not known yet, day by day.
fn additions(
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    known: &HashSet<Digest>,
    receipts: &[Receipt],
) -> Result<(u64, Vec<Edit>), RecordError> {
    let mut added = HashSet::new();
    let fresh: Vec<&Receipt> = receipts
        .iter()
        .filter(|receipt| !known.contains(&receipt.id) && added.insert(receipt.id))
        .collect();
    let days: BTreeSet<Date> = fresh.iter().map(|receipt| day(receipt.ts)).collect();
    let mut edits = Vec::new();
    for date in days {
        let lines: Vec<String> = fresh
            .iter()
            .filter(|receipt| day(receipt.ts) == date)
            .map(document::to_line)
            .collect::<Result<_, _>>()?;
        edits.extend(segment::append(snapshot, &log(signature, date), &lines)?);
    }
    Ok((fresh.len() as u64, edits))
}
