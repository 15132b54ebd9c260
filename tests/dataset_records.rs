//! Rows by purpose: who may load what, against which digests, and properties of
//! import, export and digests over rows nobody chose.

#[path = "support/rows.rs"]
mod rows;
#[path = "support/scratch.rs"]
mod scratch;

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::Path;

use jiff::Timestamp;
use proofline::canon;
use proofline::domain::improve::dataset::formats::FileFormat;
use proofline::domain::improve::dataset::requirements::requirements;
use proofline::domain::improve::dataset::{Example, Split};
use proofline::domain::improve::signature::{DataRules, Signature};
use proofline::domain::prove::holdout::Attempt;
use proofline::domain::prove::policy::Gates;
use proofline::domain::prove::stats::alpha::Alpha;
use proofline::flows::Workspace;
use proofline::flows::dataset::export;
use proofline::flows::dataset::import::{self, From, Imported, Options};
use proofline::id::Digest;
use proofline::records::datasets::{self, HoldoutSummary};
use proofline::records::signatures;
use proofline::store::{Durability, Snapshot};
use proptest::prelude::*;
use rows::{project, rows};
use scratch::Scratch;
use serde_json::json;

/// A repository, as the library sees it.
struct Opened {
    scratch: Scratch,
    workspace: Workspace,
    signature: Signature,
}

impl Opened {
    fn new() -> Self {
        let scratch = project();
        let mut workspace = Workspace::open_unconfigured(scratch.root()).expect("a workspace");
        // These tests are about what is written, not about power cuts.
        workspace.store = workspace.store.with_durability(Durability::Unsynced);
        let file = signatures::read(rows::FILE, rows::SIGNATURE.into()).expect("a signature");
        Self {
            scratch,
            workspace,
            signature: file.signature,
        }
    }

    fn import(&self, name: &str, text: &str) -> Imported {
        self.scratch.write(name, text);
        let from = [From::File(self.scratch.root().join(name))];
        import::import(&self.workspace, &self.signature, &from, &Options::default())
            .expect("imported")
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.workspace
            .store
            .snapshot(&self.workspace.refs.datasets)
            .expect("readable")
    }

    fn summary(&self) -> HoldoutSummary {
        let snapshot = self.snapshot();
        datasets::holdout_summary(&self.workspace.refs, snapshot.as_ref(), &self.signature.id)
            .expect("a summary")
    }

    fn digest(&self) -> Digest {
        let snapshot = self.snapshot();
        let found = datasets::dataset(&self.workspace.refs, snapshot.as_ref(), &self.signature.id);
        found.expect("readable").expect("a dataset").content_digest
    }

    fn export(&self, format: FileFormat) -> String {
        let options = export::Options {
            split: None,
            format,
            include_holdout: true,
        };
        export::export(&self.workspace, &self.signature, options).expect("exported")
    }
}

