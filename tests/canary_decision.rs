//! A canary is judged by what was sealed and by the receipts: tables of both, and what they come to.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use jiff::{SignedDuration, Timestamp};
use proofline::domain::improve::canary::{
    Canary, CanaryDecision, Measured, Mode, Moment, Status, arm_of, bucket_of, decide,
    expected_pairs, identity, next_number,
};
use proofline::domain::improve::receipt::{Arm, Outcome, Receipt, Source, key_digest, receipt_id};
use proofline::domain::improve::report::{Failure, Rows, Usage};
use proofline::domain::improve::signature::Strategy;
use proofline::domain::prove::stats::alpha::Alpha;
use proofline::domain::prove::stats::rng::Rng;
use proofline::domain::prove::verdict::{Label, Verdict};
use proofline::id::{Digest, SignatureId, WriterId};

fn signature() -> SignatureId {
    "@acme/support/SelectTool.v1".parse().expect("an id")
}

fn writer(name: &str) -> WriterId {
    name.parse().expect("an id")
}

fn start() -> Timestamp {
    "2026-11-21T02:00:00Z".parse().expect("a time")
}

fn canary(mode: Mode, source: Source) -> Canary {
    let (control, candidate) = (Digest::of(b"control"), Digest::of(b"candidate"));
    let (id, salt) = identity(&signature(), None, &control, &candidate, 1);
    let alpha = Alpha::new(0.05).expect("a level");
    let canary = Canary {
        schema: Canary::SCHEMA.to_owned(),
        id,
        signature: signature(),
        run: None,
        epoch: 1,
        control,
        candidate,
        salt,
        seed: 1,
        rollout_percent: 50,
        mode,
        outcome: Measured::ErrorOrFormat,
        harm_margin: 0.05,
        alpha: 0.05,
        t: 1,
        alpha_t: alpha.at_attempt(NonZeroU64::MIN).get(),
        min_pairs: 40,
        max_pairs: 1_000,
        max_error_rate: 0.1,
        time_limit_ms: 3_600_000,
        source,
        rows: (source == Source::Exercise).then(|| Rows {
            rows: 120,
            digest: Digest::of(b"rows"),
        }),
        writers: vec![writer("w-1"), writer("w-2")],
        started: start(),
        status: Status::Running,
        decision: None,
        ended: None,
    };
    assert_eq!(canary.faults(), Vec::<String>::new());
    canary
}

fn receipt(canary: &Canary, writer: &WriterId, index: u64, arm: Arm, ok: bool) -> Receipt {
    let key = key_digest(&canary.salt, &format!("{writer}-{index}"));
    Receipt {
        schema: Receipt::SCHEMA.to_owned(),
        id: receipt_id(
            &canary.signature,
            proofline::domain::improve::receipt::Scope::Canary(&canary.id),
            writer,
            index,
            arm,
        ),
        signature: canary.signature.clone(),
        artifact: *canary.artifact(arm),
        strategy: Strategy::Direct,
        arm,
        canary: Some(canary.id.clone()),
        run: None,
        writer: writer.clone(),
        index,
        source: canary.source,
        key,
        input: Digest::of(format!("{index}").as_bytes()),
        raw_input: None,
        output: ok.then(|| Digest::of(b"output")),
        outcome: if ok {
            Outcome::Ok
        } else {
            Outcome::Error {
                failure: Failure::Decode,
            }
        },
        format_ok: ok,
        expected_match: None,
        answered_by: Some("host/model".to_owned()),
        fallback: None,
        usage: Usage::default(),
        latency_ms: 1,
        repairs: 0,
        ts: start(),
    }
}

/// Receipts of `count` requests, both arms; a predicate says which failed.
fn pairs(canary: &Canary, count: u64, failed: impl Fn(u64, Arm) -> bool) -> Vec<Receipt> {
    let writer = &canary.writers[0];
    (0..count)
        .flat_map(|index| {
            [Arm::Control, Arm::Candidate]
                .map(|arm| receipt(canary, writer, index, arm, !failed(index, arm)))
        })
        .collect()
}

