//! The house stays as drawn: imports point downward, the domain is pure, and
//! nothing is left lying about. ARCHITECTURE.md has the drawing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the top; a layer may import those after it, and itself.
const LAYERS: [&str; 11] = [
    "cli", "flows", "records", "site", "domain", "models", "schema", "seal", "store", "host", "id",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(PathBuf, String)> {
    walkdir::WalkDir::new(root().join("src"))
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.expect("src is readable").into_path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is text");
            (
                path.strip_prefix(root())
                    .expect("below the root")
                    .to_owned(),
                text,
            )
        })
        .collect()
}

/// The layer a file belongs to: its first folder below `src`, or its own name.
fn layer_of(path: &Path) -> Option<usize> {
    let name = path
        .components()
        .nth(1)?
        .as_os_str()
        .to_str()?
        .trim_end_matches(".rs");
    let name = if name == "canon" { "id" } else { name };
    LAYERS.iter().position(|layer| *layer == name)
}

/// The code part of a line.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// The lines of a file that are code and not tests, with their numbers from 1.
/// A test module written out in the file is its last item; one in a file of its
/// own (`#[cfg(test)] mod tests;`) ends nothing.
fn production(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let end = (0..lines.len())
        .find(|at| {
            lines[*at].trim() == "#[cfg(test)]"
                && lines[at + 1..]
                    .iter()
                    .find(|line| !line.trim_start().starts_with("#["))
                    .is_some_and(|line| line.contains("mod ") && line.trim_end().ends_with('{'))
        })
        .unwrap_or(lines.len());
    lines
        .into_iter()
        .take(end)
        .enumerate()
        .map(|(index, line)| (index + 1, code(line)))
}

/// Every `crate::<module>` named in the code part of a file, and every `<module>` of `crate::{…}`.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .map(|line| format!("{}\n", code(line)))
        .collect();
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => names.extend(first_word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.extend(first_word(&std::mem::take(&mut item))),
                        _ if depth == 0 => item.push(c),
                        _ => {}
                    }
                }
                names.extend(first_word(&item));
            }
        }
    }
    names
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!word.is_empty()).then_some(word)
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::store::Edit;\nuse crate::{flows::night, id, schema::{yaml, json}};\n// crate::cli\nlet x = crate::host::now();";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["flows", "host", "id", "schema", "store"]);
}

#[test]
fn imports_point_downward() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for (path, text) in sources() {
        let Some(own) = layer_of(&path) else { continue };
        for name in imports(&text) {
            let name = if name == "canon" { "id" } else { &name };
            let Some(other) = LAYERS.iter().position(|layer| *layer == name) else {
                continue;
            };
            seen += 1;
            if other < own {
                faults.push(format!(
                    "{} ({}) imports {}",
                    path.display(),
                    LAYERS[own],
                    LAYERS[other]
                ));
            }
        }
    }
    assert!(seen > 50, "the test no longer finds imports: it saw {seen}");
    assert!(
        faults.is_empty(),
        "imports that point upward:\n{}",
        faults.join("\n")
    );
}

#[test]
fn every_source_belongs_to_a_layer() {
    let strays: Vec<_> = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| {
            layer_of(path).is_none()
                && path != Path::new("src/lib.rs")
                && path != Path::new("src/main.rs")
        })
        .collect();
    assert!(strays.is_empty(), "in no layer: {strays:?}");
}

