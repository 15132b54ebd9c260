//! The allowed_signers file of `ssh-keygen -Y verify` (ssh-keygen(1), ALLOWED
//! SIGNERS), so that anyone can check our seals with OpenSSH alone.
//!
//! Only what can be read in one way is parsed: exact principals and
//! namespaces (no patterns), times in UTC, no certificate authorities.

use std::fmt;

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

use super::keys::PublicKey;

/// One line: who may seal with which key, for what, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedSigner {
    /// Names of the key's owner; at least one.
    pub principals: Vec<String>,
    /// What the key may seal; empty for anything.
    pub namespaces: Vec<String>,
    /// From this second on.
    pub valid_after: Option<Timestamp>,
    /// Up to and including this second.
    pub valid_before: Option<Timestamp>,
    /// The key.
    pub key: PublicKey,
}

/// A line that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allowed_signers line {line}: {reason}")]
pub struct AllowedSignersError {
    /// Which line, from one.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl AllowedSigner {
    /// A key that may seal at any time.
    pub fn new<P: Into<String>, N: Into<String>>(
        principals: impl IntoIterator<Item = P>,
        key: PublicKey,
        namespaces: impl IntoIterator<Item = N>,
    ) -> Self {
        Self {
            principals: principals.into_iter().map(Into::into).collect(),
            namespaces: namespaces.into_iter().map(Into::into).collect(),
            valid_after: None,
            valid_before: None,
            key,
        }
    }

    /// Whether this line lets the principal seal for the namespace at the time.
    pub fn allows(&self, principal: &str, namespace: &str, at: Timestamp) -> bool {
        self.principals.iter().any(|p| p == principal)
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace))
            && self.valid_after.is_none_or(|after| at >= after)
            && self.valid_before.is_none_or(|before| at <= before)
    }
}

impl fmt::Display for AllowedSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options = Vec::new();
        if !self.namespaces.is_empty() {
            options.push(format!("namespaces=\"{}\"", self.namespaces.join(",")));
        }
        let time = |at: Timestamp| at.strftime("%Y%m%d%H%M%SZ").to_string();
        if let Some(after) = self.valid_after {
            options.push(format!("valid-after=\"{}\"", time(after)));
        }
        if let Some(before) = self.valid_before {
            options.push(format!("valid-before=\"{}\"", time(before)));
        }
        f.write_str(&self.principals.join(","))?;
        if !options.is_empty() {
            write!(f, " {}", options.join(","))?;
        }
        write!(f, " {}", self.key)
    }
}

/// The file's text. What would not read back as it is refused, by its place in the list.
pub fn render(signers: &[AllowedSigner]) -> Result<String, AllowedSignersError> {
    let mut text = String::new();
    for signer in signers {
        text.push_str(&signer.to_string());
        text.push('\n');
    }
    // A name with a comma or a quote in it would mean something else to its reader.
    let read = parse(&text)?;
    match (0..signers.len().max(read.len())).find(|&i| signers.get(i) != read.get(i)) {
        None => Ok(text),
        Some(index) => Err(AllowedSignersError {
            line: index + 1,
            reason: "a principal, namespace or time can't be written so that it reads back"
                .to_owned(),
        }),
    }
}

/// Parse the file; blank lines and lines that start with `#` are skipped.
pub fn parse(text: &str) -> Result<Vec<AllowedSigner>, AllowedSignersError> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            parse_line(line).map_err(|reason| AllowedSignersError {
                line: index + 1,
                reason,
            })
        })
        .collect()
}

fn parse_line(line: &str) -> Result<AllowedSigner, String> {
    if line.contains('\t') {
        return Err("fields are separated by spaces, not tabs".to_owned());
    }
    let (principals, rest) = line.split_once(' ').ok_or("there is no key")?;
    let mut signer = Options::default();
    let rest = rest.trim_start_matches(' ');
    // A key line starts with its algorithm; otherwise options come first, as in authorized_keys.
    let (options, key) = match PublicKey::parse_line(rest) {
        Ok((key, _)) => ("", key),
        Err(error) => match split_options(rest) {
            Some((options, key)) => (options, key.parse().map_err(|e| format!("{e}"))?),
            None => return Err(error.to_string()),
        },
    };
    signer.read(options)?;
    Ok(AllowedSigner {
        principals: names(principals, "principal")?,
        namespaces: signer.namespaces.unwrap_or_default(),
        valid_after: signer.valid_after,
        valid_before: signer.valid_before,
        key,
    })
}