/// The arm that each of the first requests of a split canary falls to.
fn split(canary: &Canary, count: u64, failed: impl Fn(u64, Arm) -> bool) -> Vec<Receipt> {
    let writer = &canary.writers[0];
    (0..count)
        .map(|index| {
            let key = key_digest(&canary.salt, &format!("{writer}-{index}"));
            let arm = bucket_of(&key, canary.rollout_percent).expect("a share");
            receipt(canary, writer, index, arm, !failed(index, arm))
        })
        .collect()
}

fn at(minutes: i64, last: bool) -> Moment {
    Moment {
        now: start() + SignedDuration::from_mins(minutes),
        last,
        attested: Label::AttestedBy("runner-1".parse().expect("a principal")),
    }
}

fn judge(canary: &Canary, receipts: &[Receipt]) -> CanaryDecision {
    decide(canary, receipts, &at(1, false)).expect("decided")
}

#[track_caller]
fn expect(decision: &CanaryDecision, status: Status, reason: &str) {
    assert_eq!(decision.status, status, "{:?}", decision.reasons);
    let reasons = decision.reasons.join("; ");
    assert!(reasons.contains(reason), "`{reason}` is not in `{reasons}`");
    let (pass, running) = (
        matches!(status, Status::Passed | Status::Rehearsed),
        status == Status::Running,
    );
    match &decision.gate.verdict {
        Verdict::Pass => assert!(pass),
        Verdict::Undecidable { .. } => assert!(running),
        Verdict::Refuse { reasons } => assert!(!pass && !running && !reasons.is_empty()),
    }
}

#[test]
fn no_data_is_never_a_pass() {
    for (mode, source) in [
        (Mode::Paired, Source::Exercise),
        (Mode::Paired, Source::Recorded),
        (Mode::Split, Source::Recorded),
    ] {
        let canary = canary(mode, source);
        expect(&judge(&canary, &[]), Status::Running, "no data");
        for moment in [at(1, true), at(61, false), at(61, true)] {
            let decision = decide(&canary, &[], &moment).expect("decided");
            expect(&decision, Status::Inconclusive, "no data");
        }
        // One arm alone is no data either: a split canary that the candidate got nothing of.
        let control_alone: Vec<Receipt> = split(&canary, 400, |_, _| false)
            .into_iter()
            .filter(|receipt| receipt.arm == Arm::Control)
            .zip(0..)
            .map(|(mut receipt, index)| {
                receipt.index = index;
                receipt
            })
            .collect();
        let decision = decide(&canary, &control_alone, &at(1, true)).expect("decided");
        assert_ne!(decision.status, Status::Passed);
        assert_ne!(decision.status, Status::Rehearsed);
    }
}

#[test]
fn what_pairs_come_to() {
    use Arm::{Candidate, Control};
    type Failing = fn(u64, Arm) -> bool;
    let never: Failing = |_, _| false;
    let candidate_quarter: Failing = |index, arm| arm == Candidate && index % 4 == 0;
    let both_always: Failing = |_, _| true;
    let candidate_some: Failing =
        |index, arm| arm == Candidate && index % 5 == 0 || arm == Control && index % 5 == 1;
    let control_quarter: Failing = |index, arm| arm == Control && index % 4 == 0;
    let table: [(&str, Source, u64, Failing, Status, &str); 11] = [
        (
            "a few good pairs",
            Source::Recorded,
            30,
            never,
            Status::Running,
            "30 of at least 40",
        ),
        (
            "good pairs short of proof",
            Source::Recorded,
            60,
            never,
            Status::Running,
            "evidence",
        ),
        (
            "enough good pairs",
            Source::Recorded,
            400,
            never,
            Status::Passed,
            "",
        ),
        (
            "a better candidate",
            Source::Recorded,
            400,
            control_quarter,
            Status::Passed,
            "",
        ),
        (
            "harm",
            Source::Recorded,
            400,
            candidate_quarter,
            Status::Harmed,
            "more often than the control",
        ),
        (
            "an outage of both",
            Source::Recorded,
            400,
            both_always,
            Status::Harmed,
            "100.0 %",
        ),
        (
            "as many failures, too many",
            Source::Recorded,
            400,
            candidate_some,
            Status::Harmed,
            "20.0 %",
        ),
        (
            "a short rehearsal",
            Source::Exercise,
            39,
            never,
            Status::Running,
            "39 of at least 40",
        ),
        (
            "a rehearsal",
            Source::Exercise,
            40,
            never,
            Status::Rehearsed,
            "",
        ),
        (
            "a long rehearsal is no pass",
            Source::Exercise,
            120,
            never,
            Status::Rehearsed,
            "",
        ),
        (
            "harm in a rehearsal",
            Source::Exercise,
            120,
            candidate_quarter,
            Status::Harmed,
            "more often",
        ),
    ];
    for (name, source, count, failing, status, reason) in table {
        let canary = canary(Mode::Paired, source);
        let decision = judge(&canary, &pairs(&canary, count, failing));
        assert_eq!(decision.status, status, "{name}: {:?}", decision.reasons);
        expect(&decision, status, reason);
    }
}

