//! May a proven artifact come into force, and how: the policy's word over the
//! gates, over who sealed what, and over what is asked for.
//!
//! A gate that was not run is neither a pass nor a refusal: policy says whether
//! it blocks, makes a proposal of a direct promotion, or passes with a mark.

use crate::domain::improve::signature::PromotionMode;
use crate::id::PrincipalId;

use super::policy::{Policy, Role, SkippedGate};
use super::verdict::{GateResult, Label, Verdict};

/// The gate that no promotion goes without.
const PROOF: &str = "holdout";
/// The gates that count as skipped when a statement has no answer of theirs.
const EXPECTED: [&str; 3] = ["verify", "canary", "e2e"];

/// What is asked, and what is known.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What each gate answered.
    pub gates: &'a [GateResult],
    /// Whose key would seal the statement; `None` when the policy does not know it.
    pub promoter: Option<&'a PrincipalId>,
    /// Whose keys sealed the evidence.
    pub evidence_by: &'a [PrincipalId],
    /// Whether the promoter ran the program again and got the same.
    pub re_executed: bool,
    /// Directly, or as a proposal.
    pub mode: PromotionMode,
}

/// What the policy answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// Whether it may come into force.
    pub verdict: Verdict,
    /// How: a proposal may have been made of what was asked for directly.
    pub mode: PromotionMode,
    /// Whether the promoter also sealed the evidence.
    pub self_attested: bool,
    /// What was made a proposal and why, and what passes with a mark.
    pub marks: Vec<String>,
}

/// Whether a principal may promote or roll back; else why not.
pub fn promoter_fault(policy: &Policy, promoter: Option<&PrincipalId>) -> Option<String> {
    match promoter {
        Some(name) if policy.in_role(Role::Promoter).contains(name) => None,
        Some(name) => Some(format!(
            "`{name}` has not the role `promoter` in policy epoch {}",
            policy.epoch
        )),
        None => Some(format!(
            "the key that would seal the statement belongs to nobody in policy epoch {}",
            policy.epoch
        )),
    }
}

/// Ask the policy.
pub fn admit(policy: &Policy, asked: Asked<'_>) -> Admission {
    let rules = &policy.promotion;
    let mut reasons: Vec<String> = promoter_fault(policy, asked.promoter).into_iter().collect();
    let mut missing = Vec::new();
    let mut fetch = None;
    let mut marks = Vec::new();
    let mut mode = asked.mode;

    for gate in asked.gates {
        match &gate.verdict {
            Verdict::Pass => {}
            Verdict::Refuse { reasons: why } => {
                reasons.extend(why.iter().map(|why| format!("{}: {why}", gate.gate)));
            }
            Verdict::Undecidable {
                missing: what,
                fetch: command,
            } => {
                missing.extend(what.iter().map(|what| format!("{}: {what}", gate.gate)));
                fetch = fetch.or_else(|| command.clone());
            }
        }
    }
    let proven = asked
        .gates
        .iter()
        .any(|gate| gate.gate == PROOF && gate.verdict.is_pass() && gate.skipped.is_none());
    if !proven && reasons.is_empty() && missing.is_empty() {
        reasons.push("nothing is promoted that the holdout gate did not pass".to_owned());
    }

    for (gate, why) in skipped(policy, asked.gates) {
        match rules.skipped_gate {
            SkippedGate::Block => reasons.push(format!(
                "{gate} was skipped ({why}), and policy asks for it"
            )),
            SkippedGate::Propose => {
                mode = PromotionMode::Propose;
                marks.push(format!("{gate} was skipped ({why}), so a person decides"));
            }
            SkippedGate::Pass => marks.push(format!("{gate} was skipped ({why})")),
        }
    }

    let same = asked
        .promoter
        .filter(|name| asked.evidence_by.contains(name));
    if let Some(name) = same {
        if rules.self_attested {
            marks.push(format!(
                "self-attested: `{name}` sealed both the evidence and the promotion"
            ));
        } else if !asked.re_executed {
            reasons.push(format!(
                "`{name}` sealed the evidence and may not promote on it: another promoter must, or the program is run again, or policy says `self_attested: true`"
            ));
        }
    }

    if mode == PromotionMode::Direct && rules.mode == PromotionMode::Propose {
        mode = PromotionMode::Propose;
        marks.push("policy asks for a proposal".to_owned());
    }
    let verdict = if reasons.is_empty() && !missing.is_empty() {
        Verdict::Undecidable { missing, fetch }
    } else {
        reasons.extend(missing);
        Verdict::from_reasons(reasons)
    };
    Admission {
        verdict,
        mode,
        self_attested: same.is_some(),
        marks,
    }
}

