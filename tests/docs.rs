//! The documents are true: what they show runs as shown, what they name exists.
//!
//! A fenced block marked `console` in README.md or docs/*.md is a session: lines
//! that begin with `$ ` are commands (continued on lines that begin with `> `),
//! a line `? 3` is the exit code when it is not 0, and everything else is what
//! the command prints, standard output and standard error together. `[..]`
//! stands for any text within a line, a line `...` for any number of lines. A
//! command `cd FOLDER` lasts until the next set-up.
//!
//! Sessions run in a folder of their own with the real binary on the path, a
//! fixed time and identity, and nobody's git configuration. Two comments, which
//! readers don't see, prepare it:
//!
//! - `<!-- setup: NAME -->`: a new folder made by [`set_up`]; the sessions after it share it.
//! - `<!-- file: PATH -->`: the fenced block that follows is written to PATH.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use regex::Regex;
use tempfile::TempDir;

const NOW: &str = "2026-11-21T22:00:00Z";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README.md and docs/*.md: what users read, and where sessions are.
fn guides() -> Vec<String> {
    let mut names = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).expect("docs/ is there") {
        let name = entry.expect("docs/ is readable").file_name();
        let name = name.to_str().expect("a document's name is text").to_owned();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names
}

/// The guides, and what those who work on the project read.
fn documents() -> Vec<String> {
    let house = [
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SHORTCOMINGS.md",
    ];
    guides()
        .into_iter()
        .chain(house.map(str::to_owned))
        .collect()
}

// ---------------------------------------------------------------------------
// Sessions

#[derive(Debug)]
enum Piece {
    SetUp(String),
    File(String, String),
    Command(Shown),
}

/// A command as a document shows it.
#[derive(Debug)]
struct Shown {
    line: usize,
    command: String,
    exit: i32,
    output: Vec<String>,
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut file: Option<String> = None;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let comment = |key: &str| {
            let rest = line
                .trim()
                .strip_prefix("<!--")?
                .strip_suffix("-->")?
                .trim();
            Some(rest.strip_prefix(key)?.trim().to_owned())
        };
        if let Some(name) = comment("setup:") {
            pieces.push(Piece::SetUp(name));
        } else if let Some(path) = comment("file:") {
            file = Some(path);
        } else if let Some(language) = line.strip_prefix("```") {
            let body: Vec<(usize, &str)> = lines
                .by_ref()
                .take_while(|(_, line)| !line.starts_with("```"))
                .collect();
            if let Some(path) = file.take() {
                let text: String = body.iter().map(|(_, line)| format!("{line}\n")).collect();
                pieces.push(Piece::File(path, text));
            } else if language == "console" {
                let session = session(&body);
                assert!(
                    !session.is_empty(),
                    "line {}: a session without `$ `",
                    number + 1
                );
                pieces.extend(session.into_iter().map(Piece::Command));
            }
        }
    }
    pieces
}

fn session(body: &[(usize, &str)]) -> Vec<Shown> {
    let mut session: Vec<Shown> = Vec::new();
    let mut continues = false;
    for (number, line) in body {
        let line = line.trim_end();
        if let Some(command) = line.strip_prefix("$ ") {
            session.push(Shown {
                line: number + 1,
                command: command.to_owned(),
                exit: 0,
                output: Vec::new(),
            });
        } else if let Some(last) = session.last_mut() {
            if continues {
                let more = line
                    .strip_prefix("> ")
                    .expect("a continued command goes on with `> `");
                last.command = format!("{}\n{more}", last.command);
            } else if let Some(code) = line.strip_prefix("? ") {
                last.exit = code.parse().expect("`? ` is followed by an exit code");
            } else {
                last.output.push(line.to_owned());
            }
        }
        continues = (line.starts_with("$ ") || continues) && line.ends_with('\\');
    }
    for shown in &mut session {
        trim_end(&mut shown.output);
    }
    session
}

fn trim_end(lines: &mut Vec<String>) {
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
}

/// Whether lines are as expected; see the module's documentation for the wildcards.
fn matches(expected: &[String], found: &[String]) -> bool {
    match expected.split_first() {
        None => found.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=found.len()).any(|skipped| matches(rest, &found[skipped..]))
        }
        Some((first, rest)) => found
            .split_first()
            .is_some_and(|(line, others)| line_matches(first, line) && matches(rest, others)),
    }
}

fn line_matches(expected: &str, found: &str) -> bool {
    let mut parts = expected.split("[..]");
    let first = parts.next().expect("a text has a first part");
    let Some(mut rest) = found.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A folder that sessions run in, with a home of its own.
struct Place {
    folder: TempDir,
    /// Where the next command runs, relative to [`Place::work`]: `cd` lasts.
    at: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("proofline-docs-")
            .tempdir()
            .expect("a folder");
        fs::create_dir(folder.path().join("home")).expect("a home");
        fs::create_dir(folder.path().join("demo")).expect("a place to work");
        Self {
            folder,
            at: PathBuf::new(),
        }
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("demo")
    }

    fn run(&self, script: &str) -> Output {
        let binary = Path::new(env!("CARGO_BIN_EXE_proofline"));
        let mut path = binary
            .parent()
            .expect("a binary is in a folder")
            .as_os_str()
            .to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Command::new("sh")
            .args(["-c", &format!("exec 2>&1\n{script}")])
            .current_dir(self.work().join(&self.at))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.folder.path().join("home"))
            .env("TMPDIR", self.folder.path())
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_PAGER", "cat")
            .env("GIT_AUTHOR_DATE", NOW)
            .env("GIT_COMMITTER_DATE", NOW)
            .env("PROOFLINE_NOW", NOW)
            .output()
            .expect("sh starts")
    }

    /// Prepare something; it must succeed.
    fn prepare(&self, script: &str) {
        let done = self.run(&format!("set -e\n{script}"));
        assert!(
            done.status.success(),
            "`{script}` failed:\n{}",
            String::from_utf8_lossy(&done.stdout)
        );
    }
}

/// The folders that documents ask for by name.
fn set_up(name: &str) -> Place {
    const REPOSITORY: &str = "git init -q -b main
        git config user.name 'Ada Example'
        git config user.email ada@example.com";
    let place = Place::new();
    match name {
        "nothing" => {}
        // A repository with a first commit and no signature.
        "repository" => {
            place.prepare(&format!(
                "{REPOSITORY}\necho '# demo' > README.md\ngit add .\ngit commit -qm first"
            ));
        }
        // The same with the quickstart's signature.
        "signature" => {
            place.prepare(&format!("{REPOSITORY}\nmkdir signatures"));
            fs::write(
                place.work().join("signatures/SelectTool.v1.yaml"),
                read("templates/quickstart/signatures/SelectTool.v1.yaml"),
            )
            .expect("the signature is copied");
            place.prepare("git add .\ngit commit -qm 'a signature'");
        }
        // What the quickstart leaves behind; made once, because it runs two nights.
        "quickstart" => {
            static MADE: OnceLock<Place> = OnceLock::new();
            let made = MADE.get_or_init(|| {
                let made = Place::new();
                made.prepare("proofline --quiet quickstart \"$PWD\"");
                made
            });
            place.prepare(&format!("cp -a '{}/.' .", made.work().display()));
        }
        other => panic!("no set-up is called `{other}`"),
    }
    place
}

#[test]
fn sessions_run_as_shown() {
    let guides = guides();
    // Documents don't share folders, and a set-up that is made once is waited for.
    let told: Vec<(usize, String)> = std::thread::scope(|scope| {
        let told: Vec<_> = guides
            .iter()
            .map(|name| scope.spawn(|| play(name)))
            .collect();
        told.into_iter()
            .map(|thread| thread.join().expect("a document can be read"))
            .collect()
    });
    let commands: usize = told.iter().map(|(commands, _)| commands).sum();
    let faults: String = told.into_iter().map(|(_, faults)| faults).collect();
    assert!(faults.is_empty(), "{faults}");
    assert!(commands > 0, "the test no longer finds sessions");
}

/// Run a document's sessions: how many commands there were, and what went otherwise than shown.
fn play(name: &str) -> (usize, String) {
    let mut faults = String::new();
    let mut commands = 0;
    let mut place = None;
    for piece in pieces(&read(name)) {
        match piece {
            Piece::SetUp(set) => place = Some(set_up(&set)),
            Piece::File(path, text) => {
                let place = place.get_or_insert_with(|| set_up("nothing"));
                let path = place.work().join(path);
                fs::create_dir_all(path.parent().expect("a file is in a folder"))
                    .expect("a folder");
                fs::write(path, text).expect("a document's file is written");
            }
            Piece::Command(shown) => {
                commands += 1;
                let place = place.get_or_insert_with(|| set_up("nothing"));
                if let Some(folder) = shown.command.strip_prefix("cd ") {
                    place.at.push(folder);
                    continue;
                }
                let done = place.run(&shown.command);
                let text = String::from_utf8_lossy(&done.stdout);
                let mut found: Vec<String> = text
                    .lines()
                    .map(|line| line.trim_end().to_owned())
                    .collect();
                trim_end(&mut found);
                let exit = done.status.code().unwrap_or(-1);
                if exit != shown.exit || !matches(&shown.output, &found) {
                    let _ = writeln!(
                        faults,
                        "\n{name}:{}: `{}` is shown with exit code {} and\n{}\nbut ended with {exit} and\n{}",
                        shown.line,
                        shown.command,
                        shown.exit,
                        indented(&shown.output),
                        indented(&found)
                    );
                }
            }
        }
    }
    (commands, faults)
}

fn indented(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn wildcards_stand_for_text_and_lines() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let table = [
        ("a\nb", "a\nb", true),
        ("a", "a\nb", false),
        ("a\n...", "a\nb\nc", true),
        ("...\nc", "a\nb\nc", true),
        ("...\nb", "a\nb\nc", false),
        ("a [..] c", "a b b c", true),
        ("a [..]", "a ", true),
        ("[..]x[..]", "axb", true),
        ("a[..]b", "ab", true),
        ("ab[..]b", "ab", false),
    ];
    for (expected, found, outcome) in table {
        assert_eq!(
            matches(&lines(expected), &lines(found)),
            outcome,
            "{expected:?} {found:?}"
        );
    }
}

// ---------------------------------------------------------------------------
// What is named exists

/// Code in a document: spans between backticks, and lines of fenced blocks.
fn code(text: &str) -> Vec<String> {
    let span = Regex::new("`([^`]+)`").expect("a pattern");
    let mut code = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            code.push(line.to_owned());
        } else {
            code.extend(span.captures_iter(line).map(|found| found[1].to_owned()));
        }
    }
    code
}

/// The subcommands that a help page lists.
fn listed(arguments: &[&str]) -> BTreeSet<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_proofline"))
        .args(arguments)
        .arg("--help")
        .output()
        .expect("the binary starts");
    let help = String::from_utf8(help.stdout).expect("help is text");
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn every_verb_named_is_there_or_said_to_be_missing() {
    let verb =
        Regex::new(r"(?:^|[^\w/-])proofline (?:--\S+ )*([a-z][a-z-]*)(?: ([a-z][a-z-]*)\b)?")
            .expect("a pattern");
    let shortcomings = read("SHORTCOMINGS.md");
    let missing: BTreeSet<String> = shortcomings
        .split("\n## ")
        .filter(|section| section.starts_with("Not there yet"))
        .flat_map(code)
        .filter_map(|code| code.strip_prefix("proofline ").map(str::to_owned))
        .collect();
    let verbs = listed(&[]);
    assert!(verbs.len() > 5, "help lists verbs: {verbs:?}");
    let mut deeper: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut faults = Vec::new();
    for name in documents() {
        for code in code(&read(&name)) {
            for found in verb.captures_iter(&code) {
                let first = &found[1];
                if !verbs.contains(first) {
                    if !missing.contains(first) {
                        faults.push(format!("{name}: `{code}`: there is no `proofline {first}`"));
                    }
                    continue;
                }
                let below = deeper
                    .entry(first.to_owned())
                    .or_insert_with(|| listed(&[first]));
                if let Some(second) = found.get(2).map(|second| second.as_str())
                    && !below.is_empty()
                    && !below.contains(second)
                    && !missing.contains(&format!("{first} {second}"))
                {
                    faults.push(format!(
                        "{name}: `{code}`: there is no `proofline {first} {second}`"
                    ));
                }
            }
        }
    }
    for gap in &missing {
        let words: Vec<&str> = gap.split(' ').collect();
        let there = match words[..] {
            [first] => verbs.contains(first),
            [first, second, ..] => verbs.contains(first) && listed(&[first]).contains(second),
            [] => false,
        };
        if there {
            faults.push(format!(
                "SHORTCOMINGS.md: `proofline {gap}` is there now; strike it"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    let mut faults = Vec::new();
    for name in documents() {
        let text = read(&name);
        let folder = root()
            .join(&name)
            .parent()
            .expect("a document is in a folder")
            .to_owned();
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.starts_with("http") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                root().join(&name)
            } else {
                folder.join(path)
            };
            if !path.exists() {
                faults.push(format!("{name}: {target} is not there"));
            } else if !anchor.is_empty()
                && !anchors(&fs::read_to_string(&path).expect("a document")).contains(anchor)
            {
                faults.push(format!("{name}: {target}: no such heading"));
            }
        }
    }
    let readme = read("README.md");
    for guide in guides() {
        if guide != "README.md" && !readme.contains(&format!("({guide})")) {
            faults.push(format!("README.md has no link to {guide}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Headings as links name them.
fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let declared: BTreeSet<String> = ["dependencies", "dev-dependencies"]
        .iter()
        .filter_map(|table| manifest.get(*table)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect();
    let architecture = read("ARCHITECTURE.md");
    let section = architecture
        .split("\n## ")
        .find(|section| section.starts_with("Dependencies"))
        .expect("ARCHITECTURE.md has a section on dependencies");
    let row = Regex::new(r"(?m)^\| `([A-Za-z0-9_-]+)` \| \S").expect("a pattern");
    let explained: BTreeSet<String> = row
        .captures_iter(section)
        .map(|found| found[1].to_owned())
        .collect();
    let without: Vec<_> = declared.difference(&explained).collect();
    let gone: Vec<_> = explained.difference(&declared).collect();
    assert!(
        without.is_empty() && gone.is_empty(),
        "ARCHITECTURE.md gives no reason for {without:?}, and a reason for {gone:?}, which are not in Cargo.toml"
    );
}

#[test]
fn every_dependency_is_used() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let sources = |folders: &[&str]| -> String {
        let files = folders
            .iter()
            .flat_map(|folder| walkdir::WalkDir::new(root().join(folder)));
        files
            .map(|entry| entry.expect("sources are readable").into_path())
            .filter(|path| path.extension().is_some_and(|end| end == "rs"))
            .map(|path| fs::read_to_string(path).expect("a source is text"))
            .collect()
    };
    let mut unused = Vec::new();
    for (table, folders) in [
        ("dependencies", &["src"][..]),
        ("dev-dependencies", &["src", "tests", "benches", "examples"]),
    ] {
        let text = sources(folders);
        for name in manifest[table]
            .as_table()
            .expect("a table of dependencies")
            .keys()
        {
            let used = format!(r"\b{}\s*(::|;)", name.replace('-', "_"));
            if !Regex::new(&used).expect("a pattern").is_match(&text) {
                unused.push(name.clone());
            }
        }
    }
    assert!(
        unused.is_empty(),
        "nothing uses {unused:?}; take them out of Cargo.toml"
    );
}

#[test]
fn the_code_map_has_every_folder() {
    let architecture = read("ARCHITECTURE.md");
    let mut faults = Vec::new();
    for entry in fs::read_dir(root().join("src")).expect("src is there") {
        let entry = entry.expect("src is readable");
        let name = entry.file_name().into_string().expect("a name is text");
        let shown = if entry.path().is_dir() {
            format!("`{name}/`")
        } else {
            format!("`{name}`")
        };
        if !["lib.rs", "main.rs"].contains(&name.as_str()) && !architecture.contains(&shown) {
            faults.push(shown);
        }
    }
    assert!(
        faults.is_empty(),
        "ARCHITECTURE.md's code map lacks {faults:?}"
    );
}

#[test]
fn every_lexical_knob_is_explained_with_its_default() {
    let knobs = proofline::models::lexical::Knobs::default();
    let knobs = serde_json::to_value(knobs).expect("knobs are plain data");
    let page = read("docs/lexical.md");
    let mut faults = Vec::new();
    for (name, default) in knobs.as_object().expect("knobs are an object") {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")));
        match row {
            None => faults.push(format!("no row for `{name}`")),
            Some(row) if !row.contains(&format!("| `{default}` |")) => {
                faults.push(format!("`{name}`: the default is {default}"));
            }
            Some(_) => {}
        }
    }
    assert!(faults.is_empty(), "docs/lexical.md: {}", faults.join("; "));
}

/// The names of all properties in a schema, at any depth.
fn properties(schema: &serde_json::Value, into: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(members) => {
            for (key, value) in members {
                // A sample may hold anything, a user's own schema included.
                if key == "examples" {
                    continue;
                }
                if let ("properties", Some(fields)) = (key.as_str(), value.as_object()) {
                    into.extend(fields.keys().cloned());
                }
                properties(value, into);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| properties(item, into)),
        _ => {}
    }
}

#[test]
fn every_field_a_user_writes_is_explained() {
    // Which documents explain which schema's fields.
    let table = [
        (
            "schemas/signature/v1.json",
            &["docs/signature-files.md", "docs/lexical.md"][..],
        ),
        (
            "schemas/project/v1.json",
            &["docs/models.md", "docs/nights.md"][..],
        ),
        (
            "schemas/policy/v1.json",
            &["docs/proof.md", "docs/git-layout.md"][..],
        ),
    ];
    let mut faults = Vec::new();
    for (schema, pages) in table {
        let value: serde_json::Value =
            serde_json::from_str(&read(schema)).expect("a schema is JSON");
        let mut fields = BTreeSet::new();
        properties(&value, &mut fields);
        assert!(fields.len() > 5, "{schema}: {fields:?}");
        let text: String = pages
            .iter()
            .flat_map(|page| code(&read(page)))
            .map(|code| code + "\n")
            .collect();
        for field in fields {
            let word = Regex::new(&format!(r"(^|[^\w-]){}([^\w-]|$)", regex::escape(&field)))
                .expect("a pattern");
            if !text.lines().any(|line| word.is_match(line)) {
                faults.push(format!("{schema}: `{field}` is in none of {pages:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_exit_code_is_explained() {
    use proofline::flows::Kind;
    let page = read("docs/nights.md");
    let kinds = [
        Kind::Refused,
        Kind::Usage,
        Kind::Undecidable,
        Kind::Input,
        Kind::Outside,
        Kind::Interrupted,
        Kind::Bug,
    ];
    for code in kinds.iter().map(|kind| kind.exit_code()).chain([0]) {
        assert!(
            page.lines()
                .any(|line| line.starts_with(&format!("| {code} |"))),
            "exit code {code}"
        );
    }
}