#[test]
fn harm_stops_at_once_and_errors_wait_for_enough_pairs() {
    let canary = canary(Mode::Paired, Source::Recorded);
    let first_harm = (1..=40)
        .find(|count| {
            judge(
                &canary,
                &pairs(&canary, *count, |_, arm| arm == Arm::Candidate),
            )
            .status
                == Status::Harmed
        })
        .expect("a candidate that always fails is stopped before the fewest pairs of a pass");
    assert!(first_harm < 15, "{first_harm}");
    // What comes later changes nothing.
    let mut later = pairs(&canary, 400, |index, arm| {
        arm == Arm::Candidate && index < first_harm
    });
    later.truncate(800);
    assert_eq!(judge(&canary, &later).pairs, first_harm);
    // Both failing is no harm, and before the fewest pairs nothing is concluded from it.
    expect(
        &judge(&canary, &pairs(&canary, 39, |_, _| true)),
        Status::Running,
        "39 of at least 40",
    );
}

#[test]
fn the_end_of_time_and_of_pairs() {
    let mut canary = canary(Mode::Paired, Source::Recorded);
    let some = pairs(&canary, 60, |_, _| false);
    expect(
        &decide(&canary, &some, &at(59, false)).expect("decided"),
        Status::Running,
        "",
    );
    expect(
        &decide(&canary, &some, &at(60, false)).expect("decided"),
        Status::Inconclusive,
        "60 min are over",
    );
    expect(
        &decide(&canary, &some, &at(1, true)).expect("decided"),
        Status::Inconclusive,
        "evidence",
    );
    canary.max_pairs = 60;
    expect(
        &judge(&canary, &some),
        Status::Inconclusive,
        "after 60 pairs",
    );
    // A pass that was reached in time stays one.
    canary.max_pairs = 1_000;
    let enough = pairs(&canary, 400, |_, _| false);
    expect(
        &decide(&canary, &enough, &at(600, true)).expect("decided"),
        Status::Passed,
        "",
    );
}

#[test]
fn a_missing_outcome_is_a_failure() {
    let canary = canary(Mode::Paired, Source::Recorded);
    let without = |arm: Arm| -> Vec<Receipt> {
        let all = pairs(&canary, 200, |_, _| false);
        all.into_iter()
            .filter(|receipt| receipt.arm != arm || receipt.index % 4 != 0)
            .collect()
    };
    let decision = judge(&canary, &without(Arm::Candidate));
    expect(&decision, Status::Harmed, "more often");
    assert_eq!(decision.candidate.missing, 50);
    assert_eq!(decision.candidate.requests, 200);
    assert_eq!(judge(&canary, &without(Arm::Control)).control.missing, 50);
}

