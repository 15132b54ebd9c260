//! `runs verify`: a whole night's links hold; each one, tampered with, is refused for the right reason.

use std::collections::BTreeMap;

use proofline::canon;
use proofline::domain::improve::artifact::Program;
use proofline::domain::improve::canary::Canary;
use proofline::domain::improve::dataset::Split;
use proofline::domain::improve::metric::Metric;
use proofline::domain::improve::report::{
    Comparison, CompileReport, EvalReport, ExampleOutcome, Outcome, Rows, Usage,
};
use proofline::domain::operate::run::{Link, Run, Status, link};
use proofline::domain::prove::gate::HoldoutReport;
use proofline::domain::prove::holdout::{Attempt, Closing, Entry, GroupSet};
use proofline::domain::prove::promotion::{Bound, Kind, Statement};
use proofline::domain::prove::stats::alpha::Alpha;
use proofline::domain::prove::verdict::Verdict;
use proofline::flows::commands::{CommandKind, Options, run_all};
use proofline::flows::runs::{Finish, Start, finish, start};
use proofline::flows::verify_run::{Verified, verify};
use proofline::flows::workspace::KeyRole;
use proofline::id::{Digest, RunId, SignatureId};
use proofline::records::control::Control;
use proofline::records::refs::path;
use proofline::records::sealed::Sealed;
use proofline::records::{document, evidence};
use proofline::schema::yaml;
use proofline::seal::{Envelope, Namespace};
use proofline::store::{Edit, RefName, TreePath};
use serde_json::{Map, Value, json};

use super::support::{Repo, program, run_id, signature};

const VERIFY: &str = "[[commands.verify]]\nname = \"unit\"\nargv = [\"true\"]\n";

fn sample<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let path = format!("{}/tests/samples/{file}", env!("CARGO_MANIFEST_DIR"));
    yaml::parse(&path, std::fs::read(&path).expect("a sample"))
        .expect("it is YAML")
        .read()
        .expect("it is what it says")
}

/// A night's records, made by hand, and the links to them.
struct Night {
    repo: Repo,
    run: RunId,
    id: SignatureId,
    links: BTreeMap<String, String>,
    control: Digest,
    candidate: Digest,
}

impl Night {
    fn new() -> Self {
        let repo = Repo::new(VERIFY);
        let mut base: Program = program();
        base.instruction.text = "Choose.".to_owned();
        let mut night = Self {
            run: run_id("night-1"),
            id: signature(),
            links: BTreeMap::new(),
            control: base.artifact_id().expect("an id"),
            candidate: program().artifact_id().expect("an id"),
            repo,
        };
        let begun = Start {
            tool: "proofline overnight".to_owned(),
            id: Some(night.run.clone()),
            signatures: vec![night.id.clone()],
            ..Start::default()
        };
        start(&night.repo.workspace(), begun).expect("it begins");
        night.verify_commands();
        night.put_file(
            link::ARTIFACT,
            "artifacts",
            path::artifact(&night.id, &night.candidate),
            &document::to_yaml(&program()).expect("YAML"),
        );
        night.compile();
        night.eval();
        night.holdout();
        night.canary();
        night.promotion();
        night.finish();
        night
    }

    fn put(&self, branch: &str, path: &TreePath, bytes: &[u8]) -> Link {
        let branch = format!("proofline/{branch}");
        let commit = self.repo.put(&branch, &path.to_string(), bytes);
        Link {
            reference: format!("refs/heads/{branch}"),
            commit,
            path: path.to_string(),
            entry: None,
        }
    }

    fn put_file(&mut self, name: &str, branch: &str, path: TreePath, bytes: &[u8]) {
        let link = self.put(branch, &path, bytes);
        self.links
            .insert(link::key(name, Some(&self.id)), link.to_string());
    }

    fn verify_commands(&mut self) {
        let outcome = run_all(
            &self.repo.workspace(),
            &self.run,
            CommandKind::Verify,
            &Options::default(),
            None,
        )
        .expect("it runs");
        let bound = outcome.bound.expect("it is committed");
        self.links.insert(
            link::VERIFY_EVIDENCE.to_owned(),
            Link::from(&bound).to_string(),
        );
    }

