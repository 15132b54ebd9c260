//! Judging a canary by its receipts: a function of what was sealed at the start, the receipts and the time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::canon::CanonError;
use crate::domain::prove::stats::OutOfRange;
use crate::domain::prove::stats::eprocess::{self, CanaryRules, CanaryTest, failure_difference};
use crate::domain::prove::verdict::{GateResult, Label, Verdict};
use crate::id::{Digest, WriterId};

use super::super::receipt::{Arm, ArmCounts, Receipt, Source, set_digest};
use super::{Canary, Mode, Status, bucket_of};

/// What the receipts say about a canary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CanaryDecision {
    /// [`Status::Running`] while nothing is decided, else how it ends.
    pub status: Status,
    /// The gate's answer, with its figures.
    pub gate: GateResult,
    /// The control's counters.
    pub control: ArmCounts,
    /// The candidate's counters.
    pub candidate: ArmCounts,
    /// Pairs that counted, up to the deciding one.
    pub pairs: u64,
    /// Receipts that were looked at.
    pub receipts: u64,
    /// Digest that binds them.
    pub receipts_digest: Digest,
    /// What stands between the candidate and a pass, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// When, and how firmly, a canary is judged.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// Whether no more traffic will come: what is undecided now stays so.
    pub last: bool,
    /// How what the models answered is known: attested by whoever runs the canary.
    pub attested: Label,
}

/// Why receipts could not be judged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecideError {
    /// The canary's own numbers make no sense.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// A receipt has no canonical form.
    #[error(transparent)]
    Canon(#[from] CanonError),
}

/// Judge a canary by its receipts. Receipts of other canaries are passed over;
/// order and repetition make no difference.
pub fn decide(
    canary: &Canary,
    receipts: &[Receipt],
    moment: &Moment,
) -> Result<CanaryDecision, DecideError> {
    let sorted = Sorted::new(canary, receipts)?;
    let tally = Tally::new(canary, &sorted)?;
    let test = CanaryTest::replay(&tally.differences, canary.rules()?)?;
    let elapsed_ms = moment.now.duration_since(canary.started).as_millis();
    let overdue = elapsed_ms >= i128::from(canary.time_limit_ms);
    let error_rate = tally.candidate.failure_rate();
    let too_many_errors = error_rate.is_some_and(|rate| rate > canary.max_error_rate);

    let mut reasons = tally.faults.clone();
    for (name, counts) in [("control", &tally.control), ("candidate", &tally.candidate)] {
        if counts.is_mixed() {
            reasons.push(mixed(name, counts));
        }
    }
    let spoiled = !reasons.is_empty();
    let enough = test.pairs >= canary.pairs_needed();
    if let (true, Some(rate)) = (too_many_errors, error_rate) {
        reasons.push(format!(
            "the candidate failed on {:.1} % of its {} requests; the limit is {:.1} %",
            100.0 * rate,
            tally.candidate.requests,
            100.0 * canary.max_error_rate
        ));
    }

    use eprocess::CanaryDecision as Test;
    let status = match test.decision {
        Test::Harm { at } => {
            reasons.insert(
                0,
                format!("the candidate fails more often than the control, as pair {at} showed"),
            );
            Status::Harmed
        }
        _ if enough && too_many_errors => Status::Harmed,
        _ if spoiled => Status::Inconclusive,
        Test::NonInferior { .. } if canary.source == Source::Recorded && !too_many_errors => {
            Status::Passed
        }
        _ if canary.source == Source::Exercise && enough => Status::Rehearsed,
        Test::Inconclusive { at } => {
            reasons.push(format!(
                "after {at} pairs, all that were allowed, neither harm nor its absence was shown"
            ));
            Status::Inconclusive
        }
        _ if overdue || moment.last => {
            reasons.push(undecided(canary, &test, &tally, overdue));
            Status::Inconclusive
        }
        _ => Status::Running,
    };
    if status == Status::Running {
        reasons.push(undecided(canary, &test, &tally, false));
    }
    let verdict = match status {
        Status::Passed | Status::Rehearsed => Verdict::Pass,
        Status::Running => Verdict::Undecidable {
            missing: reasons.clone(),
            fetch: Some(format!("proofline exercise {}", canary.signature)),
        },
        Status::Harmed | Status::Inconclusive | Status::Stopped => Verdict::Refuse {
            reasons: reasons.clone(),
        },
    };
    let gate = figures(
        GateResult::new("canary", verdict),
        canary,
        status,
        &test,
        &tally,
        &moment.attested,
    );
    Ok(CanaryDecision {
        status,
        gate,
        pairs: test.pairs,
        receipts: sorted.receipts.len() as u64,
        receipts_digest: set_digest(sorted.receipts.iter().copied())?,
        control: tally.control,
        candidate: tally.candidate,
        reasons,
    })
}