/// The gates that were not really run, each with why.
pub fn skipped(policy: &Policy, gates: &[GateResult]) -> Vec<(String, String)> {
    let said = gates
        .iter()
        .filter_map(|gate| Some((gate.gate.clone(), gate.skipped.clone()?)));
    let silent = EXPECTED
        .iter()
        .filter(|name| !gates.iter().any(|gate| gate.gate == **name))
        .map(|name| ((*name).to_owned(), "it gave no answer".to_owned()));
    let rehearsed = gates
        .iter()
        .filter(|gate| gate.gate == "canary" && gate.skipped.is_none())
        .filter(|gate| !policy.canary.rehearsal_is_enough && is_rehearsal(gate))
        .map(|gate| {
            (
                gate.gate.clone(),
                "rehearsed on exercise rows, not tried on traffic".to_owned(),
            )
        });
    said.chain(silent).chain(rehearsed).collect()
}

/// Whether a canary had exercise rows only.
pub fn is_rehearsal(gate: &GateResult) -> bool {
    gate.figures
        .iter()
        .any(|figure| figure.name == "status" && figure.value == "rehearsed")
}

/// Whether a figure says that the program ran again and gave the same.
pub fn is_re_executed(gates: &[GateResult]) -> bool {
    gates
        .iter()
        .flat_map(|gate| &gate.figures)
        .any(|figure| figure.label == Label::ReExecuted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::prove::policy::Founding;

    fn name(text: &str) -> PrincipalId {
        text.parse().expect("a principal")
    }

    fn policy(mode: PromotionMode, skipped_gate: SkippedGate) -> Policy {
        let mut policy = Policy::root(Founding {
            repository: "test".to_owned(),
            person: name("ada"),
            person_keys: vec!["ssh-ed25519 A".to_owned()],
            runner: name("runner"),
            runner_keys: vec!["ssh-ed25519 B".to_owned()],
            mode,
        });
        policy.promotion.skipped_gate = skipped_gate;
        policy
    }

    fn all() -> Vec<GateResult> {
        ["verify", "dev", "holdout", "canary", "e2e"]
            .map(|gate| GateResult::new(gate, Verdict::Pass))
            .to_vec()
    }

    fn without(gate: &str) -> Vec<GateResult> {
        all()
            .into_iter()
            .filter(|known| known.gate != gate)
            .collect()
    }

    fn with(gate: GateResult) -> Vec<GateResult> {
        without(&gate.gate.clone())
            .into_iter()
            .chain([gate])
            .collect()
    }

    #[test]
    fn the_policy_decides() {
        use PromotionMode::{Direct, Propose};
        use SkippedGate as Skipped;
        let mut e2e = GateResult::new("e2e", Verdict::Pass);
        e2e.skipped = Some("--no-e2e".to_owned());
        let mut no_holdout = GateResult::new("holdout", Verdict::Pass);
        no_holdout.skipped = Some("--quick".to_owned());
        let rehearsed = GateResult::new("canary", Verdict::Pass).with(
            "status",
            "rehearsed",
            &Label::Recomputed,
        );
        let refused = GateResult::new("canary", Verdict::from_reasons(vec!["harm".to_owned()]));
        let open = GateResult::new(
            "canary",
            Verdict::Undecidable {
                missing: vec!["receipts".to_owned()],
                fetch: None,
            },
        );
        // What is asked; the policy; the verdict's word; the mode; how many marks.
        let table = [
            (
                "all pass",
                all(),
                Direct,
                Direct,
                Skipped::Propose,
                "pass",
                Direct,
                0,
            ),
            (
                "a proposal stays one",
                all(),
                Propose,
                Direct,
                Skipped::Pass,
                "pass",
                Propose,
                0,
            ),
            (
                "policy proposes",
                all(),
                Direct,
                Propose,
                Skipped::Pass,
                "pass",
                Propose,
                1,
            ),
            (
                "skipped, proposed",
                with(e2e.clone()),
                Direct,
                Direct,
                Skipped::Propose,
                "pass",
                Propose,
                1,
            ),
            (
                "skipped, marked",
                with(e2e.clone()),
                Direct,
                Direct,
                Skipped::Pass,
                "pass",
                Direct,
                1,
            ),
            (
                "skipped, blocked",
                with(e2e),
                Direct,
                Direct,
                Skipped::Block,
                "refuse",
                Direct,
                0,
            ),
            (
                "silence is a skip",
                without("canary"),
                Direct,
                Direct,
                Skipped::Propose,
                "pass",
                Propose,
                1,
            ),
            (
                "rehearsed",
                with(rehearsed),
                Direct,
                Direct,
                Skipped::Propose,
                "pass",
                Propose,
                1,
            ),
            (
                "refused",
                with(refused),
                Direct,
                Direct,
                Skipped::Pass,
                "refuse",
                Direct,
                0,
            ),
            (
                "undecidable",
                with(open),
                Direct,
                Direct,
                Skipped::Pass,
                "undecidable",
                Direct,
                0,
            ),
            (
                "no proof",
                without("holdout"),
                Direct,
                Direct,
                Skipped::Pass,
                "refuse",
                Direct,
                0,
            ),
            (
                "proof skipped",
                with(no_holdout),
                Direct,
                Direct,
                Skipped::Pass,
                "refuse",
                Direct,
                1,
            ),
        ];
        for (what, gates, wanted, rule, skipped, word, mode, marks) in table {
            let admission = admit(
                &policy(rule, skipped),
                Asked {
                    gates: &gates,
                    promoter: Some(&name("ada")),
                    evidence_by: &[name("runner")],
                    re_executed: false,
                    mode: wanted,
                },
            );
            assert_eq!(
                admission.verdict.word(),
                word,
                "{what}: {}",
                admission.verdict
            );
            assert_eq!(admission.mode, mode, "{what}");
            assert_eq!(
                admission.marks.len(),
                marks,
                "{what}: {:?}",
                admission.marks
            );
        }
    }

    #[test]
    fn who_sealed_the_evidence_may_not_promote_on_it() {
        // Promoter; who sealed the evidence; re-executed; policy's self_attested; verdict; self_attested.
        let table = [
            (Some("ada"), "runner", false, false, "pass", false),
            (Some("ada"), "ada", false, false, "refuse", true),
            (Some("ada"), "ada", true, false, "pass", true),
            (Some("ada"), "ada", false, true, "pass", true),
            (Some("runner"), "runner", true, true, "refuse", true),
            (None, "runner", true, true, "refuse", false),
        ];
        for (promoter, evidence, re_executed, allowed, word, attested) in table {
            let mut policy = policy(PromotionMode::Direct, SkippedGate::Pass);
            policy.promotion.self_attested = allowed;
            let promoter = promoter.map(name);
            let admission = admit(
                &policy,
                Asked {
                    gates: &all(),
                    promoter: promoter.as_ref(),
                    evidence_by: &[name(evidence)],
                    re_executed,
                    mode: PromotionMode::Direct,
                },
            );
            assert_eq!(admission.verdict.word(), word, "{promoter:?} on {evidence}");
            assert_eq!(
                admission.self_attested, attested,
                "{promoter:?} on {evidence}"
            );
        }
    }
}