    /// Outcomes of control and candidate on rows; the candidate wins where the control fails.
    fn outcomes(&self, rows: usize) -> Vec<(Outcome, Outcome)> {
        let one = |score: f64| Outcome {
            output: Some(json!({"tool": "none"})),
            failure: None,
            score,
            repairs: 0,
            usage: Usage {
                calls: 1,
                input_tokens: 20,
                output_tokens: 4,
                cost_micro_usd: 0,
            },
            answered_by: "openai/small".to_owned(),
        };
        (0..rows)
            .map(|row| (one(if row % 3 == 0 { 0.0 } else { 1.0 }), one(1.0)))
            .collect()
    }

    fn lines(&self, pairs: &[(Outcome, Outcome)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (row, (control, candidate)) in pairs.iter().enumerate() {
            for (artifact, outcome) in [(self.control, control), (self.candidate, candidate)] {
                let line = ExampleOutcome {
                    artifact,
                    example: format!("row-{row:04}").parse().expect("an id"),
                    outcome: outcome.clone(),
                };
                bytes.extend(canon::to_bytes(&line).expect("canonical"));
                bytes.push(b'\n');
            }
        }
        bytes
    }

    fn compile(&mut self) {
        let pairs = self.outcomes(80);
        let examples = self.lines(&pairs);
        let mut report: CompileReport = sample("compile-report/valid/improved.yaml");
        let mut usage = Usage::default();
        pairs.iter().for_each(|(left, right)| {
            usage.add(&left.usage);
            usage.add(&right.usage);
        });
        report.job.base = self.control;
        report.job_hash = report.job.hash().expect("a hash");
        (report.base, report.winner, report.usage) = (self.control, self.candidate, usage);
        report.comparison = Comparison::of(pairs.iter().map(|(left, right)| (left, right)));
        report.examples = Digest::of(&examples);
        let key = canon::digest(&(report.job_hash, report.train.digest, report.dev.digest))
            .expect("a digest");
        self.put(
            "artifacts",
            &path::report("compile", &self.id, &key, "examples.jsonl"),
            &examples,
        );
        self.put_file(
            link::COMPILE_REPORT,
            "artifacts",
            path::report("compile", &self.id, &key, "report.yaml"),
            &document::to_yaml(&report).expect("YAML"),
        );
    }

    fn eval(&mut self) {
        let pairs = self.outcomes(20);
        let lines: Vec<String> = String::from_utf8(self.lines(&pairs))
            .expect("text")
            .lines()
            .filter(|line| line.contains(&self.control.to_string()))
            .map(|line| format!("{line}\n"))
            .collect();
        let examples = lines.concat().into_bytes();
        let mean = pairs.iter().map(|(control, _)| control.score).sum::<f64>() / 20.0;
        let report = EvalReport {
            schema: EvalReport::SCHEMA.to_owned(),
            signature: self.id.clone(),
            artifact: self.control,
            split: Split::Dev,
            data: Rows {
                rows: 20,
                digest: Digest::of(b"rows"),
            },
            metric: Metric::ExactMatch,
            mean,
            exact: mean,
            format: 1.0,
            failures: BTreeMap::new(),
            usage: Usage::default(),
            answered_by: ["openai/small".to_owned()].into(),
            examples: Digest::of(&examples),
        };
        let key = Digest::of(b"an evaluation");
        self.put(
            "artifacts",
            &path::report("eval", &self.id, &key, "examples.jsonl"),
            &examples,
        );
        self.put_file(
            link::EVAL_REPORT,
            "artifacts",
            path::report("eval", &self.id, &key, "report.yaml"),
            &document::to_yaml(&report).expect("YAML"),
        );
    }

    fn seal<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        body: T,
        role: KeyRole,
        namespace: Namespace,
    ) -> Sealed<T> {
        Sealed::seal(
            body,
            &self.repo.workspace().sealer(role).expect("a key"),
            namespace,
        )
        .expect("sealed")
    }