/// Split at the first space outside quotes, if what comes before it looks like options.
fn split_options(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let end = text.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b' ' && !quoted
    })?;
    let (options, key) = text.split_at(end);
    let looks = options.contains('=') || options.eq_ignore_ascii_case("cert-authority");
    looks.then(|| (options, key.trim_start_matches(' ')))
}

#[derive(Default)]
struct Options {
    namespaces: Option<Vec<String>>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Options {
    fn read(&mut self, mut text: &str) -> Result<(), String> {
        while !text.is_empty() {
            let Some((name, rest)) = text.split_once("=\"") else {
                return Err(refused_option(text));
            };
            let (value, rest) = rest
                .split_once('"')
                .ok_or_else(|| format!("the quotes of `{name}` are not closed"))?;
            match name {
                "namespaces" if self.namespaces.is_none() => {
                    self.namespaces = Some(names(value, "namespace")?);
                }
                "valid-after" if self.valid_after.is_none() => {
                    self.valid_after = Some(time(value)?);
                }
                "valid-before" if self.valid_before.is_none() => {
                    self.valid_before = Some(time(value)?);
                }
                "namespaces" | "valid-after" | "valid-before" => {
                    return Err(format!("`{name}` is given twice"));
                }
                _ => return Err(refused_option(name)),
            }
            text = match rest.strip_prefix(',') {
                Some("") => return Err("the options end in a comma".to_owned()),
                Some(more) => more,
                None if rest.is_empty() => rest,
                None => return Err(format!("something follows the quotes of `{name}`")),
            };
        }
        if let (Some(after), Some(before)) = (self.valid_after, self.valid_before)
            && after >= before
        {
            return Err("`valid-before` is not later than `valid-after`".to_owned());
        }
        Ok(())
    }
}

fn refused_option(text: &str) -> String {
    let name = text.split([',', '=']).next().unwrap_or(text);
    if name.eq_ignore_ascii_case("cert-authority") {
        "`cert-authority` moves trust to keys that are not listed; list each key".to_owned()
    } else {
        format!(
            "unknown option `{name}`; known are namespaces=\"…\", valid-after=\"…\", valid-before=\"…\""
        )
    }
}

fn names(text: &str, what: &str) -> Result<Vec<String>, String> {
    text.split(',')
        .map(|name| {
            if name.is_empty() {
                Err(format!("an empty {what}"))
            } else if name.contains(['*', '?', '!']) {
                Err(format!(
                    "{what} `{name}` is a pattern; only exact names are read"
                ))
            } else if name.contains(['"', '\\', '#', ' ']) || name.chars().any(char::is_control) {
                Err(format!(
                    "{what} `{}` has a quote, `\\`, `#` or space in it",
                    name.escape_debug()
                ))
            } else {
                Ok(name.to_owned())
            }
        })
        .collect()
}

/// `YYYYMMDDZ`, `YYYYMMDDHHMMZ` or `YYYYMMDDHHMMSSZ`.
fn time(text: &str) -> Result<Timestamp, String> {
    let fail = || {
        format!(
            "`{text}` is not a time such as 20261121Z or 20261121093000Z (UTC; without the Z it would depend on the machine)"
        )
    };
    let digits = text.strip_suffix('Z').ok_or_else(fail)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return Err(fail());
    }
    let part = |from: usize, to: usize| -> i16 {
        let digits = digits.get(from..to).unwrap_or("0");
        digits.parse().expect("because at most four digits fit")
    };
    let small = |from| part(from, from + 2) as i8;
    let at = civil::DateTime::new(
        part(0, 4),
        small(4),
        small(6),
        small(8),
        small(10),
        small(12),
        0,
    )
    .map_err(|_| fail())?;
    let at = at.to_zoned(TimeZone::UTC).map_err(|_| fail())?;
    Ok(at.timestamp())
}