/// The reservation of exactly this holdout.
fn attempt(opened: &Opened, summary: &HoldoutSummary) -> Attempt {
    let alpha = Alpha::new(0.05).expect("a level");
    Attempt {
        schema: Attempt::SCHEMA.to_owned(),
        signature: opened.signature.id.clone(),
        run: "night-1".parse().expect("a run"),
        t: 1,
        control: Digest::of(b"control"),
        candidate: Digest::of(b"candidate"),
        holdout: summary.digest,
        groups: canon::digest(&summary.groups).expect("canonical"),
        rows: summary.rows,
        alpha: alpha.get(),
        alpha_t: alpha.at_attempt(NonZeroU64::MIN).get(),
        at: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn rows_are_handed_out_by_purpose() {
    let opened = Opened::new();
    let refs = &opened.workspace.refs;
    let id = &opened.signature.id;
    let nothing = datasets::train_and_dev(refs, None, id).expect("no rows");
    assert!(nothing.train.is_empty() && nothing.dev.is_empty() && nothing.commit.is_none());
    opened.import(
        "r.jsonl",
        &rows(&[
            "2:x:a:train",
            "1:y:b:train",
            "3:z:c:dev",
            "4:q:a:holdout:g",
            "5:w:a:holdout",
            "6:v:b:exercise",
            "7:u:b:",
        ]),
    );
    let snapshot = opened.snapshot();
    let ids = |rows: &[Example]| {
        rows.iter()
            .map(|row| row.id.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let open = datasets::train_and_dev(refs, snapshot.as_ref(), id).expect("rows");
    assert_eq!(
        (ids(&open.train), ids(&open.dev)),
        ("1 2".into(), "3".into())
    );
    assert!(
        open.train
            .iter()
            .chain(&open.dev)
            .all(|row| row.split != Split::Holdout)
    );
    assert_eq!(open.commit, snapshot.as_ref().map(Snapshot::commit));
    assert_eq!(
        ids(&datasets::exercise(refs, snapshot.as_ref(), id).expect("rows")),
        "6"
    );
    // The digest of the rows is the one on record, whoever computes it.
    let recorded = datasets::dataset(refs, snapshot.as_ref(), id)
        .expect("readable")
        .expect("a dataset");
    assert_eq!(
        datasets::rows_digest(&open.train).expect("canonical"),
        recorded.splits[&Split::Train].digest
    );
    let summary = opened.summary();
    assert_eq!(
        (summary.digest, summary.rows),
        (recorded.splits[&Split::Holdout].digest, 2)
    );
    // The group by name, and both rows by content.
    assert_eq!(summary.groups.len(), 3);
    assert!(summary.groups.contains(&Digest::of(b"g")));
    let reserved = attempt(&opened, &summary);
    let rows = datasets::holdout(refs, snapshot.as_ref(), &reserved).expect("the reserved rows");
    assert_eq!(ids(&rows), "4 5");
    assert_eq!(recorded.rows(), 7);
    let census = datasets::census(refs, snapshot.as_ref(), id).expect("counts");
    let gate = requirements(&census, &Gates::default(), &DataRules::default());
    assert_eq!(gate.verdict.word(), "refuse");
}

#[test]
fn a_reservation_is_good_for_its_own_rows_only() {
    let opened = Opened::new();
    opened.import("r.jsonl", &rows(&["4:q:a:holdout:g", "5:w:a:holdout"]));
    let summary = opened.summary();
    let reserved = attempt(&opened, &summary);
    let other = Digest::of(b"other");
    let table = [
        Attempt {
            holdout: other,
            ..reserved.clone()
        },
        Attempt {
            groups: other,
            ..reserved.clone()
        },
        Attempt {
            rows: 3,
            ..reserved.clone()
        },
        Attempt {
            signature: "@test/data/Other.v1".parse().expect("an id"),
            ..reserved.clone()
        },
    ];
    let load = |attempt: &Attempt| {
        datasets::holdout(&opened.workspace.refs, opened.snapshot().as_ref(), attempt)
    };
    assert!(load(&reserved).is_ok());
    for attempt in table {
        let error = load(&attempt).expect_err("another reservation").to_string();
        assert!(error.contains("reserved the holdout"), "{error}");
    }
    opened.import("r.jsonl", &rows(&["6:new:b:holdout"]));
    assert!(load(&reserved).is_err(), "the rows are others now");
}

/// Change one file of the datasets branch with git, as somebody with an editor would.
fn tamper(opened: &Opened, path: &str, change: impl Fn(String) -> String) {
    let scratch = &opened.scratch;
    let path = format!("datasets/test/data/Route.v1/{path}");
    let folder = scratch.root().join("../tampered");
    let folder = folder.to_str().expect("a path");
    scratch.git(&["worktree", "add", "--quiet", folder, "proofline/datasets"]);
    let file = Path::new(folder).join(path);
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, change(text)).expect("written");
    scratch.git(&[
        "-C",
        folder,
        "commit",
        "--quiet",
        "--all",
        "--message",
        "by hand",
    ]);
    scratch.git(&["worktree", "remove", folder]);
}

#[test]
fn what_was_changed_by_hand_is_not_handed_out() {
    type Change = fn(String) -> String;
    let table: [(&str, Change, &str); 6] = [
        (
            "train.jsonl",
            |text| text.replace("\"x\"", "\"changed\""),
            "changed by something other",
        ),
        (
            "train.jsonl",
            |text| text.replace("\"split\":\"train\"", "\"split\":\"holdout\""),
            "another split",
        ),
        (
            "train.jsonl",
            |text| text.lines().rev().map(|line| format!("{line}\n")).collect(),
            "does not come after",
        ),
        (
            "train.jsonl",
            |text| {
                text.lines()
                    .take(1)
                    .map(|line| format!("{line}\n"))
                    .collect()
            },
            "changed by something other",
        ),
        (
            "train.jsonl",
            |text| text.replace("\"id\"", "\"idx\""),
            "row 1 of proofline/datasets:datasets/test/data/Route.v1/train",
        ),
        (
            "dataset.yaml",
            |text| text.replace("rows: 2", "rows: two"),
            "dataset.yaml",
        ),
    ];
    for (path, change, words) in table {
        let opened = Opened::new();
        opened.import(
            "r.jsonl",
            &rows(&["1:x:a:train", "2:y:b:train", "3:z:c:dev"]),
        );
        tamper(&opened, path, change);
        let snapshot = opened.snapshot();
        let error = datasets::train_and_dev(
            &opened.workspace.refs,
            snapshot.as_ref(),
            &opened.signature.id,
        )
        .expect_err(words)
        .to_string();
        assert!(error.contains(words), "no `{words}` in {error}");
    }
}

#[test]
fn only_dataset_flows_see_whole_datasets() {
    let sources = walkdir::WalkDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut users = BTreeSet::new();
    for entry in sources
        .into_iter()
        .map(|entry| entry.expect("src is readable"))
    {
        if entry.path().extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(entry.path()).expect("a source is text");
            let code = text
                .lines()
                .map(|line| line.split("//").next().unwrap_or(line));
            if code.into_iter().any(|line| {
                line.contains("upkeep::")
                    || line.contains("upkeep}")
                    || line.contains("upkeep;")
                    || line.contains("upkeep,")
            }) {
                let path = entry.path().display().to_string();
                users.insert(path.rsplit_once("/src/").expect("below src").1.to_owned());
            }
        }
    }
    let strangers: Vec<&String> = users
        .iter()
        .filter(|path| !path.starts_with("flows/dataset/") && !path.starts_with("records/datasets"))
        .collect();
    assert!(users.len() > 5, "the test no longer finds users: {users:?}");
    assert!(
        strangers.is_empty(),
        "these see holdout rows without a reservation: {strangers:?}"
    );
}

/// Rows of any content, in no order: the id, the text, the label, the split, a tag, a source.
fn any_rows() -> impl Strategy<Value = Vec<String>> {
    let row = (
        "[a-z]{1,6}",
        any::<String>(),
        0_usize..3,
        0_usize..5,
        prop::option::of("[a-z ,\"]{0,5}[a-z]"),
        prop::option::of("\\PC{1,8}"),
    );
    prop::collection::btree_map("[a-zé\"]{1,8}", row, 1..20).prop_map(|rows| {
        rows.into_iter()
            .enumerate()
            .map(|(number, (id, (word, text, label, split, tag, source)))| {
                let mut row = json!({
                    "id": id,
                    // The number keeps contents apart, so that no rule of the splits is touched.
                    "input": {"text": format!("{text} {number} {word}"), "n": number},
                    "expected": {"label": (["a", "b", "c"][label])},
                });
                if let Some(split) = Split::ALL.get(split) {
                    row["split"] = json!(split);
                }
                if let Some(tag) = tag {
                    row["tags"] = json!([tag.trim()]);
                }
                if let Some(source) = source {
                    row["source"] = json!(source);
                }
                format!("{row}\n")
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn exports_are_imports_and_order_makes_no_difference(lines in any_rows()) {
        let first = Opened::new();
        first.import("r.jsonl", &lines.concat());
        let backwards = Opened::new();
        backwards.import("r.jsonl", &lines.iter().rev().map(String::as_str).collect::<String>());
        prop_assert_eq!(first.digest(), backwards.digest());
        for format in [FileFormat::Jsonl, FileFormat::Json, FileFormat::Csv] {
            let text = first.export(format);
            let again = Opened::new();
            let name = format!("r.{format}");
            again.import(&name, &text);
            prop_assert_eq!(again.digest(), first.digest());
            prop_assert_eq!(again.export(format), text);
            prop_assert!(!first.import(&name, &first.export(format)).changed());
        }
        first.scratch.fsck();
    }
}