    fn attempt(&self, groups: &GroupSet) -> Attempt {
        let alpha = Alpha::new(0.05).expect("a level");
        Attempt {
            schema: Attempt::SCHEMA.to_owned(),
            signature: self.id.clone(),
            run: self.run.clone(),
            t: 1,
            control: self.control,
            candidate: self.candidate,
            holdout: Digest::of(b"holdout"),
            groups: canon::digest(groups).expect("a digest"),
            rows: 60,
            alpha: 0.05,
            alpha_t: alpha.at_attempt(std::num::NonZeroU64::MIN).get(),
            at: "2026-11-21T23:05:00Z".parse().expect("a time"),
        }
    }

    fn ledger_bytes(&self, entries: &[Sealed<Entry>]) -> Vec<u8> {
        entries
            .iter()
            .map(|entry| document::to_line(entry).expect("JSON") + "\n")
            .collect::<String>()
            .into_bytes()
    }

    fn holdout(&mut self) {
        let groups: GroupSet = (0..60)
            .map(|row| Digest::of(format!("group {row}").as_bytes()))
            .collect();
        let attempt = self.attempt(&groups);
        let digest = attempt.digest().expect("a digest");
        let set = canon::to_bytes(&groups).expect("canonical");
        self.put("ledger", &path::holdout_set(&attempt.groups), &set);
        let reserved = self.seal(
            Entry::Reserved(attempt.clone()),
            KeyRole::Runner,
            Namespace::Ledger,
        );
        let file = path::holdout(&self.id);
        let bytes = self.ledger_bytes(std::slice::from_ref(&reserved));
        self.put_file(link::HOLDOUT_ATTEMPT, "ledger", file.clone(), &bytes);

        let pairs = self.outcomes(60);
        let examples = self.lines(&pairs);
        let seed = u64::from_be_bytes(digest.as_bytes()[..8].try_into().expect("8 bytes"));
        let alpha_t = Alpha::new(attempt.alpha_t).expect("a level");
        let report =
            HoldoutReport::compare(digest, &pairs, true, alpha_t, seed, Digest::of(&examples))
                .expect("compared");
        assert!(report.passed());
        let bytes = document::to_yaml(&report).expect("YAML");
        self.put(
            "artifacts",
            &path::report("holdout", &self.id, &digest, "examples.jsonl"),
            &examples,
        );
        self.put_file(
            link::HOLDOUT_REPORT,
            "artifacts",
            path::report("holdout", &self.id, &digest, "report.yaml"),
            &bytes,
        );
        let closing = Closing {
            schema: Closing::SCHEMA.to_owned(),
            attempt: digest,
            passed: true,
            report: Some(Digest::of(&bytes)),
        };
        let closed = self.seal(Entry::Closed(closing), KeyRole::Runner, Namespace::Ledger);
        self.put("ledger", &file, &self.ledger_bytes(&[reserved, closed]));
    }

    fn canary(&mut self) {
        let mut canary: Canary = sample("canary/valid/running.yaml");
        (canary.control, canary.candidate) = (self.control, self.candidate);
        canary.run = Some(self.run.clone());
        (canary.id, canary.salt) = proofline::domain::improve::canary::identity(
            &canary.signature,
            canary.run.as_ref(),
            &canary.control,
            &canary.candidate,
            canary.t,
        );
        canary.alpha_t = Alpha::new(canary.alpha)
            .expect("a level")
            .at_attempt(std::num::NonZeroU64::MIN)
            .get();
        let sealed = self.seal(canary, KeyRole::Runner, Namespace::Canary);
        self.put_file(
            link::CANARY,
            "ledger",
            path::canary(&self.id),
            &document::to_yaml(&sealed).expect("YAML"),
        );
    }

    fn statement(&self) -> Statement {
        let artifact: Link = self.links[&link::key(link::ARTIFACT, Some(&self.id))]
            .parse()
            .expect("a link");
        let bytes = document::to_yaml(&program()).expect("YAML");
        Statement {
            schema: Statement::SCHEMA.to_owned(),
            kind: Kind::Promotion,
            repository: Digest::of(b"repository"),
            epoch: 1,
            signature: self.id.clone(),
            counter: 1,
            previous: None,
            from: self.control,
            to: self.candidate,
            interface: Digest::of(b"interface"),
            job: None,
            run: Some(self.run.clone()),
            promoter: "the-promoter".parse().expect("a principal"),
            self_attested: false,
            reason: None,
            gates: Vec::new(),
            inputs: vec![Bound {
                name: "artifact".to_owned(),
                reference: artifact.reference,
                commit: artifact.commit,
                path: artifact.path,
                digest: Digest::of(&bytes),
            }],
        }
    }