/// `super::super::…` reaches other layers without naming `crate`; it may climb
/// to the layer's own root and no further.
#[test]
fn nobody_climbs_out_of_a_layer() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        // src/a/b.rs is the module a::b, src/a/mod.rs the module a.
        let below = path.components().count() - 1;
        let depth = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") => below - 1,
            _ => below,
        };
        for (number, line) in production(&text) {
            let climbs = line
                .split(|c: char| !(c.is_alphanumeric() || c == ':' || c == '_'))
                .map(|path| path.matches("super::").count())
                .max()
                .unwrap_or(0);
            if climbs > 0 && climbs >= depth {
                faults.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_domain_is_pure() {
    // What a pure function cannot need. Model and schema *types* are values; the rest is the world.
    const WORLD: [&str; 21] = [
        "crate::store",
        "crate::host",
        "crate::seal",
        "std::fs",
        "std::env",
        "std::process",
        "std::thread",
        "std::net",
        "std::time",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "Uuid::n",
        "rand::",
        "tempfile::",
        "ureq::",
        "rustix::",
        "gix::",
        "clap::",
        "indicatif::",
    ];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if !path.starts_with("src/domain") {
            continue;
        }
        for (number, code) in production(&text) {
            for word in WORLD {
                if code.contains(word) {
                    faults.push(format!("{}:{number}: {word}", path.display()));
                }
            }
        }
    }
    assert!(
        faults.is_empty(),
        "the domain touches the world:\n{}",
        faults.join("\n")
    );
}

#[test]
fn the_world_is_touched_in_one_place() {
    // (word, layers that may use it, files that may as well). A file on this list is a debt or has its reason beside it.
    const RULES: [(&str, &[&str], &[&str]); 14] = [
        ("clap::", &["cli"], &[]),
        ("clap_complete", &["cli"], &[]),
        ("indicatif::", &["cli"], &[]),
        ("println!", &[], &[]),
        ("print!(", &[], &[]),
        ("gix::", &["store"], &[]),
        ("ssh_key::", &["seal"], &[]),
        ("ureq::", &["models"], &[]),
        ("jsonschema::", &["schema"], &[]),
        ("rustix::", &["host"], &[]),
        ("signal_hook::", &["host"], &[]),
        ("Command::new", &["host"], &[]),
        // The store syncs and locks files in its own way; the cache is files.
        (
            "std::fs",
            &["host", "store", "models"],
            &[
                // A report's age, and the candidate's file for e2e commands.
                "src/flows/commands.rs",
                // Rows are streamed from files that may be larger than memory.
                "src/flows/dataset/import.rs",
                // Spools are listed, not opened.
                "src/records/journal.rs",
            ],
        ),
        (
            "std::env",
            &["host", "cli"],
            &[
                "src/flows/workspace.rs",
                "src/flows/preflight.rs",
                "src/main.rs",
            ],
        ),
    ];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let layer = layer_of(&path).map_or("", |index| LAYERS[index]);
        for (number, code) in production(&text) {
            for (word, layers, files) in RULES {
                if code.contains(word)
                    && !layers.contains(&layer)
                    && !files.iter().any(|file| path == Path::new(file))
                {
                    faults.push(format!(
                        "{}:{number}: {word} outside {layers:?}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Who may read which rows: the types make it awkward to do otherwise, and this makes it visible.
#[test]
fn rows_are_read_by_those_they_are_for() {
    // (what is called, files that may)
    const RULES: [(&str, &[&str]); 3] = [
        ("datasets::holdout(", &["src/flows/holdout.rs"]),
        ("datasets::train_and_dev(", &["src/flows/compile.rs"]),
        (
            "upkeep",
            &[
                "src/records/datasets.rs",
                "src/records/datasets/upkeep.rs",
                "src/flows/dataset",
            ],
        ),
    ];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let name = path.to_str().expect("a path is text");
        for (number, code) in production(&text) {
            for (call, files) in RULES {
                if code.contains(call) && !files.iter().any(|file| name.starts_with(file)) {
                    faults.push(format!("{name}:{number}: {call} is for {files:?}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_is_left_lying_about() {
    let mut faults = Vec::new();
    let files = sources();
    for (path, text) in &files {
        for (number, line) in text.lines().enumerate() {
            for mark in [
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
                concat!("X", "XX"),
                concat!("dbg", "!("),
                concat!("todo", "!("),
                concat!("unimplemented", "!("),
            ] {
                if line.contains(mark) {
                    faults.push(format!("{}:{}: {mark}", path.display(), number + 1));
                }
            }
        }
        // In a constant it is the compiler that would panic.
        for (number, code) in production(text) {
            if code.contains(".unwrap()")
                && !code.trim_start().starts_with("const ")
                && !stands_alone_as_tests(path)
            {
                faults.push(format!(
                    "{}:{number}: .unwrap() outside tests",
                    path.display()
                ));
            }
        }
        // A file that no `mod` names is never compiled.
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a source has a name");
        if !["lib", "main", "mod"].contains(&stem) {
            let parent = path.parent().expect("a source has a folder");
            let owner = if parent == Path::new("src") {
                parent.join("lib.rs")
            } else {
                parent.join("mod.rs")
            };
            let beside = parent.with_extension("rs");
            let named = files
                .iter()
                .filter(|(other, _)| *other == owner || *other == beside)
                .any(|(_, text)| text.contains(&format!("mod {stem};")));
            if !named {
                faults.push(format!("{}: no `mod {stem};` names it", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// `tests.rs` and what lies below `tests/` is compiled for tests alone.
fn stands_alone_as_tests(path: &Path) -> bool {
    path.components()
        .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
}
