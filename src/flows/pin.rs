//! Putting the pin of the root policy into `proofline.toml`: a new file with
//! comments, or a few lines into the one that is there, every other byte kept.
//!
//! An edit is checked by reading the result: it must say what the file said
//! before and the new values, and nothing else. Where it does not (a table in an
//! unusual form), the file stays as it is and the user is shown the lines.

use serde_json::{Map, Value, json};

use crate::id::Digest;
use crate::schema;

use super::FlowError;
use super::project::FILE;

/// What shall stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin<'a> {
    /// Digest of the root policy.
    pub root: &'a Digest,
    /// First part of every branch, when it is not the default.
    pub prefix: Option<&'a str>,
    /// The remote that `control` and `ledger` are shared through.
    pub remote: Option<&'a str>,
}

/// The file for a repository that has none.
pub fn new_file(pin: &Pin<'_>) -> String {
    let prefix = pin.prefix.unwrap_or("proofline");
    let remote = match pin.remote {
        Some(remote) => format!("remote = {}", quoted(remote)),
        None => "# remote = \"origin\"".to_owned(),
    };
    let refs = match pin.prefix {
        Some(prefix) => format!("[refs]\nprefix = {}", quoted(prefix)),
        None => "# [refs]\n# prefix = \"proofline\"".to_owned(),
    };
    format!(
        r#"# How Proofline works in this repository. Commit this file with your code.
schema = "proofline/project/v1"

# The git remote that policy, promotions and the holdout ledger are shared through:
# a step on them counts only once the remote has it. Without one they stay in this clone.
{remote}

# Where the signature files are, relative to this file.
signatures = ["signatures/*.yaml"]

[control]
# The digest of the first policy epoch, `{prefix}/control:policy/1.yaml`. All trust in keys,
# roles and promotions starts here: compare it with your team's, and never edit it by hand.
root = {root}

# The first part of every branch of ours.
{refs}

# How models are asked, by name. API keys come from the environment, never from this file.
# [models.main]
# kind = "openai"
# base_url = "https://api.example.com/v1"
# model = "small-2"
# api_key_env = "EXAMPLE_API_KEY"

# Commands that are evidence: `verify` runs before anything is searched, `e2e` with the
# candidate before it comes into force.
# [[commands.verify]]
# name = "tests"
# argv = ["make", "test"]
"#,
        root = quoted(&pin.root.to_string()),
    )
}

/// The file's text with the pin in it; `None` when all of it is there already.
pub fn insert(text: &str, pin: &Pin<'_>) -> Result<Option<String>, FlowError> {
    let mut wanted = vec![(Some("control"), "root", pin.root.to_string())];
    wanted.extend(
        pin.prefix
            .map(|prefix| (Some("refs"), "prefix", prefix.to_owned())),
    );
    wanted.extend(pin.remote.map(|remote| (None, "remote", remote.to_owned())));
    let mut edited = text.to_owned();
    for (table, key, value) in wanted {
        let mut expected = parsed(&edited)?;
        match member(&mut expected, table).insert(key.to_owned(), json!(value)) {
            Some(there) if there == json!(value) => continue,
            Some(there) => return Err(conflict(table, key, &there, &value)),
            None => {}
        }
        edited = match table {
            Some(table) => into_table(&edited, table, key, &value),
            None => before_tables(&edited, key, &value),
        };
        if parsed(&edited).ok() != Some(expected) {
            return Err(by_hand(table, key, &value));
        }
    }
    Ok((edited != text).then_some(edited))
}

fn parsed(text: &str) -> Result<Map<String, Value>, FlowError> {
    match schema::toml::parse(FILE, text)?.value {
        Value::Object(members) => Ok(members),
        other => Err(FlowError::bug(format!("TOML was read as {other}"))),
    }
}

fn member<'a>(
    members: &'a mut Map<String, Value>,
    table: Option<&str>,
) -> &'a mut Map<String, Value> {
    let Some(table) = table else { return members };
    let entry = members
        .entry(table.to_owned())
        .or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    entry
        .as_object_mut()
        .expect("because anything else was replaced by an object")
}

fn lines_of(table: Option<&str>, key: &str, value: &str) -> String {
    let line = format!("{key} = {}", quoted(value));
    match table {
        Some(table) => format!("[{table}]\n{line}"),
        None => line,
    }
}

fn conflict(table: Option<&str>, key: &str, there: &Value, value: &str) -> FlowError {
    let name = match table {
        Some(table) => format!("{table}.{key}"),
        None => key.to_owned(),
    };
    let error = FlowError::input(format!(
        "{FILE} says `{name} = {there}`, and it would have to be {}; it is not overwritten",
        quoted(value)
    ));
    match key {
        "root" => error.hint("a changed pin changes whom everything is trusted from: find out which root is the team's"),
        _ => error,
    }
}