    fn land(&self, statement: &Statement, role: KeyRole) -> Link {
        let sealer = self.repo.workspace().sealer(role).expect("a key");
        let envelope = Envelope::seal(
            &statement.in_toto().expect("canonical"),
            &[&sealer],
            Namespace::Promotion,
        )
        .expect("sealed");
        let mut commit = String::new();
        for edit in Control::landing(statement, &envelope).expect("edits") {
            let Edit::Put { path, bytes } = edit else {
                panic!("a landing puts files")
            };
            commit = self
                .repo
                .put("proofline/control", &path.to_string(), &bytes);
        }
        Link {
            reference: "refs/heads/proofline/control".to_owned(),
            commit,
            path: path::promotion(&self.id, 1, "promotion.yaml").to_string(),
            entry: None,
        }
    }

    fn promotion(&mut self) {
        let link = self.land(&self.statement(), KeyRole::Promoter);
        self.links
            .insert(link::key(link::PROMOTION, Some(&self.id)), link.to_string());
    }

    fn finish(&self) {
        let result =
            json!({"conclusion": "promoted", "control": self.control, "candidate": self.candidate});
        let end = Finish {
            status: Status::Finished,
            reason: None,
            result: Map::from_iter([(self.id.to_string(), result)]),
            links: self.links.clone(),
            notes: Vec::new(),
        };
        finish(&self.repo.workspace(), &self.run, end).expect("it ends");
    }

    fn verify(&self) -> Verified {
        verify(&self.repo.workspace(), &self.run).expect("it can be looked at")
    }

    /// The record with one link changed, as a forger of the journal would write it.
    fn relink(&self, key: &str, to: &str) {
        let file = path::run(&self.run, "run.yaml").to_string();
        let text = self
            .repo
            .git(&["show", &format!("proofline/journal:{file}")]);
        let mut run: Run = document::from_yaml("run.yaml", text.into_bytes(), None).expect("a run");
        run.links = self.links.clone();
        run.links.insert(key.to_owned(), to.to_owned());
        self.repo.put(
            "proofline/journal",
            &file,
            &document::to_yaml(&run).expect("YAML"),
        );
    }

    fn key(&self, name: &str) -> String {
        match name {
            link::VERIFY_EVIDENCE => name.to_owned(),
            name => link::key(name, Some(&self.id)),
        }
    }

    /// Refused, with the reason that this link gives.
    fn refused(&self, name: &str) -> String {
        let verified = self.verify();
        assert_eq!(verified.exit_code(), 1, "{verified:?}");
        let key = self.key(name);
        let link = verified
            .links
            .iter()
            .find(|link| link.gate == key)
            .expect("the link is judged");
        match &link.verdict {
            Verdict::Refuse { reasons } => reasons.join("; "),
            other => panic!("{name}: {other}"),
        }
    }

    /// Commit changed bytes where a link leads, and link to them.
    fn tamper(&self, name: &str, change: impl FnOnce(String) -> String) -> String {
        let key = self.key(name);
        let place: Link = self.links[&key].parse().expect("a link");
        let text = self
            .repo
            .git(&["show", &format!("{}:{}", place.commit, place.path)])
            + "\n";
        let changed = change(text.clone());
        assert_ne!(text, changed, "{name}: the change changed nothing");
        let branch = place
            .reference
            .strip_prefix("refs/heads/")
            .expect("a branch")
            .to_owned();
        let newest = self
            .repo
            .git(&["show", &format!("{branch}:{}", place.path)])
            + "\n";
        let commit = self.repo.put(&branch, &place.path, changed.as_bytes());
        let forged = Link {
            commit,
            ..place.clone()
        };
        self.relink(&key, &forged.to_string());
        let reason = self.refused(name);
        // As it was, for the next one.
        self.repo.put(&branch, &place.path, newest.as_bytes());
        self.relink(&key, &place.to_string());
        reason
    }
}

