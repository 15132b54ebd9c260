//! Answers on disk, so that the same request is never paid for twice.
//!
//! The caller digests everything that can change an answer; the cache knows
//! digests only. It is throw-away state: what can't be read is a miss.
//!
//! **Files.** A folder of segments, each a text file of lines
//!
//! ```text
//! <key: 64 hex digits> <checksum: 16 hex digits> <completion: JSON>\n
//! ```
//!
//! where the checksum is the start of the SHA-256 of key and JSON. One process
//! appends to one segment, which it holds a lock on; every process reads all.
//! A process takes over a segment that nobody holds, cutting off a torn last
//! line; readers pass over whatever doesn't check.
//!
//! **Guarantees.** An answer is with the operating system before [`Cache::put`]
//! returns, so `kill -9` loses none. It isn't synced: a power cut may lose the
//! newest. Processes running at the same time don't see each other's new
//! answers until they open the cache again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use crate::host::files::{self, FileError};
use crate::id::Digest;

use super::Completion;

const KEY: usize = 64;
const CHECKSUM: usize = 16;
/// `<key> <checksum> `: what comes before the JSON.
const HEAD: usize = KEY + 1 + CHECKSUM + 1;
/// A segment this large is left alone; the next process begins a new one.
const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// About 40 bytes of memory each; the oldest segments beyond it aren't indexed.
const ENTRIES_MAX: usize = 4_000_000;
/// No answer is longer: a longer line is damage.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A folder of answers.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    index: RwLock<Index>,
    own: Mutex<Own>,
    flights: Mutex<HashMap<Digest, Arc<Flight>>>,
}

#[derive(Debug, Default)]
struct Index {
    segments: Vec<Arc<File>>,
    /// By the key's first eight bytes; the line itself holds the whole key, so
    /// a collision (one in 10^7 at a million entries) is a miss, not a mistake.
    places: HashMap<u64, Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u32,
    length: u32,
    offset: u64,
}

/// The segment that this process appends to.
#[derive(Debug, Default)]
struct Own {
    /// None until the first answer is written: readers need no segment.
    segment: Option<OwnSegment>,
    write_errors: u64,
    last_write_error: Option<String>,
}

#[derive(Debug)]
struct OwnSegment {
    file: Arc<File>,
    number: u32,
    length: u64,
}

/// An answer being fetched, for those who want the same one.
#[derive(Debug, Default)]
struct Flight {
    landed: Mutex<Option<Option<Completion>>>,
    bell: Condvar,
}

