//! Statements that move a pointer: a promotion, or a rollback, which is also a
//! forward move. The same content stands in `promotion.yaml` for the reviewer
//! and in the in-toto statement that is sealed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::canon::{self, CanonError};
use crate::id::{Digest, PrincipalId, RunId, SignatureId};

use super::verdict::GateResult;

/// The `predicateType` of the in-toto statement.
pub const PREDICATE_TYPE: &str = "https://proofline.dev/promotion/v1";

/// A sealed move of a pointer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Always [`Statement::SCHEMA`].
    pub schema: String,
    /// Promotion or rollback.
    pub kind: Kind,
    /// The repository: digest of the root policy.
    pub repository: Digest,
    /// The policy epoch it is made under.
    pub epoch: u64,
    /// The signature.
    pub signature: SignatureId,
    /// 1 for the first, then one more each.
    pub counter: u64,
    /// Digest of the statement before; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The artifact in force before.
    pub from: Digest,
    /// The artifact in force after.
    pub to: Digest,
    /// Digest of the frozen interface of `to`.
    pub interface: Digest,
    /// Digest of the job that found `to`; absent for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Digest>,
    /// The run that found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Who seals it.
    pub promoter: PrincipalId,
    /// Whether the promoter also sealed the evidence.
    pub self_attested: bool,
    /// Why, for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What each gate answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateResult>,
    /// Every input, so that a verifier can fetch it by id.
    pub inputs: Vec<Bound>,
}

/// Promotion or rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something proven better comes into force.
    Promotion,
    /// Something that was in force before comes back.
    Rollback,
}

/// An input that a statement rests on, by (ref, commit, blob digest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// What it is: `artifact`, `compile_report`, `holdout_ledger`, ….
    pub name: String,
    /// The ref it was read from.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The commit.
    pub commit: String,
    /// The path in it.
    pub path: String,
    /// SHA-256 of the blob's bytes.
    pub digest: Digest,
}

/// A statement before it has its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Promotion or rollback.
    pub kind: Kind,
    /// The signature.
    pub signature: SignatureId,
    /// The artifact in force before.
    pub from: Digest,
    /// The artifact in force after.
    pub to: Digest,
    /// Digest of the frozen interface of `to`.
    pub interface: Digest,
    /// Digest of the job that found `to`.
    pub job: Option<Digest>,
    /// The run that found it.
    pub run: Option<RunId>,
    /// Who seals it.
    pub promoter: PrincipalId,
    /// Whether the promoter also sealed the evidence.
    pub self_attested: bool,
    /// Why, for a rollback.
    pub reason: Option<String>,
    /// What each gate answered.
    pub gates: Vec<GateResult>,
    /// Every input.
    pub inputs: Vec<Bound>,
}

/// Where a statement stands in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Digest of the root policy.
    pub repository: Digest,
    /// The policy epoch that is current.
    pub epoch: u64,
    /// Counter and digest of the statement before, if there is one.
    pub previous: Option<(u64, Digest)>,
}

impl Place {
    /// The counter of a statement that stands here.
    pub fn counter(&self) -> u64 {
        self.previous.map_or(0, |(counter, _)| counter) + 1
    }
}

impl Draft {
    /// The statement, at its place.
    pub fn at(self, place: &Place) -> Statement {
        Statement {
            schema: Statement::SCHEMA.to_owned(),
            kind: self.kind,
            repository: place.repository,
            epoch: place.epoch,
            signature: self.signature,
            counter: place.counter(),
            previous: place.previous.map(|(_, digest)| digest),
            from: self.from,
            to: self.to,
            interface: self.interface,
            job: self.job,
            run: self.run,
            promoter: self.promoter,
            self_attested: self.self_attested,
            reason: self.reason,
            gates: self.gates,
            inputs: self.inputs,
        }
    }
}

impl Statement {
    /// The `schema` field of a statement.
    pub const SCHEMA: &str = "proofline/promotion/v1";

    /// What does not fit a place in a chain where `from` is in force, one sentence each.
    pub fn faults_at(&self, place: &Place, in_force: Option<&Digest>) -> Vec<String> {
        let mut faults = Vec::new();
        if self.repository != place.repository {
            faults.push(format!("it is of another repository, {}", self.repository));
        }
        if self.counter != place.counter() {
            faults.push(format!(
                "its counter is {}, not {}",
                self.counter,
                place.counter()
            ));
        }
        if self.previous != place.previous.map(|(_, digest)| digest) {
            faults.push("it does not name the statement before it".to_owned());
        }
        if in_force.is_some_and(|in_force| *in_force != self.from) {
            faults.push("it does not start from the artifact that was in force".to_owned());
        }
        faults
    }

