//! Links to what is on the artifacts branch: programs, signatures and reports,
//! whose figures are computed again from the examples beside them.

use std::collections::BTreeMap;

use crate::canon;
use crate::domain::improve::artifact::Program;
use crate::domain::improve::report::{
    Comparison, CompileReport, EvalReport, ExampleOutcome, Outcome, Usage,
};
use crate::domain::improve::signature::Signature;
use crate::domain::prove::gate::HoldoutReport;
use crate::domain::prove::holdout::{Attempt, Closing, Entry};
use crate::domain::prove::stats::alpha::Alpha;
use crate::domain::prove::verdict::Figure;
use crate::id::{Digest, SignatureId};
use crate::records::{artifacts::Artifacts, document, ledger};
use crate::schema::SchemaName;
use crate::seal::Namespace;
use crate::store::TreePath;

use super::{Check, Fault, Found, Place, attested, ensure, recomputed};

impl Check<'_> {
    pub(super) fn frozen(&self, place: &Place<'_>, signature: &SignatureId) -> Found {
        let frozen: Signature = place.read(Some(SchemaName::Signature))?;
        self.frozen_as(&frozen, signature, &place.named(0)?)
    }

    fn frozen_as(&self, frozen: &Signature, signature: &SignatureId, named: &Digest) -> Found {
        let digest = frozen.digest()?;
        ensure(digest == *named, || {
            format!("its digest is {digest}, and its name says {named}")
        })?;
        ensure(frozen.id == *signature, || {
            format!("it is the signature {}", frozen.id)
        })?;
        Ok(vec![recomputed("digest", digest.to_string())])
    }

    /// Whether every frozen version of a signature is what its name says; `None` when there is none.
    pub(super) fn any_frozen(&self, signature: &SignatureId) -> Result<Option<Vec<Figure>>, Fault> {
        let reference = &self.workspace.refs.artifacts;
        let Some(snapshot) = self.workspace.store.snapshot(reference)? else {
            return Ok(None);
        };
        let folder: TreePath = format!("signatures/{}", signature.path()).parse()?;
        let mut count = 0;
        for (path, _) in snapshot.walk(Some(&folder))? {
            let name = path
                .name()
                .strip_suffix(".yaml")
                .unwrap_or_default()
                .to_owned();
            let frozen: Option<Signature> = document::load(
                Some(&snapshot),
                reference,
                &path,
                Some(SchemaName::Signature),
            )?;
            let frozen = frozen.ok_or_else(|| Fault::Wrong(format!("{path} is gone")))?;
            self.frozen_as(&frozen, signature, &format!("sha256:{name}").parse()?)?;
            count += 1;
        }
        Ok((count > 0).then(|| vec![recomputed("frozen versions", count)]))
    }

    pub(super) fn compile_report(&self, place: &Place<'_>, signature: &SignatureId) -> Found {
        let report: CompileReport = place.read(Some(SchemaName::CompileReport))?;
        ensure(report.signature == *signature, || {
            format!("it is about {}", report.signature)
        })?;
        ensure(report.job.interface.signature == *signature, || {
            "its job is about another signature".to_owned()
        })?;
        let job_hash = report.job.hash()?;
        ensure(report.job_hash == job_hash, || {
            format!("its job has digest {job_hash}, not {}", report.job_hash)
        })?;
        let key = canon::digest(&(job_hash, report.train.digest, report.dev.digest))?;
        let named = place.named(1)?;
        ensure(key == named, || {
            format!("its job and rows come to {key}, and its folder is {named}")
        })?;
        let outcomes = examples(place, &report.examples)?;
        let empty = Vec::new();
        let of = |artifact: &Digest| outcomes.get(artifact).unwrap_or(&empty);
        let of_winner: BTreeMap<_, _> = of(&report.winner)
            .iter()
            .map(|line| (&line.example, &line.outcome))
            .collect();
        let comparison = Comparison::of(of(&report.base).iter().filter_map(|line| {
            of_winner
                .get(&line.example)
                .map(|outcome| (&line.outcome, *outcome))
        }));
        ensure(comparison == report.comparison, || {
            "its comparison does not follow from its examples".to_owned()
        })?;
        let mut usage = Usage::default();
        for line in outcomes.values().flatten() {
            usage.add(&line.outcome.usage);
        }
        ensure(usage == report.usage, || {
            "its usage is not the sum over its examples".to_owned()
        })?;
        Ok(vec![
            recomputed("job_hash", job_hash.to_string()),
            recomputed("dev rows", comparison.rows),
            recomputed("base mean", comparison.base_mean),
            recomputed("winner mean", comparison.winner_mean),
            recomputed("winner", report.winner.to_string()),
        ])
    }

    pub(super) fn eval_report(&self, place: &Place<'_>, signature: &SignatureId) -> Found {
        let report: EvalReport = place.read(Some(SchemaName::EvalReport))?;
        ensure(report.signature == *signature, || {
            format!("it is about {}", report.signature)
        })?;
        let outcomes = examples(place, &report.examples)?;
        let lines = outcomes
            .get(&report.artifact)
            .map(Vec::as_slice)
            .unwrap_or_default();
        ensure(
            outcomes.len() <= 1 && lines.len() as u64 == report.data.rows,
            || {
                format!(
                    "it is about {} rows, and its examples are {}",
                    report.data.rows,
                    lines.len()
                )
            },
        )?;
        let sum: f64 = lines.iter().map(|line| line.outcome.score).sum();
        let mean = if lines.is_empty() {
            0.0
        } else {
            sum / lines.len() as f64
        };
        ensure((mean - report.mean).abs() <= 1e-12, || {
            format!("its mean is {}, and its examples give {mean}", report.mean)
        })?;
        Ok(vec![
            recomputed("rows", lines.len()),
            recomputed("mean", mean),
        ])
    }

    pub(super) fn artifact(&self, place: &Place<'_>, signature: &SignatureId) -> Found {
        let program: Program = place.read(Some(SchemaName::Artifact))?;
        let (id, named) = (program.artifact_id()?, place.named(0)?);
        ensure(id == named, || {
            format!("its digest is {id}, and its name says {named}")
        })?;
        ensure(program.interface.signature == *signature, || {
            format!("it is a program of {}", program.interface.signature)
        })?;
        let weights = Artifacts::new(&self.workspace.refs, Some(&place.snapshot))
            .weights(signature, &program)?;
        let mut figures = vec![recomputed("artifact_id", id.to_string())];
        figures.extend(weights.map(|bytes| recomputed("weights", Digest::of(&bytes).to_string())));
        Ok(figures)
    }

    pub(super) fn holdout_report(&self, place: &Place<'_>, signature: &SignatureId) -> Found {
        let report: HoldoutReport = place.read(Some(SchemaName::HoldoutReport))?;
        let named = place.named(1)?;
        ensure(report.attempt == named, || {
            format!(
                "it is about attempt {}, and its folder is {named}",
                report.attempt
            )
        })?;
        let ledger_ref = &self.workspace.refs.ledger;
        let snapshot = self.workspace.store.snapshot(ledger_ref)?.ok_or_else(|| {
            self.missing(format!("{ledger_ref} is not here"), ledger_ref.as_str())
        })?;
        let entries = ledger::entries(&self.workspace.refs, Some(&snapshot), signature)?;
        let find = |wanted: &dyn Fn(&Entry) -> bool| {
            entries.iter().find(|entry| wanted(&entry.body)).cloned()
        };
        let reserved = find(
            &|entry| matches!(entry, Entry::Reserved(attempt) if attempt.digest().is_ok_and(|digest| digest == named)),
        );
        let closed =
            find(&|entry| matches!(entry, Entry::Closed(closing) if closing.attempt == named));
        let (Some(reserved), Some(closed)) = (reserved, closed) else {
            return Err(Fault::Wrong(
                "the ledger does not hold its reservation and its closing".to_owned(),
            ));
        };
        self.sealer(&reserved, Namespace::Ledger)?;
        let by = self.sealer(&closed, Namespace::Ledger)?;
        let (Entry::Reserved(attempt), Entry::Closed(closing)) = (&reserved.body, &closed.body)
        else {
            return Err(Fault::Wrong(
                "the ledger's entries are of another kind".to_owned(),
            ));
        };
        self.report_follows(place, &report, attempt, closing)?;
        Ok(vec![
            recomputed("p", report.p),
            recomputed("alpha_t", report.alpha_t),
            recomputed("control mean", report.control_mean),
            recomputed("candidate mean", report.candidate_mean),
            attested("passed", closing.passed, &by),
        ])
    }

    /// The report is the one that was sealed, and its figures follow from its examples.
    fn report_follows(
        &self,
        place: &Place<'_>,
        report: &HoldoutReport,
        attempt: &Attempt,
        closing: &Closing,
    ) -> Result<(), Fault> {
        let digest = Digest::of(&place.bytes);
        ensure(closing.report == Some(digest), || {
            format!("its bytes have digest {digest}, which is not what the closing seals")
        })?;
        let outcomes = examples(place, &report.examples)?;
        let of = |artifact: &Digest| -> Vec<&ExampleOutcome> {
            outcomes.get(artifact).into_iter().flatten().collect()
        };
        let (control, candidate) = (of(&attempt.control), of(&attempt.candidate));
        let same_rows = control
            .iter()
            .map(|line| &line.example)
            .eq(candidate.iter().map(|line| &line.example));
        ensure(same_rows && control.len() as u64 == attempt.rows, || {
            "its examples are not the reserved rows, once for each program".to_owned()
        })?;
        let pairs: Vec<(Outcome, Outcome)> = control
            .into_iter()
            .zip(candidate)
            .map(|(control, candidate)| (control.outcome.clone(), candidate.outcome.clone()))
            .collect();
        let alpha_t =
            Alpha::new(attempt.alpha_t).map_err(|error| Fault::Wrong(error.to_string()))?;
        let is_binary = report.test == crate::domain::prove::gate::Test::Mcnemar;
        // The seed is drawn from the reservation, so that nobody can look for a lucky one.
        let seed = u64::from_be_bytes(
            report.attempt.as_bytes()[..8]
                .try_into()
                .expect("because a digest has 32 bytes"),
        );
        let again = HoldoutReport::compare(
            report.attempt,
            &pairs,
            is_binary,
            alpha_t,
            seed,
            report.examples,
        )
        .map_err(|error| Fault::Wrong(error.to_string()))?;
        ensure(again == *report, || {
            "its figures do not follow from its examples".to_owned()
        })?;
        ensure(report.passed() == closing.passed, || {
            "the closing says otherwise than its figures".to_owned()
        })
    }
}

/// The lines of `examples.jsonl` beside a report, by artifact, in their order; their bytes must have the digest.
fn examples(
    place: &Place<'_>,
    digest: &Digest,
) -> Result<BTreeMap<Digest, Vec<ExampleOutcome>>, Fault> {
    let bytes = place.beside("examples.jsonl")?;
    let found = Digest::of(&bytes);
    ensure(found == *digest, || {
        format!("examples.jsonl beside it has digest {found}, not {digest}")
    })?;
    let mut outcomes: BTreeMap<Digest, Vec<ExampleOutcome>> = BTreeMap::new();
    for (index, line) in bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .enumerate()
    {
        let line: ExampleOutcome = document::from_line("examples.jsonl", index + 1, line)?;
        outcomes.entry(line.artifact).or_default().push(line);
    }
    Ok(outcomes)
}