impl Cache {
    /// Open the cache in `dir`, making the folder if need be, and read where every answer is.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        files::create_dir(dir)?;
        let mut index = Index::default();
        // Names are time-ordered (UUID v7): the newest first, should they be too many.
        let mut paths = segments(dir)?;
        paths.reverse();
        for path in paths {
            if index.places.len() >= ENTRIES_MAX {
                break;
            }
            let file = match OpenOptions::new().read(true).open(&path) {
                Ok(file) => file,
                // Another process pruned it meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(FileError::at("open", &path)(error)),
            };
            let number = index.segments.len() as u32;
            scan(&file, number, &mut index.places).map_err(FileError::at("read", &path))?;
            index.segments.push(Arc::new(file));
        }
        Ok(Self {
            dir: dir.to_owned(),
            index: RwLock::new(index),
            own: Mutex::default(),
            flights: Mutex::default(),
        })
    }

    /// The answer kept under a key, with `cached` set.
    pub fn get(&self, key: &Digest) -> Option<Completion> {
        let short = short(key);
        let (place, file) = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            let place = *index.places.get(&short)?;
            (
                place,
                Arc::clone(index.segments.get(place.segment as usize)?),
            )
        };
        let found = read_line(&file, place).and_then(|line| parse(&line, key));
        if found.is_none() {
            // Damaged, or another key's: forget it, so that a put can replace it.
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            if index
                .places
                .get(&short)
                .is_some_and(|now| (now.segment, now.offset) == (place.segment, place.offset))
            {
                index.places.remove(&short);
            }
        }
        found
    }

    /// Keep an answer. The first under a key stays.
    pub fn put(&self, key: &Digest, completion: &Completion) -> Result<(), FileError> {
        let line = render(key, completion);
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(key).is_some() {
            return Ok(());
        }
        if own.segment.is_none() {
            own.segment = Some(self.take_segment()?);
        }
        let segment = own.segment.as_mut().expect("because it was taken just now");
        if let Err(error) = (&*segment.file).write_all(&line) {
            // A full disk leaves part of a line, which would spoil the next one.
            let _ = segment.file.set_len(segment.length);
            return Err(FileError::at("append to", &self.dir)(error));
        }
        let place = Place {
            segment: segment.number,
            length: line.len() as u32 - 1,
            offset: segment.length,
        };
        segment.length += line.len() as u64;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.places.insert(short(key), place);
        Ok(())
    }

    /// The answer under a key, or the one that `ask` gets, which is kept.
    ///
    /// While one thread asks, others with the same key wait for its answer
    /// instead of paying for their own; theirs is marked as cached. When it
    /// fails, the next of them asks.
    ///
    /// An answer that can't be written (a full disk) is returned all the same:
    /// it was paid for. [`Cache::write_trouble`] tells.
    pub fn get_or_ask<E>(
        &self,
        key: &Digest,
        ask: impl FnOnce() -> Result<Completion, E>,
    ) -> Result<Completion, E> {
        loop {
            if let Some(found) = self.get(key) {
                return Ok(found);
            }
            let (flight, leads) = match self.flights().entry(*key) {
                Entry::Occupied(flight) => (Arc::clone(flight.get()), false),
                Entry::Vacant(place) => (Arc::clone(place.insert(Arc::default())), true),
            };
            if leads {
                let landing = Landing {
                    cache: self,
                    key,
                    flight,
                };
                // Another leader may have landed between our look and our take-off.
                if let Some(found) = self.get(key) {
                    landing.land(Some(found.clone()));
                    return Ok(found);
                }
                let answer = ask()?;
                if let Err(error) = self.put(key, &answer) {
                    let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                    own.write_errors += 1;
                    own.last_write_error = Some(error.to_string());
                }
                landing.land(Some(answer.clone()));
                return Ok(answer);
            }
            if let Some(mut answer) = flight.wait() {
                answer.cached = true;
                return Ok(answer);
            }
        }
    }

    /// How many answers couldn't be written by [`Cache::get_or_ask`], and the last reason.
    pub fn write_trouble(&self) -> Option<(u64, String)> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.last_write_error
            .clone()
            .map(|reason| (own.write_errors, reason))
    }

    /// How many answers are known.
    pub fn len(&self) -> usize {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.places.len()
    }

    /// Whether no answer is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Delete the oldest segments that nobody appends to until at most `bytes_max`
    /// are left. Returns the bytes freed. Answers already indexed stay readable here.
    pub fn prune(dir: &Path, bytes_max: u64) -> Result<u64, FileError> {
        let mut sizes = Vec::new();
        for path in segments(dir)? {
            let size = std::fs::metadata(&path).map_err(FileError::at("read", &path))?;
            sizes.push((path, size.len()));
        }
        let mut total: u64 = sizes.iter().map(|(_, size)| size).sum();
        let mut freed = 0;
        for (path, size) in sizes {
            if total <= bytes_max {
                break;
            }
            let file = File::open(&path).map_err(FileError::at("open", &path))?;
            if file.try_lock().is_ok() {
                std::fs::remove_file(&path).map_err(FileError::at("delete", &path))?;
                total -= size;
                freed += size;
            }
        }
        Ok(freed)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take over a segment that nobody holds, or begin one.
    fn take_segment(&self) -> Result<OwnSegment, FileError> {
        // A new segment can be taken by another process before we lock it: it
        // needed one too, so everybody has one soon.
        for _ in 0..100 {
            for path in segments(&self.dir)?.into_iter().rev() {
                if let Some(segment) = self.try_take(&path)? {
                    return Ok(segment);
                }
            }
            let path = self.dir.join(format!("{}.seg", uuid::Uuid::now_v7()));
            files::write_new(&path, b"")?;
        }
        Err(FileError::at("lock a segment in", &self.dir)(
            std::io::ErrorKind::ResourceBusy.into(),
        ))
    }

    fn try_take(&self, path: &Path) -> Result<Option<OwnSegment>, FileError> {
        let fail = |action| FileError::at(action, path);
        let mut file = match OpenOptions::new().read(true).append(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail("open")(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(fail("lock")(error)),
        }
        if !path.exists() {
            // Pruned between opening and locking: what we'd append would vanish.
            return Ok(None);
        }
        let length = file.seek(SeekFrom::End(0)).map_err(fail("read"))?;
        if length >= SEGMENT_BYTES_MAX {
            return Ok(None);
        }
        let whole = end_of_last_line(&file, length).map_err(fail("read"))?;
        if whole < length {
            file.set_len(whole).map_err(fail("cut the torn end of"))?;
        }
        let file = Arc::new(file);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let number = index.segments.len() as u32;
        index.segments.push(Arc::clone(&file));
        Ok(Some(OwnSegment {
            file,
            number,
            length: whole,
        }))
    }
}

/// Tells those who wait how a flight ended, even when `ask` panics.
struct Landing<'a> {
    cache: &'a Cache,
    key: &'a Digest,
    flight: Arc<Flight>,
}

