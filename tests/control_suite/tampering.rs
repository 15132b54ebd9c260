//! Whoever can write to `control` without the promoter's key is found out.

use proofline::domain::prove::promotion::Statement;
use proofline::id::Digest;
use proofline::seal::{Envelope, Namespace, SealSigner};
use proofline::store::Edit;

use crate::support::{Repo, SIGNATURE, can_seal, reasons};

const FOLDER: &str = "promotions/acme/support/SelectTool.v1";
const POINTER: &str = "active/acme/support/SelectTool.v1.yaml";

fn put(path: &str, text: impl Into<Vec<u8>>) -> Edit {
    Edit::put(path.parse().expect("a path"), text)
}

fn gone(path: &str) -> Edit {
    Edit::Remove {
        path: path.parse().expect("a path"),
    }
}

fn promoted() -> (Repo, [Digest; 3]) {
    let repo = Repo::direct();
    let [a, b, c] = ["a", "b", "c"].map(|name| repo.program(name));
    repo.night("night-1", &a, &b);
    repo.promote("night-1").expect(0);
    repo.night("night-2", &b, &c);
    repo.promote("night-2").expect(0);
    (repo, [a, b, c])
}

/// The statement of an envelope file, changed and sealed again by a key.
fn resealed(
    repo: &Repo,
    key: &str,
    namespace: Namespace,
    change: impl FnOnce(&mut Statement),
) -> Vec<Edit> {
    let text = repo.read("control", &format!("{FOLDER}/2/statement.intoto.jsonl"));
    let envelope = Envelope::parse(text.as_bytes()).expect("an envelope");
    let mut statement = Statement::from_in_toto(envelope.payload()).expect("a statement");
    change(&mut statement);
    let signer = SealSigner::from_file(&repo.common(key)).expect("a key");
    let bytes = statement.in_toto().expect("canonical");
    let sealed = Envelope::seal(&bytes, &[&signer], namespace).expect("sealed");
    let pointer = serde_json::json!({
        "schema": "proofline/pointer/v1",
        "signature": SIGNATURE,
        "artifact": statement.to,
        "counter": statement.counter,
        "statement": statement.digest().expect("canonical"),
    });
    vec![
        put(
            &format!("{FOLDER}/2/statement.intoto.jsonl"),
            sealed.to_json_line(),
        ),
        put(
            &format!("{FOLDER}/2/promotion.yaml"),
            serde_json::to_string(&statement).expect("JSON"),
        ),
        put(POINTER, pointer.to_string()),
    ]
}