impl CanaryDecision {
    /// The same figures, ended by hand: the control stays.
    pub fn stopped(mut self, reason: &str) -> Self {
        self.status = Status::Stopped;
        self.reasons = vec![format!("stopped: {reason}")];
        self.gate.verdict = Verdict::Refuse {
            reasons: self.reasons.clone(),
        };
        for figure in self
            .gate
            .figures
            .iter_mut()
            .filter(|figure| figure.name == "status")
        {
            figure.value = Status::Stopped.as_str().into();
        }
        self
    }
}

fn mixed(arm: &str, counts: &ArmCounts) -> String {
    let who: Vec<&str> = counts.answered_by.iter().map(String::as_str).collect();
    if counts.fallbacks > 0 {
        format!(
            "in the {arm} arm a stand-in answered {} times ({}): this is no trial of the artifact",
            counts.fallbacks,
            who.join(", ")
        )
    } else {
        format!(
            "more than one model answered in the {arm} arm: {}",
            who.join(", ")
        )
    }
}

fn undecided(canary: &Canary, test: &CanaryTest, tally: &Tally, overdue: bool) -> String {
    let mut text = if tally.candidate.requests + tally.control.requests == 0 {
        "there is no data: no receipt belongs to this canary".to_owned()
    } else if test.pairs < canary.pairs_needed() {
        format!(
            "{} of at least {} pairs are there",
            test.pairs,
            canary.pairs_needed()
        )
    } else {
        format!(
            "after {} pairs the evidence that the candidate is no worse is {:.3} of the {:.1} needed",
            test.pairs,
            test.non_inferiority.wealth,
            canary
                .rules()
                .map_or(f64::NAN, CanaryRules::evidence_needed)
        )
    };
    if overdue {
        text.push_str(&format!(
            ", and its {} are over",
            duration(canary.time_limit_ms)
        ));
    }
    text
}

/// A duration for people.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn figures(
    gate: GateResult,
    canary: &Canary,
    status: Status,
    test: &CanaryTest,
    tally: &Tally,
    attested: &Label,
) -> GateResult {
    let recomputed = &Label::Recomputed;
    let mut gate = gate
        .with("status", status.as_str(), recomputed)
        .with("source", canary.source.as_str(), attested)
        .with("mode", canary.mode.as_str(), recomputed)
        .with("pairs", test.pairs, recomputed)
        .with("pairs needed", canary.pairs_needed(), recomputed)
        .with("mean difference", test.mean_difference(), recomputed)
        .with("harm evidence", test.harm.wealth, recomputed)
        .with(
            "non-inferiority evidence",
            test.non_inferiority.wealth,
            recomputed,
        )
        .with("evidence needed", 1.0 / canary.alpha_t, recomputed)
        .with("harm margin", canary.harm_margin, recomputed)
        .with("start", canary.t, recomputed)
        .with("alpha_t", canary.alpha_t, recomputed);
    for (arm, counts) in [("control", &tally.control), ("candidate", &tally.candidate)] {
        gate = gate
            .with(&format!("{arm} requests"), counts.requests, attested)
            .with(&format!("{arm} errors"), counts.errors, attested)
            .with(
                &format!("{arm} format failures"),
                counts.format_failures,
                attested,
            )
            .with(&format!("{arm} missing"), counts.missing, recomputed)
            .with(
                &format!("{arm} answered by"),
                counts.answered_by.iter().cloned().collect::<Vec<_>>(),
                attested,
            );
        if let Some(rate) = counts.failure_rate() {
            gate = gate.with(&format!("{arm} failure rate"), rate, recomputed);
        }
    }
    gate
}

/// The receipts of one canary, each once, in the order of arrival: by number, then by writer, then by arm.
struct Sorted<'a> {
    receipts: Vec<&'a Receipt>,
    faults: Vec<String>,
}