    /// The gain that the holdout gate showed, −1 to 1, its rows and its p.
    pub fn holdout_gain(&self) -> Option<(f64, u64, f64)> {
        let gate = self.gates.iter().find(|gate| gate.gate == "holdout")?;
        let figure = |name: &str| {
            let found = gate.figures.iter().find(|figure| figure.name == name)?;
            found.value.as_f64()
        };
        let gain = figure("candidate mean")? - figure("control mean")?;
        Some((gain, figure("rows")? as u64, figure("p")?))
    }

    /// The statement's digest, which the next one names.
    pub fn digest(&self) -> Result<Digest, CanonError> {
        canon::digest(self)
    }

    /// The in-toto statement (v1) that is sealed, as canonical bytes.
    pub fn in_toto(&self) -> Result<Vec<u8>, CanonError> {
        canon::to_bytes(&json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{
                "name": format!("active/{}.yaml", self.signature.path()),
                "digest": {"sha256": self.to.hex()},
            }],
            "predicateType": PREDICATE_TYPE,
            "predicate": serde_json::to_value(self).map_err(|error| CanonError::NotJson(error.to_string()))?,
        }))
    }

    /// Read the statement back from the sealed bytes; the subject must say what the predicate says.
    pub fn from_in_toto(bytes: &[u8]) -> Result<Self, String> {
        let mut value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let predicate = value
            .get_mut("predicate")
            .map(Value::take)
            .ok_or("it has no predicate")?;
        let statement: Self =
            serde_json::from_value(predicate).map_err(|error| error.to_string())?;
        if statement.schema != Self::SCHEMA {
            return Err(format!(
                "its schema is `{}`, not `{}`",
                statement.schema,
                Self::SCHEMA
            ));
        }
        let expected = statement.in_toto().map_err(|error| error.to_string())?;
        if expected != bytes {
            return Err("its subject, type or form is not what its predicate asks for".to_owned());
        }
        Ok(statement)
    }
}

/// The artifact in force: `active/<signature>.yaml` on `control`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointer {
    /// Always [`Pointer::SCHEMA`].
    pub schema: String,
    /// The signature.
    pub signature: SignatureId,
    /// The artifact in force.
    pub artifact: Digest,
    /// The counter of the statement that put it there.
    pub counter: u64,
    /// The digest of that statement.
    pub statement: Digest,
}

impl Pointer {
    /// The `schema` field of a pointer.
    pub const SCHEMA: &str = "proofline/pointer/v1";
}

/// Where a rollback goes: the newest artifact that was in force, is not now, and
/// was never rolled back from. `history` is every statement, oldest first.
pub fn rollback_target(history: &[Statement]) -> Option<Digest> {
    let current = history.last()?.to;
    let withdrawn: BTreeSet<Digest> = rolled_back(history).chain([current]).collect();
    // What was in force, newest first: each statement's `to`, and before the first its `from`.
    history
        .iter()
        .rev()
        .flat_map(|statement| [statement.to, statement.from])
        .find(|artifact| !withdrawn.contains(artifact))
}

/// Everything that was ever rolled back.
fn rolled_back(history: &[Statement]) -> impl Iterator<Item = Digest> {
    history
        .iter()
        .filter(|statement| statement.kind == Kind::Rollback)
        .map(|statement| statement.from)
}

/// The artifact that a counter put in force; 0 is what was there before the first statement.
pub fn in_force_at(history: &[Statement], counter: u64) -> Option<Digest> {
    match counter {
        0 => history.first().map(|first| first.from),
        _ => history
            .iter()
            .find(|statement| statement.counter == counter)
            .map(|statement| statement.to),
    }
}