#[test]
fn what_spoils_a_canary() {
    let canary = canary(Mode::Paired, Source::Recorded);
    let good = pairs(&canary, 400, |_, _| false);
    expect(&judge(&canary, &good), Status::Passed, "");
    type Spoil = fn(&mut Vec<Receipt>);
    let table: [(&str, Spoil, &str); 7] = [
        (
            "a gap",
            |r| r.retain(|receipt| receipt.index != 7),
            "1 of the first 400 requests",
        ),
        (
            "another model",
            |r| r[1].answered_by = Some("host/other".into()),
            "more than one model answered in the candidate arm",
        ),
        (
            "another model for the control",
            |r| r[0].answered_by = Some("host/model@fp_2".into()),
            "in the control arm",
        ),
        (
            "a stand-in",
            |r| {
                r.iter_mut()
                    .filter(|r| r.arm == Arm::Candidate)
                    .for_each(|r| r.fallback = Some("circuit open".into()))
            },
            "stand-in answered 400 times",
        ),
        (
            "a forged id",
            |r| r[3].index = 5_000,
            "the id that their fields ask for",
        ),
        (
            "another input for one arm",
            |r| r[3].input = Digest::of(b"easier"),
            "different inputs under number 1",
        ),
        (
            "two stories",
            |r| {
                let mut other = r[3].clone();
                other.latency_ms += 1;
                r.push(other);
            },
            "two things under one id",
        ),
    ];
    for (name, spoil, reason) in table {
        let mut receipts = good.clone();
        spoil(&mut receipts);
        let decision = judge(&canary, &receipts);
        assert_eq!(
            decision.status,
            Status::Inconclusive,
            "{name}: {:?}",
            decision.reasons
        );
        expect(&decision, Status::Inconclusive, reason);
    }
    // An arm's artifact and the sealed source are part of what is on trial.
    let mut receipts = good.clone();
    receipts
        .iter_mut()
        .filter(|receipt| receipt.arm == Arm::Candidate)
        .for_each(|receipt| receipt.artifact = canary.control);
    expect(
        &judge(&canary, &receipts),
        Status::Harmed,
        "400 receipts name another artifact",
    );
    let mut receipts = good;
    receipts
        .iter_mut()
        .for_each(|receipt| receipt.source = Source::Exercise);
    expect(
        &judge(&canary, &receipts),
        Status::Inconclusive,
        "another source",
    );
}

#[test]
fn nobody_answering_is_no_second_identity() {
    let canary = canary(Mode::Paired, Source::Recorded);
    let mut receipts = pairs(&canary, 400, |index, _| index % 50 == 0);
    for receipt in receipts.iter_mut().filter(|receipt| receipt.failed()) {
        receipt.outcome = Outcome::Error {
            failure: Failure::Transport,
        };
        receipt.answered_by = None;
    }
    let decision = judge(&canary, &receipts);
    expect(&decision, Status::Passed, "");
    assert_eq!(
        (
            decision.candidate.errors,
            decision.candidate.format_failures
        ),
        (8, 0)
    );
    assert_eq!(
        decision.candidate.answered_by,
        BTreeSet::from(["host/model".to_owned()])
    );
}

#[test]
fn others_receipts_count_only_when_sealed() {
    let canary = canary(Mode::Paired, Source::Recorded);
    let mut receipts = pairs(&canary, 200, |_, _| false);
    for index in 0..200 {
        for arm in [Arm::Control, Arm::Candidate] {
            receipts.push(receipt(&canary, &canary.writers[1], index, arm, true));
            receipts.push(receipt(&canary, &writer("w-stranger"), index, arm, false));
        }
    }
    let decision = judge(&canary, &receipts);
    assert_eq!(
        decision.receipts, 800,
        "both sealed writers' and nobody else's"
    );
    expect(&decision, Status::Passed, "");
    // Order and repetition make no difference, to the digest either.
    let mut mixed = receipts.clone();
    Rng::new(3).shuffle(&mut mixed);
    mixed.extend(receipts[..40].to_vec());
    assert_eq!(judge(&canary, &mixed), decision);
}

#[test]
fn an_exercise_row_speaks_once() {
    let canary = canary(Mode::Paired, Source::Exercise);
    let mut receipts = pairs(&canary, 30, |_, _| false);
    for mut receipt in pairs(&canary, 30, |_, _| false) {
        // The other writer rehearsed on the same rows.
        let first_key = receipt.key;
        receipt = self::receipt(
            &canary,
            &canary.writers[1],
            receipt.index,
            receipt.arm,
            true,
        );
        receipt.key = first_key;
        receipts.push(receipt);
    }
    expect(
        &judge(&canary, &receipts),
        Status::Running,
        "30 of at least 40",
    );
    // With fewer rows than a pass asks for, all of them must have spoken.
    let mut small = canary.clone();
    small.rows = Some(Rows {
        rows: 30,
        digest: Digest::of(b"rows"),
    });
    expect(&judge(&small, &receipts), Status::Rehearsed, "");
    expect(
        &judge(&small, &receipts[..58]),
        Status::Running,
        "29 of at least 30",
    );
}