impl Landing<'_> {
    fn land(&self, answer: Option<Completion>) {
        let mut landed = self
            .flight
            .landed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        landed.get_or_insert(answer);
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.cache.flights().remove(self.key);
        self.land(None);
        self.flight.bell.notify_all();
    }
}

impl Flight {
    fn wait(&self) -> Option<Completion> {
        let mut landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = &*landed {
                return answer.clone();
            }
            landed = self
                .bell
                .wait(landed)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn segments(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(FileError::at("list", dir))? {
        let path = entry.map_err(FileError::at("list", dir))?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn short(key: &Digest) -> u64 {
    let bytes = key.as_bytes();
    u64::from_be_bytes(std::array::from_fn(|index| bytes[index]))
}

fn checksum(key: &str, json: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(KEY + json.len());
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(json);
    let mut hex = Digest::of(&bytes).hex();
    hex.truncate(CHECKSUM);
    hex
}

fn render(key: &Digest, completion: &Completion) -> Vec<u8> {
    let key = key.hex();
    let json =
        serde_json::to_vec(completion).expect("because a completion has string keys and no floats");
    let mut line = Vec::with_capacity(HEAD + json.len() + 1);
    line.extend_from_slice(key.as_bytes());
    line.push(b' ');
    line.extend_from_slice(checksum(&key, &json).as_bytes());
    line.push(b' ');
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

fn parse(line: &[u8], key: &Digest) -> Option<Completion> {
    let key = key.hex();
    let json = line.get(HEAD..)?;
    if &line[..KEY] != key.as_bytes()
        || line[KEY + 1..KEY + 1 + CHECKSUM] != *checksum(&key, json).as_bytes()
    {
        return None;
    }
    let mut completion: Completion = serde_json::from_slice(json).ok()?;
    completion.cached = true;
    Some(completion)
}

fn read_line(file: &File, place: Place) -> Option<Vec<u8>> {
    let mut line = vec![0; place.length as usize];
    file.read_exact_at(&mut line, place.offset).ok()?;
    Some(line)
}

/// Note where every whole line is whose checksum is right.
fn scan(file: &File, segment: u32, places: &mut HashMap<u64, Place>) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut offset = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut length = 0_u64;
        // Damage can join lines into a very long one, which is passed over, not kept.
        let whole = loop {
            let chunk = reader.fill_buf()?;
            if chunk.is_empty() {
                break false;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            length += part.len() as u64;
            if length <= LINE_BYTES_MAX {
                line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            reader.consume(used);
            if end.is_some() {
                break true;
            }
        };
        if !whole {
            // Torn, or being written right now.
            return Ok(());
        }
        if length <= LINE_BYTES_MAX
            && let Some(short) = verified(&line)
        {
            places.entry(short).or_insert(Place {
                segment,
                length: length as u32,
                offset,
            });
        }
        offset += length + 1;
    }
}

/// The start of a line's key, when the line is undamaged.
fn verified(line: &[u8]) -> Option<u64> {
    let json = line.get(HEAD..)?;
    let key = std::str::from_utf8(&line[..KEY]).ok()?;
    if line[KEY + 1..KEY + 1 + CHECKSUM] != *checksum(key, json).as_bytes() {
        return None;
    }
    u64::from_str_radix(key.get(..16)?, 16).ok()
}

fn end_of_last_line(file: &File, length: u64) -> std::io::Result<u64> {
    let mut end = length;
    let mut buffer = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let chunk = &mut buffer[..(end - start) as usize];
        file.read_exact_at(chunk, start)?;
        if let Some(newline) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