#[test]
fn every_change_is_found() {
    if !can_seal() {
        return;
    }
    let (repo, [a, b, c]) = promoted();
    let sealed = format!("{FOLDER}/2/statement.intoto.jsonl");
    let readable = format!("{FOLDER}/2/promotion.yaml");
    let yaml = repo.read("control", &readable);
    let line = repo.read("control", &sealed);
    let earlier = repo.read("control", &format!("{FOLDER}/1/statement.intoto.jsonl"));
    let pointer = repo.read("control", POINTER);
    let first_yaml = repo.read("control", &format!("{FOLDER}/1/promotion.yaml"));
    let flipped = {
        let at = line.find("\"sig\":\"").expect("a seal") + 200;
        let mut bytes = line.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        bytes
    };
    let table: Vec<(&str, Vec<Edit>, &str)> = vec![
        (
            "promotion.yaml",
            vec![put(&readable, yaml.replace("night-2", "night-9"))],
            "does not say what was sealed",
        ),
        (
            "promotion.yaml, unreadable",
            vec![put(&readable, "a: [")],
            "promotion.yaml",
        ),
        ("promotion.yaml, gone", vec![gone(&readable)], "is missing"),
        (
            "pointer",
            vec![put(POINTER, pointer.replace("counter: 2", "counter: 1"))],
            "no statement put it there",
        ),
        (
            "pointer to another artifact",
            vec![put(
                POINTER,
                pointer.replace(&c.to_string(), &a.to_string()),
            )],
            "no statement put it there",
        ),
        ("pointer gone", vec![gone(POINTER)], "there is no pointer"),
        (
            "a flipped bit in the seal",
            vec![put(&sealed, flipped)],
            "seal",
        ),
        (
            "an earlier statement in its place",
            vec![put(&sealed, earlier.clone())],
            "it is about",
        ),
        (
            "no envelope",
            vec![put(&sealed, "{}")],
            "not a DSSE envelope",
        ),
        (
            "the first statement gone",
            vec![gone(&format!("{FOLDER}/1"))],
            "statement 1 is missing",
        ),
        (
            "the first statement replaced",
            vec![
                put(&format!("{FOLDER}/1/statement.intoto.jsonl"), line.clone()),
                put(&format!("{FOLDER}/1/promotion.yaml"), first_yaml),
            ],
            "chain",
        ),
        (
            "cut off",
            vec![gone(&format!("{FOLDER}/2"))],
            "no statement put it there",
        ),
        (
            "a number left out",
            vec![
                put(&format!("{FOLDER}/4/statement.intoto.jsonl"), line.clone()),
                put(&format!("{FOLDER}/4/promotion.yaml"), yaml.clone()),
            ],
            "it is about",
        ),
        (
            "sealed by the runner",
            resealed(&repo, "keys/runner", Namespace::Promotion, |statement| {
                statement.to = a
            }),
            "no seal of `ada@example.com`",
        ),
        (
            "sealed as something else",
            resealed(&repo, "keys/promoter", Namespace::Approval, |_| {}),
            "no seal of",
        ),
        (
            "of another repository",
            resealed(&repo, "keys/promoter", Namespace::Promotion, |statement| {
                statement.repository = a
            }),
            "another repository",
        ),
        (
            "of an epoch that is not",
            resealed(&repo, "keys/promoter", Namespace::Promotion, |statement| {
                statement.epoch = 7
            }),
            "no policy epoch 7",
        ),
        (
            "out of the chain",
            resealed(&repo, "keys/promoter", Namespace::Promotion, |statement| {
                statement.previous = Some(b)
            }),
            "statement before it",
        ),
        (
            "from something else",
            resealed(&repo, "keys/promoter", Namespace::Promotion, |statement| {
                statement.from = a
            }),
            "does not start from",
        ),
        (
            "self-attested, against the policy",
            resealed(&repo, "keys/promoter", Namespace::Promotion, |statement| {
                statement.self_attested = true
            }),
            "sealed the evidence, too",
        ),
        (
            "an input that is not what was bound",
            resealed(&repo, "keys/promoter", Namespace::Promotion, |statement| {
                statement.inputs[0].digest = a
            }),
            "not what was bound",
        ),
        (
            "another interface",
            resealed(&repo, "keys/promoter", Namespace::Promotion, |statement| {
                statement.interface = a
            }),
            "interface",
        ),
        (
            "landed unsigned, with something else",
            {
                let mut edits =
                    resealed(&repo, "keys/promoter", Namespace::Promotion, |statement| {
                        statement.run = None
                    });
                edits.push(put(".github/workflows/x.yaml", "on: push"));
                edits
            },
            "the landing changes .github",
        ),
        (
            "policy",
            vec![put(
                "policy/1.yaml",
                repo.read("control", "policy/1.yaml")
                    .replace("mode: direct", "mode: propose"),
            )],
            "policy/1.yaml",
        ),
    ];
    let tip = repo.git(&["rev-parse", "proofline/control"]);
    repo.show(&[]).expect(0);
    for (what, edits, why) in table {
        repo.write("control", edits);
        let ran = repo.show(&[]);
        assert_eq!(ran.code, 1, "{what}: {}{}", ran.stdout, ran.stderr);
        assert!(
            reasons(&ran.json).contains(why),
            "{what}: {}",
            reasons(&ran.json)
        );
        // Neither a promotion nor a rollback is built on it.
        let before = repo.state();
        let back = repo.run(&["rollback", SIGNATURE, "--reason", "x"]);
        let inputs_only = [
            "an input",
            "another interface",
            "landed unsigned",
            "self-attested",
        ];
        if !inputs_only.iter().any(|start| what.starts_with(start)) {
            assert_ne!(back.code, 0, "{what}: {}", back.stdout);
            assert_eq!(repo.state(), before, "{what}");
        }
        repo.git(&["update-ref", "refs/heads/proofline/control", &tip]);
    }
    repo.show(&[]).expect(0);
}

#[test]
fn what_is_not_here_is_undecidable() {
    if !can_seal() {
        return;
    }
    let (repo, _) = promoted();
    let artifacts = repo.git(&["rev-parse", "proofline/artifacts"]);
    repo.git(&["update-ref", "-d", "refs/heads/proofline/artifacts"]);
    let shown = repo.show(&[]).expect(3);
    assert_eq!(shown["verdict"]["verdict"], "undecidable");
    repo.git(&["update-ref", "refs/heads/proofline/artifacts", &artifacts]);

    // A shallow clone of control alone: the last landing's parent is not here.
    let mut shallow = Repo::new(&[]);
    let dir = shallow.home.path().join("clone");
    let url = format!("file://{}", repo.dir.display());
    shallow.git(&[
        "clone",
        "--quiet",
        "--bare",
        "--depth=1",
        "--branch",
        "proofline/control",
        &url,
        dir.to_str().expect("text"),
    ]);
    let toml = std::fs::read_to_string(repo.dir.join("proofline.toml")).expect("the file");
    shallow.dir = dir;
    let blob = shallow.home.path().join("toml");
    std::fs::write(&blob, toml).expect("written");
    shallow.identify("Bob", "bob@example.com");
    let object = shallow.git(&["hash-object", "-w", blob.to_str().expect("text")]);
    let mut tree = shallow.command("git");
    tree.arg("mktree")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = tree.spawn().expect("git runs");
    {
        use std::io::Write as _;
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "100644 blob {object}\tproofline.toml").expect("written");
    }
    let tree = String::from_utf8(child.wait_with_output().expect("it ends").stdout).expect("text");
    let commit = shallow.git(&["commit-tree", "-m", "toml", tree.trim()]);
    shallow.git(&["update-ref", "refs/heads/main", &commit]);
    shallow.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    let shown = shallow.show(&[]).expect(3);
    let text = shown.to_string();
    assert!(text.contains("git fetch"), "{text}");
}