#[test]
fn a_split_canary_pairs_by_arrival() {
    let canary = canary(Mode::Split, Source::Recorded);
    let decision = judge(&canary, &split(&canary, 1_000, |_, _| false));
    expect(&decision, Status::Passed, "");
    assert_eq!(
        decision.control.requests + decision.candidate.requests,
        1_000
    );
    assert!(decision.candidate.requests > 400 && decision.control.requests > 400);
    expect(
        &judge(
            &canary,
            &split(&canary, 1_000, |index, arm| {
                arm == Arm::Candidate && index % 3 == 0
            }),
        ),
        Status::Harmed,
        "more often",
    );
    // A request that the wrong arm answered is no part of the trial.
    let mut receipts = split(&canary, 1_000, |_, _| false);
    let moved = receipts
        .iter_mut()
        .find(|receipt| receipt.arm == Arm::Control)
        .expect("one");
    *moved = receipt(
        &canary,
        &canary.writers[0],
        moved.index,
        Arm::Candidate,
        true,
    );
    expect(
        &judge(&canary, &receipts),
        Status::Inconclusive,
        "the arm that their key does not belong to",
    );
}

#[test]
fn a_restart_spends_less() {
    let first = canary(Mode::Paired, Source::Recorded);
    let starts = [first.clone(), first.clone()];
    assert_eq!(
        next_number(starts.iter(), &first.control, &first.candidate).get(),
        2,
        "one start, on record twice"
    );
    assert_eq!(
        next_number(starts.iter(), &first.control, &Digest::of(b"another")).get(),
        1
    );
    let mut needed = Vec::new();
    for t in 1..=4_u64 {
        let mut canary = first.clone();
        let number = NonZeroU64::new(t).expect("positive");
        canary.t = t;
        canary.alpha_t = Alpha::new(0.05).expect("a level").at_attempt(number).get();
        let spent = 6.0 * 0.05 / (std::f64::consts::PI.powi(2) * (t * t) as f64);
        assert!((canary.alpha_t - spent).abs() < 1e-15);
        assert_eq!(canary.faults(), Vec::<String>::new());
        let pairs_needed = (1..1_000).step_by(20).find(|count| {
            judge(&canary, &pairs(&canary, *count, |_, _| false)).status == Status::Passed
        });
        needed.push(pairs_needed.expect("a candidate that never fails passes"));
        // A record that claims more than its number may spend is refused.
        canary.alpha_t *= 2.0;
        assert_eq!(canary.faults().len(), 1, "{:?}", canary.faults());
    }
    assert!(
        needed.windows(2).all(|pair| pair[0] < pair[1]),
        "{needed:?}"
    );
}