impl<'a> Sorted<'a> {
    fn new(canary: &Canary, receipts: &'a [Receipt]) -> Result<Self, DecideError> {
        let place: BTreeMap<&WriterId, usize> = canary.writers.iter().zip(0..).collect();
        let mut faults = BTreeMap::new();
        let mut fault = |what: &'static str| *faults.entry(what).or_insert(0_u64) += 1;
        let mut kept: BTreeMap<(u64, usize, Arm), &Receipt> = BTreeMap::new();
        for receipt in receipts
            .iter()
            .filter(|receipt| receipt.canary.as_ref() == Some(&canary.id))
        {
            let Some(writer) = place.get(&receipt.writer) else {
                continue;
            };
            if receipt.signature != canary.signature || !receipt.has_own_id() {
                fault("do not have the id that their fields ask for");
            } else if receipt.source != canary.source {
                fault("come from another source than the one sealed at the start");
            } else if receipt.arm == Arm::Active
                || receipt.artifact != *canary.artifact(receipt.arm)
            {
                fault("name another artifact than their arm's");
            } else if canary.mode == Mode::Split
                && bucket_of(&receipt.key, canary.rollout_percent)? != receipt.arm
            {
                fault("were answered by the arm that their key does not belong to");
            } else {
                let known = kept
                    .entry((receipt.index, *writer, receipt.arm))
                    .or_insert(receipt);
                if *known != receipt {
                    fault("say two things under one id");
                }
            }
        }
        Ok(Self {
            receipts: kept.into_values().collect(),
            faults: faults
                .into_iter()
                .map(|(what, count)| format!("{count} receipts {what}"))
                .collect(),
        })
    }

    /// Per writer: how many numbers up to the highest have no receipt.
    fn gaps(&self) -> Vec<String> {
        let mut seen: BTreeMap<&WriterId, BTreeSet<u64>> = BTreeMap::new();
        for receipt in &self.receipts {
            seen.entry(&receipt.writer)
                .or_default()
                .insert(receipt.index);
        }
        seen.into_iter()
            .filter_map(|(writer, numbers)| {
                let expected = numbers.last().map_or(0, |last| last + 1);
                let gone = expected - numbers.len() as u64;
                (gone > 0).then(|| {
                    format!(
                        "{gone} of the first {expected} requests that {writer} took have no receipt"
                    )
                })
            })
            .collect()
    }
}

/// Counters, and the differences of the pairs in order.
#[derive(Default)]
struct Tally {
    control: ArmCounts,
    candidate: ArmCounts,
    differences: Vec<f64>,
    faults: Vec<String>,
}

impl Tally {
    fn new(canary: &Canary, sorted: &Sorted<'_>) -> Result<Self, DecideError> {
        let mut tally = Self {
            faults: sorted.faults.clone(),
            ..Self::default()
        };
        tally.faults.extend(sorted.gaps());
        match canary.mode {
            Mode::Paired => tally.pair_by_number(canary, sorted),
            Mode::Split => tally.pair_by_arrival(sorted),
        }
        Ok(tally)
    }

    /// Both arms answered the same request; the one that left no receipt failed.
    fn pair_by_number(&mut self, canary: &Canary, sorted: &Sorted<'_>) {
        let mut used = BTreeSet::new();
        let same = |a: &&Receipt, b: &&Receipt| a.index == b.index && a.writer == b.writer;
        for pair in sorted.receipts.chunk_by(same) {
            let of = |arm: Arm| pair.iter().find(|receipt| receipt.arm == arm).copied();
            let (control, candidate) = (of(Arm::Control), of(Arm::Candidate));
            if let (Some(control), Some(candidate)) = (control, candidate)
                && (control.input != candidate.input || control.key != candidate.key)
            {
                self.faults.push(format!(
                    "the arms answered different inputs under number {}",
                    control.index
                ));
                continue;
            }
            // An exercise row speaks once, however many writers rehearsed on it.
            if canary.source == Source::Exercise && !used.insert(pair[0].key) {
                continue;
            }
            for (counts, receipt) in [
                (&mut self.control, control),
                (&mut self.candidate, candidate),
            ] {
                match receipt {
                    Some(receipt) => counts.add(receipt),
                    None => counts.add_missing(),
                }
            }
            let failed = |receipt: Option<&Receipt>| receipt.is_none_or(Receipt::failed);
            self.differences
                .push(failure_difference(failed(candidate), failed(control)));
        }
    }

    /// Each request has one arm; the k-th of one is paired with the k-th of the other.
    fn pair_by_arrival(&mut self, sorted: &Sorted<'_>) {
        let (mut control, mut candidate) = (Vec::new(), Vec::new());
        for receipt in &sorted.receipts {
            if receipt.arm == Arm::Candidate {
                self.candidate.add(receipt);
                candidate.push(receipt.failed());
            } else {
                self.control.add(receipt);
                control.push(receipt.failed());
            }
        }
        self.differences = candidate
            .into_iter()
            .zip(control)
            .map(|(candidate, control)| failure_difference(candidate, control))
            .collect();
    }
}