/// Why an artifact that somebody names is nothing to roll back to; `None` when it is.
///
/// What was rolled back may only return when it was promoted again since, on new evidence.
pub fn rollback_fault(history: &[Statement], to: &Digest) -> Option<String> {
    let Some(current) = history.last() else {
        return Some("nothing was ever promoted".to_owned());
    };
    if current.to == *to {
        return Some(format!("{} is in force", to.short()));
    }
    let was_there = history
        .iter()
        .any(|statement| statement.to == *to || statement.from == *to);
    if !was_there {
        return Some(format!(
            "{} was never in force: a rollback brings back what was, a promotion needs evidence",
            to.short()
        ));
    }
    let last = history
        .iter()
        .rev()
        .find_map(|statement| match statement.kind {
            Kind::Rollback if statement.from == *to => Some(Some(statement.counter)),
            Kind::Promotion if statement.to == *to => Some(None),
            _ => None,
        });
    last.flatten().map(|counter| {
        format!(
            "{} was rolled back by statement {counter}; it returns by a promotion, on new evidence",
            to.short()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    /// `D>A` is a promotion, `A<D` a rollback from A to D.
    fn history(moves: &[&str]) -> Vec<Statement> {
        let mut place = Place {
            repository: artifact("root"),
            epoch: 1,
            previous: None,
        };
        moves
            .iter()
            .map(|text| {
                let kind = if text.contains('>') {
                    Kind::Promotion
                } else {
                    Kind::Rollback
                };
                let (from, to) = text.split_once(['<', '>']).expect("a move");
                let statement = Draft {
                    kind,
                    signature: "@a/b/C.v1".parse().expect("an id"),
                    from: artifact(from),
                    to: artifact(to),
                    interface: artifact("interface"),
                    job: None,
                    run: None,
                    promoter: "ada".parse().expect("a principal"),
                    self_attested: false,
                    reason: None,
                    gates: Vec::new(),
                    inputs: Vec::new(),
                }
                .at(&place);
                place.previous = Some((statement.counter, statement.digest().expect("canonical")));
                statement
            })
            .collect()
    }

    #[test]
    fn where_a_rollback_goes() {
        let table: [(&[&str], Option<&str>); 10] = [
            (&[], None),
            (&["D>A"], Some("D")),
            (&["D>A", "A>B"], Some("A")),
            // A second rollback goes on, not back.
            (&["D>A", "A>B", "B<A"], Some("D")),
            (&["D>A", "A>B", "B<A", "A<D"], None),
            (&["D>A", "A<D"], None),
            // Something new after a rollback.
            (&["D>A", "A<D", "D>C"], Some("D")),
            (&["D>A", "A>B", "B<A", "A>C"], Some("A")),
            // What was rolled back and promoted again is still passed over.
            (&["D>A", "A<D", "D>A", "A>B"], Some("D")),
            (&["D>A", "A>B", "B<A", "A>B"], Some("A")),
        ];
        for (moves, target) in table {
            let found = rollback_target(&history(moves));
            assert_eq!(found, target.map(artifact), "{moves:?}");
            if let Some(found) = found {
                assert_eq!(rollback_fault(&history(moves), &found), None, "{moves:?}");
            }
        }
    }

    #[test]
    fn what_may_be_named() {
        let table: [(&[&str], &str, Option<&str>); 6] = [
            (&[], "A", Some("nothing was ever promoted")),
            (&["D>A"], "A", Some("is in force")),
            (&["D>A"], "X", Some("was never in force")),
            (
                &["D>A", "A>B", "B<D"],
                "B",
                Some("rolled back by statement 3"),
            ),
            (&["D>A", "A>B", "B>C"], "D", None),
            // Promoted again since.
            (&["D>A", "A<D", "D>A", "A>B"], "A", None),
        ];
        for (moves, name, fault) in table {
            let found = rollback_fault(&history(moves), &artifact(name));
            match fault {
                Some(part) => assert!(
                    found.as_ref().is_some_and(|found| found.contains(part)),
                    "{found:?}"
                ),
                None => assert_eq!(found, None, "{moves:?}"),
            }
        }
        let moves = history(&["D>A", "A>B"]);
        let at = [(0, Some("D")), (1, Some("A")), (2, Some("B")), (3, None)];
        for (counter, name) in at {
            assert_eq!(in_force_at(&moves, counter), name.map(artifact));
        }
    }

    /// A number that is read back as its neighbour would make a sealed statement unreadable.
    #[test]
    fn figures_survive_every_number() {
        use crate::domain::prove::verdict::{Label, Verdict};
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let small = (bits >> 11) as f64 / (1_u64 << 53) as f64;
            let number = small * 10_f64.powi((bits % 24) as i32 - 20);
            let mut statement = history(&["D>A"]).remove(0);
            let gate = GateResult::new("holdout", Verdict::Pass);
            statement
                .gates
                .push(gate.with("p", number, &Label::Recomputed));
            let bytes = statement.in_toto().expect("canonical");
            assert_eq!(Statement::from_in_toto(&bytes), Ok(statement), "{number:e}");
        }
    }

    #[test]
    fn sealed_bytes_say_one_thing() {
        let statement = history(&["D>A"]).remove(0);
        let bytes = statement.in_toto().expect("canonical");
        assert_eq!(Statement::from_in_toto(&bytes), Ok(statement));
        let text = String::from_utf8(bytes).expect("text");
        for (old, new) in [
            ("Statement/v1", "Statement/v2"),
            (&*artifact("A").hex(), &*artifact("B").hex()),
            ("promotion/v1\",", "promotion/v2\","),
            ("{\"_type\"", "{ \"_type\""),
        ] {
            let changed = text.replacen(old, new, 1);
            assert_ne!(changed, text, "{old}");
            assert!(
                Statement::from_in_toto(changed.as_bytes()).is_err(),
                "{old}"
            );
        }
    }
}