#[test]
fn buckets_use_their_salt() {
    let keys: Vec<String> = (0..20_000).map(|number| format!("user-{number}")).collect();
    let served = |salt: &str, percent: u32| -> BTreeSet<&str> {
        keys.iter()
            .filter(|key| {
                bucket_of(&key_digest(salt, key), percent).expect("a share") == Arm::Candidate
            })
            .map(String::as_str)
            .collect()
    };
    for percent in [1, 10, 50, 90] {
        let expected = 20_000.0 * f64::from(percent) / 100.0;
        let sigma = (expected * (1.0 - f64::from(percent) / 100.0)).sqrt();
        for salt in ["a", "b", ""] {
            let count = served(salt, percent).len() as f64;
            assert!(
                (count - expected).abs() < 4.0 * sigma,
                "{count} of {expected} with salt `{salt}`"
            );
        }
    }
    assert_eq!(served("a", 0).len(), 0);
    assert_eq!(served("a", 100).len(), 20_000);
    assert!(
        served("a", 10).is_subset(&served("a", 50)),
        "a key that the candidate serves keeps being served by it"
    );
    // Two salts cut independently: about a quarter of the keys is served in both of two halves.
    let both = served("a", 50).intersection(&served("b", 50)).count() as f64;
    assert!(
        (both - 5_000.0).abs() < 4.0 * (20_000.0_f64 * 0.25 * 0.75).sqrt(),
        "{both}"
    );

    let split = canary(Mode::Split, Source::Recorded);
    let mut resalted = split.clone();
    resalted.salt = "another".to_owned();
    let moved = keys
        .iter()
        .filter(|key| arm_of(&split, key) != arm_of(&resalted, key))
        .count() as f64;
    assert!(
        (moved - 10_000.0).abs() < 4.0 * 5_000.0_f64.sqrt(),
        "{moved}"
    );
    // Nobody depends on a candidate that only answers beside the control.
    let paired = canary(Mode::Paired, Source::Recorded);
    assert!(
        keys.iter()
            .all(|key| arm_of(&paired, key) == Ok(Arm::Control))
    );
}

#[test]
fn identity_follows_from_what_it_is_about() {
    let (control, candidate) = (Digest::of(b"1"), Digest::of(b"2"));
    let run = "night-1".parse().expect("an id");
    let first = identity(&signature(), Some(&run), &control, &candidate, 1);
    assert_eq!(
        first,
        identity(&signature(), Some(&run), &control, &candidate, 1)
    );
    for other in [
        identity(&signature(), None, &control, &candidate, 1),
        identity(&signature(), Some(&run), &candidate, &control, 1),
        identity(&signature(), Some(&run), &control, &candidate, 2),
    ] {
        assert_ne!(first.0, other.0);
        assert_ne!(first.1, other.1);
    }
}

#[test]
fn a_record_with_a_fault_says_which() {
    type Break = fn(&mut Canary);
    let table: [(Break, &str); 9] = [
        (|c| c.candidate = c.control, "same artifact"),
        (|c| c.harm_margin = 0.0, "harm margin"),
        (|c| c.max_pairs = 10, "pairs_max"),
        (|c| c.max_error_rate = 1.5, "max_error_rate"),
        (|c| c.writers.clear(), "no writer"),
        (|c| c.mode = Mode::Split, "must be `paired`"),
        (|c| c.rows = None, "names the rows"),
        (|c| c.t = 0, "alpha_t"),
        (|c| c.status = Status::Passed, "decision and an end"),
    ];
    for (broken, reason) in table {
        let mut canary = canary(Mode::Paired, Source::Exercise);
        broken(&mut canary);
        let faults = canary.faults().join("; ");
        assert!(faults.contains(reason), "`{reason}` is not in `{faults}`");
    }
    let mut split = canary(Mode::Split, Source::Recorded);
    split.rollout_percent = 100;
    assert!(split.faults()[0].contains("an arm stays empty"));
}

#[test]
fn expected_pairs_grow_with_the_failure_rate() {
    let expected = expected_pairs(&canary(Mode::Paired, Source::Recorded)).expect("a forecast");
    let medians: Vec<u64> = expected
        .iter()
        .filter_map(|expected| expected.median)
        .collect();
    assert_eq!(medians.len(), 3);
    assert!(medians.is_sorted(), "{medians:?}");
    assert!((100..200).contains(&medians[0]), "{medians:?}");
}

#[test]
fn figures_are_labelled() {
    let canary = canary(Mode::Paired, Source::Recorded);
    let decision = judge(&canary, &pairs(&canary, 50, |_, _| false));
    let label = |name: &str| {
        let figure = decision
            .gate
            .figures
            .iter()
            .find(|figure| figure.name == name);
        figure
            .unwrap_or_else(|| panic!("no figure `{name}`"))
            .label
            .to_string()
    };
    assert_eq!(label("pairs"), "recomputed");
    assert_eq!(label("non-inferiority evidence"), "recomputed");
    assert_eq!(label("candidate errors"), "attested by runner-1");
    assert_eq!(label("candidate answered by"), "attested by runner-1");
}