#[test]
fn a_whole_night_holds() {
    let night = Night::new();
    let verified = night.verify();
    assert_eq!(verified.verdict, Verdict::Pass, "{verified:#?}");
    let names: Vec<&str> = verified
        .links
        .iter()
        .map(|link| link::parse_key(&link.gate).0)
        .collect();
    let expected = [
        "events",
        "commit",
        "signature",
        "verify_evidence",
        "compile_report",
        "eval_report",
        "artifact",
        "holdout_attempt",
        "holdout_report",
        "canary",
        "promotion",
    ];
    assert_eq!(names, expected);
    let text = night.repo.says(&["runs", "verify", "night-1"]);
    for part in [
        "p = ",
        "(recomputed)",
        "passed = true (attested by the-runner)",
        "unit = exited with 0 (attested by the-runner)",
        "night-1: pass",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn each_link_tampered_with_is_refused_for_its_own_reason() {
    let night = Night::new();
    let table: [(&str, &str, &str, &str); 9] = [
        (
            link::VERIFY_EVIDENCE,
            "code: 0",
            "code: 1",
            "no runner of any policy epoch sealed it",
        ),
        (
            link::ARTIFACT,
            "jsonish",
            "strict_json",
            "its digest is sha256:",
        ),
        (
            link::COMPILE_REPORT,
            "wins: 27",
            "wins: 28",
            "its comparison does not follow from its examples",
        ),
        (
            link::COMPILE_REPORT,
            "seed: 7",
            "seed: 8",
            "its job has digest",
        ),
        (
            link::EVAL_REPORT,
            "mean: 0.65",
            "mean: 0.75",
            "its mean is 0.75",
        ),
        (
            link::HOLDOUT_ATTEMPT,
            "\"rows\":60",
            "\"rows\":61",
            "no runner of any policy epoch sealed it",
        ),
        (
            link::HOLDOUT_REPORT,
            "wins: 20",
            "wins: 21",
            "which is not what the closing seals",
        ),
        (
            link::CANARY,
            "max_pairs: 2000",
            "max_pairs: 2001",
            "no runner of any policy epoch sealed it",
        ),
        (
            link::PROMOTION,
            "epoch: 1",
            "epoch: 2",
            "beside it does not say what was sealed",
        ),
    ];
    for (name, from, to, wanted) in table {
        let reason = night.tamper(name, |text| text.replacen(from, to, 1));
        assert!(reason.contains(wanted), "{name}: {reason}");
    }
    assert_eq!(night.verify().verdict, Verdict::Pass, "each was put back");
}

#[test]
fn a_statement_of_anybody_else_is_refused() {
    let night = Night::new();
    let key = night.key(link::PROMOTION);
    let try_on = |statement: &Statement, role: KeyRole| {
        let forged = night.land(statement, role);
        night.relink(&key, &forged.to_string());
        night.refused(link::PROMOTION)
    };
    let good = night.statement();
    assert!(try_on(&good, KeyRole::Runner).contains("no promoter of policy epoch 1 sealed it"));
    let other = Statement {
        run: Some(run_id("night-2")),
        ..good.clone()
    };
    assert!(try_on(&other, KeyRole::Promoter).contains("it is about run night-2"));
    let mut bad_input = good.clone();
    bad_input.inputs[0].digest = Digest::of(b"something else");
    assert!(try_on(&bad_input, KeyRole::Promoter).contains("its input `artifact` has digest"));
    // A branch that brings its own policy, in which the runner is a promoter.
    let mut policy = proofline::flows::canary::policy(&night.repo.workspace()).expect("a policy");
    policy
        .roles
        .promoter
        .push("the-runner".parse().expect("a principal"));
    let tip = night.repo.git(&["rev-parse", "proofline/control"]);
    night.repo.git(&["branch", "proofline/forged", &tip]);
    night.repo.put(
        "proofline/forged",
        "policy/1.yaml",
        &document::to_yaml(&policy).expect("YAML"),
    );
    let sealer = night
        .repo
        .workspace()
        .sealer(KeyRole::Runner)
        .expect("a key");
    let envelope = Envelope::seal(
        &good.in_toto().expect("canonical"),
        &[&sealer],
        Namespace::Promotion,
    )
    .expect("sealed");
    let mut commit = String::new();
    for edit in Control::landing(&good, &envelope).expect("edits") {
        let Edit::Put { path, bytes } = edit else {
            panic!("a landing puts files")
        };
        commit = night
            .repo
            .put("proofline/forged", &path.to_string(), &bytes);
    }
    let forged = Link {
        reference: "refs/heads/proofline/forged".to_owned(),
        commit,
        path: path::promotion(&night.id, 1, "promotion.yaml").to_string(),
        entry: None,
    };
    night.relink(&key, &forged.to_string());
    assert!(
        night
            .refused(link::PROMOTION)
            .contains("no promoter of policy epoch 1 sealed it")
    );
}

#[test]
fn what_is_not_here_is_undecidable_and_what_was_rewritten_is_refused() {
    let night = Night::new();
    night
        .repo
        .git(&["remote", "add", "origin", "https://git.example/shop.git"]);
    let tip = night.repo.git(&["rev-parse", "proofline/artifacts"]);
    night
        .repo
        .git(&["update-ref", "-d", "refs/heads/proofline/artifacts"]);
    let verified = night.verify();
    assert_eq!(verified.exit_code(), 3, "{verified:?}");
    let Verdict::Undecidable { missing, fetch } = &verified.verdict else {
        panic!("{verified:?}")
    };
    assert!(
        missing
            .iter()
            .any(|what| what.contains("refs/heads/proofline/artifacts is not here")),
        "{missing:?}"
    );
    assert_eq!(
        fetch.as_deref(),
        Some("git fetch origin refs/heads/proofline/artifacts:refs/heads/proofline/artifacts")
    );
    // A branch that begins again holds none of the old commits.
    night.repo.put("proofline/artifacts", "x", b"y");
    assert!(night.refused(link::ARTIFACT).contains("was rewritten"));
    night
        .repo
        .git(&["update-ref", "refs/heads/proofline/artifacts", &tip]);
    assert_eq!(night.verify().verdict, Verdict::Pass);

    night
        .repo
        .git(&["update-ref", "-d", "refs/heads/proofline/control"]);
    let verified = night.verify();
    assert_eq!(verified.exit_code(), 3, "{verified:?}");
    let evidence = verified
        .links
        .iter()
        .find(|link| link.gate == link::VERIFY_EVIDENCE)
        .expect("judged");
    assert!(
        evidence
            .verdict
            .to_string()
            .contains("nobody can judge its seal"),
        "{}",
        evidence.verdict
    );
}

#[test]
fn evidence_of_another_run_does_not_pass_for_this_one() {
    let night = Night::new();
    let other = run_all(
        &night.repo.workspace(),
        &run_id("night-0"),
        CommandKind::Verify,
        &Options::default(),
        None,
    )
    .expect("it runs");
    let bound = other.bound.expect("it is committed");
    night.relink(link::VERIFY_EVIDENCE, &Link::from(&bound).to_string());
    assert_eq!(night.refused(link::VERIFY_EVIDENCE), "it is of run night-0");
    let reference: RefName = bound.reference.parse().expect("a ref");
    assert_eq!(reference, night.repo.workspace().refs.evidence);
    let path = evidence::command_path(&run_id("night-0"), CommandKind::Verify, None);
    assert_eq!(bound.path, path.to_string());
    for (name, text) in [
        ("promotion @acme/support/SelectTool.v1", "nowhere"),
        ("artifact", "https://x.example"),
    ] {
        night.relink(name, text);
        let verified = night.verify();
        let link = verified
            .links
            .iter()
            .find(|link| link.gate == name)
            .expect("judged");
        assert!(
            link.verdict
                .to_string()
                .contains("is not `ref:commit:path`"),
            "{}",
            link.verdict
        );
    }
    let _: Value = serde_json::to_value(night.verify()).expect("it serialises");
}