fn by_hand(table: Option<&str>, key: &str, value: &str) -> FlowError {
    FlowError::input(format!(
        "{FILE} is written in a form that is not edited without risk to the rest of it"
    ))
    .hint(format!(
        "add this to it yourself, and run `proofline init` again:\n{}",
        lines_of(table, key, value)
    ))
}

fn quoted(text: &str) -> String {
    // TOML's basic strings take JSON's escapes.
    json!(text).to_string()
}

fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// The name in a table's header line.
fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    let inside = line.strip_prefix('[')?;
    let (name, rest) = inside.split_once(']')?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then(|| name.trim())
}

/// A line below the table's header; the table at the end when there is none.
fn into_table(text: &str, table: &str, key: &str, value: &str) -> String {
    let end = line_end(text);
    let entry = format!("{key} = {}", quoted(value));
    let mut out = String::with_capacity(text.len() + entry.len() + 80);
    let mut done = false;
    for line in text.split_inclusive('\n') {
        out.push_str(line);
        if !done && header(line) == Some(table) {
            if !line.ends_with('\n') {
                out.push_str(end);
            }
            out.push_str(&entry);
            out.push_str(end);
            done = true;
        }
    }
    if !done {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push_str(end);
        }
        if !out.is_empty() {
            out.push_str(end);
        }
        for line in lines_of(Some(table), key, value).lines() {
            out.push_str(line);
            out.push_str(end);
        }
    }
    out
}

/// A line before the first table, where members of the whole file must stand, and
/// before the comment that belongs to that table.
fn before_tables(text: &str, key: &str, value: &str) -> String {
    let end = line_end(text);
    let entry = format!("{key} = {}{end}", quoted(value));
    let starts = text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    });
    let mut comment = None;
    for (start, line) in starts {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.starts_with('[') {
            let at = comment.unwrap_or(start);
            return format!("{}{entry}{end}{}", &text[..at], &text[at..]);
        }
        comment = match line.starts_with('#') {
            true => comment.or(Some(start)),
            false => None,
        };
    }
    let gap = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        end
    };
    format!("{text}{gap}{entry}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::Project;

    fn root() -> Digest {
        Digest::of(b"root")
    }

    fn pin<'a>(root: &'a Digest, prefix: Option<&'a str>, remote: Option<&'a str>) -> Pin<'a> {
        Pin {
            root,
            prefix,
            remote,
        }
    }

    #[test]
    fn a_new_file_is_read_as_it_was_meant() {
        let root = root();
        for (prefix, remote) in [(None, None), (Some("team/pl"), Some("origin"))] {
            let text = new_file(&pin(&root, prefix, remote));
            let project = Project::parse(FILE, text.into_bytes()).expect("valid");
            assert_eq!(project.control.root, Some(root));
            assert_eq!(project.remote.as_deref(), remote);
            assert_eq!(project.refs.prefix, prefix.unwrap_or("proofline"));
        }
    }

    #[test]
    fn every_other_byte_is_kept() {
        let root = root();
        let all = pin(&root, Some("team"), Some("origin"));
        let line = format!("root = \"{root}\"");
        for text in [
            "",
            "# a comment at the end, without a line end",
            "signatures = [\"a/*.yaml\"] # mine\n",
            "[control]\n# empty\n",
            "  [ control ]  # mine\n\n[models.x]\nkind = \"lexical\"\n",
            "[models.x]\r\nkind = \"lexical\"\r\n",
            "\n# about models\n[models.x]\nkind = \"lexical\"\n[control]",
            "[[commands.verify]]\nname = \"a\"\nargv = [\"true\"]\n",
            "[refs]\n# none yet\n",
        ] {
            let edited = insert(text, &all)
                .expect(text)
                .expect("something was missing");
            assert_eq!(edited.contains("\r\n"), text.contains("\r\n"), "{text:?}");
            // Every line of the original is there, in order, and the new ones are the rest.
            let mut lines = edited.lines();
            for old in text.lines() {
                assert!(
                    lines.any(|line| line == old),
                    "{text:?} lost {old:?}:\n{edited}"
                );
            }
            assert_eq!(edited.lines().filter(|found| *found == line).count(), 1);
            assert_eq!(insert(&edited, &all).expect("again"), None, "{text:?}");
        }
    }

    #[test]
    fn what_would_be_lost_or_contradicted_is_refused() {
        let root = root();
        let other = Digest::of(b"other");
        for (text, what) in [
            (
                format!("[control]\nroot = \"{other}\"\n"),
                "not overwritten",
            ),
            (format!("control.root = \"{other}\"\n"), "not overwritten"),
            ("control = {}\n".to_owned(), "without risk"),
            ("remote = \"upstream\"\n".to_owned(), "not overwritten"),
            // A line of a text that looks like a header.
            (
                "[models.x]\nmodel = '''\n[control]\n'''\n".to_owned(),
                "without risk",
            ),
            ("[control\n".to_owned(), "fault"),
        ] {
            let error = insert(&text, &pin(&root, None, Some("origin"))).expect_err(&text);
            assert!(error.message.contains(what), "{text:?}: {}", error.message);
        }
    }
}
