//! Links to what somebody sealed: evidence, reservations, canaries, statements.

use serde::Serialize;

use crate::domain::operate::command::CommandKind;
use crate::domain::operate::run::{Link, Status};
use crate::domain::prove::holdout::{Attempt, Entry};
use crate::domain::prove::policy::Role;
use crate::domain::prove::stats::alpha::Alpha;
use crate::flows::commands;
use crate::id::{Digest, PrincipalId, SignatureId};
use crate::records::control::Control;
use crate::records::sealed::{Sealed, sealed_by};
use crate::records::{canary, evidence, ledger};
use crate::seal::Namespace;

use super::{Check, Fault, Found, Place, attested, ensure, recomputed};

/// A reservation, with its seal and its closing.
struct Reservation {
    entry: Sealed<Entry>,
    attempt: Attempt,
    closing: Option<Sealed<Entry>>,
}

impl Check<'_> {
    /// The runner that sealed a body, and under which epoch: keys of an older epoch were good in their time.
    pub(super) fn sealer<T>(
        &self,
        sealed: &Sealed<T>,
        namespace: Namespace,
    ) -> Result<PrincipalId, Fault>
    where
        T: Serialize + serde::de::DeserializeOwned,
    {
        let epochs = self.epochs.as_ref().map_err(|reason| {
            self.missing(
                format!("nobody can judge its seal: {reason}"),
                self.workspace.refs.control.as_str(),
            )
        })?;
        for policy in epochs {
            if let Some(name) = sealed
                .sealed_by(policy, Role::Runner, namespace)?
                .into_iter()
                .next()
            {
                return Ok(name);
            }
        }
        Err(Fault::Wrong(
            "no runner of any policy epoch sealed it: it was changed after it was sealed, or sealed with a key that the policy does not know".to_owned(),
        ))
    }

    pub(super) fn evidence(
        &self,
        place: &Place<'_>,
        kind: CommandKind,
        signature: Option<&SignatureId>,
    ) -> Found {
        let sealed = evidence::commands(&place.reference, Some(&place.snapshot), &place.path)?
            .ok_or_else(|| Fault::Wrong(format!("{} is gone", place.path)))?;
        let by = self.sealer(&sealed, Namespace::Evidence)?;
        let shown = &sealed.body;
        ensure(shown.run == self.record.id, || {
            format!("it is of run {}", shown.run)
        })?;
        ensure(shown.kind == kind, || {
            format!("it is about {} commands", shown.kind)
        })?;
        ensure(
            signature.is_none() || shown.signature.as_ref() == signature,
            || "it is about another signature".to_owned(),
        )?;
        ensure(shown.commit == self.record.commit, || {
            "it is about another commit of the code".to_owned()
        })?;
        let gate = commands::gate(shown, &by);
        let mut figures = vec![recomputed("verdict", gate.verdict.word())];
        figures.extend(
            shown
                .skipped
                .as_ref()
                .map(|why| attested("skipped", why.as_str(), &by)),
        );
        figures.extend(gate.figures);
        Ok(figures)
    }

    /// The reservation that a link is about, with its closing.
    fn reservation(
        &self,
        place: &Place<'_>,
        signature: &SignatureId,
    ) -> Result<Reservation, Fault> {
        let entries = ledger::entries(&self.workspace.refs, Some(&place.snapshot), signature)?;
        let compared = self.compared(signature);
        let reserved = |wanted: &dyn Fn(&Attempt, &Digest) -> bool| {
            entries.iter().rev().find_map(|entry| match &entry.body {
                Entry::Reserved(attempt) => {
                    let digest = attempt.digest().ok()?;
                    wanted(attempt, &digest).then(|| (entry.clone(), attempt.clone()))
                }
                _ => None,
            })
        };
        let found = match place.link.entry {
            Some(entry) => reserved(&|_, digest| *digest == entry),
            // The comparison may have been paid for by an earlier run.
            None => reserved(&|attempt, _| attempt.run == self.record.id).or_else(|| {
                reserved(&|attempt, _| compared == Some((attempt.control, attempt.candidate)))
            }),
        };
        let (entry, attempt) = found.ok_or_else(|| {
            Fault::Wrong(format!(
                "{} holds no reservation of this run",
                place.shown()
            ))
        })?;
        let digest = attempt.digest()?;
        // The link is from when the run made it; the closing may have come later.
        let now = self.workspace.store.snapshot(&place.reference)?;
        let closing = ledger::entries(&self.workspace.refs, now.as_ref(), signature)?
            .into_iter()
            .find(
                |entry| matches!(&entry.body, Entry::Closed(closing) if closing.attempt == digest),
            );
        Ok(Reservation {
            entry,
            attempt,
            closing,
        })
    }

    /// Control and candidate, as the record's result names them.
    pub(super) fn compared(&self, signature: &SignatureId) -> Option<(Digest, Digest)> {
        let result = self.record.result.get(signature.as_str())?;
        let of = |name: &str| result.get(name)?.as_str()?.parse::<Digest>().ok();
        Some((of("control")?, of("candidate")?))
    }

    pub(super) fn attempt(&self, place: &Place<'_>, signature: &SignatureId) -> Found {
        let Reservation {
            entry,
            attempt,
            closing,
        } = self.reservation(place, signature)?;
        let by = self.sealer(&entry, Namespace::Ledger)?;
        ensure(attempt.signature == *signature, || {
            format!("the reservation is of {}", attempt.signature)
        })?;
        let number = std::num::NonZeroU64::new(attempt.t)
            .ok_or_else(|| Fault::Wrong("an attempt's number is 0".to_owned()))?;
        let alpha = Alpha::new(attempt.alpha).map_err(|error| Fault::Wrong(error.to_string()))?;
        let alpha_t = alpha.at_attempt(number).get();
        ensure((alpha_t - attempt.alpha_t).abs() <= 1e-15, || {
            format!(
                "α_t of attempt {number} is {alpha_t}, and it says {}",
                attempt.alpha_t
            )
        })?;
        let (least, most) = self.numbers(place, signature, &attempt)?;
        ensure((least..=most).contains(&attempt.t), || {
            format!(
                "it says it is attempt {}, and the ledger makes it {least} to {most}",
                attempt.t
            )
        })?;
        let mut figures = vec![
            recomputed("attempt", attempt.t),
            recomputed("alpha_t", alpha_t),
            recomputed("reservation", attempt.digest()?.to_string()),
            attested("rows", attempt.rows, &by),
        ];
        match closing {
            Some(entry) => {
                let by = self.sealer(&entry, Namespace::Ledger)?;
                if let Entry::Closed(closing) = &entry.body {
                    figures.push(attested("passed", closing.passed, &by));
                }
            }
            None => ensure(self.record.status == Status::Running, || {
                "the attempt was never closed, and the run has ended".to_owned()
            })?,
        }
        Ok(figures)
    }

    /// The least and the highest number the attempt can have: its own ledger orders
    /// the attempts of its signature; those of other signatures came before or after.
    fn numbers(
        &self,
        place: &Place<'_>,
        signature: &SignatureId,
        attempt: &Attempt,
    ) -> Result<(u64, u64), Fault> {
        let all = ledger::load(&self.workspace.refs, Some(&place.snapshot))?;
        let set = all.sets.get(&attempt.groups);
        let shares = |other: &Attempt| match (set, all.sets.get(&other.groups)) {
            (Some(own), Some(theirs)) => !own.is_disjoint(theirs),
            _ => true,
        };
        let (mut least, mut most, mut is_before) = (1, 1, true);
        for entry in &all.entries {
            let Entry::Reserved(other) = entry else {
                continue;
            };
            if other == attempt {
                is_before = false;
            } else if shares(other) {
                let is_own = other.signature == *signature;
                least += u64::from(is_own && is_before);
                most += u64::from(!is_own || is_before);
            }
        }
        Ok((least, most))
    }

    pub(super) fn canary(&self, place: &Place<'_>, signature: &SignatureId) -> Found {
        let sealed = canary::current(&self.workspace.refs, Some(&place.snapshot), signature)?
            .ok_or_else(|| {
                Fault::Wrong(format!("{} holds no canary of {signature}", place.shown()))
            })?;
        let by = self.sealer(&sealed, Namespace::Canary)?;
        let found = &sealed.body;
        ensure(found.signature == *signature, || {
            format!("it is a canary of {}", found.signature)
        })?;
        if let Some((control, candidate)) = self.compared(signature) {
            ensure(
                (found.control, found.candidate) == (control, candidate),
                || "it is about other programs than the run".to_owned(),
            )?;
        }
        Ok(vec![
            attested("status", found.status.as_str(), &by),
            attested("canary", found.id.as_str(), &by),
        ])
    }

    /// The promoter who sealed a statement, under the epoch of the pinned policy
    /// that it names: what stands beside it on its branch is anybody's.
    fn promoter(
        &self,
        control: &Control<'_>,
        signature: &SignatureId,
        counter: u64,
        epoch: u64,
    ) -> Result<PrincipalId, Fault> {
        let epochs = self.epochs.as_ref().map_err(|reason| {
            self.missing(
                format!("nobody can judge its seal: {reason}"),
                self.workspace.refs.control.as_str(),
            )
        })?;
        let policy = epochs.iter().find(|policy| policy.epoch == epoch);
        let policy = policy.ok_or_else(|| {
            Fault::Wrong(format!("it names policy epoch {epoch}, which there is not"))
        })?;
        let sealed = control.statement(signature, counter)?;
        let (_, envelope) =
            sealed.ok_or_else(|| Fault::Wrong("its envelope is gone".to_owned()))?;
        sealed_by(&envelope, policy, Role::Promoter, Namespace::Promotion)?
            .into_iter()
            .next()
            .ok_or_else(|| Fault::Wrong(format!("no promoter of policy epoch {epoch} sealed it")))
    }

    pub(super) fn promotion(&self, place: &Place<'_>, signature: &SignatureId) -> Found {
        let names: Vec<&str> = place.path.components().collect();
        let counter = names
            .iter()
            .rev()
            .nth(1)
            .and_then(|name| name.parse::<u64>().ok());
        let counter = counter
            .ok_or_else(|| Fault::Wrong(format!("{} is not a statement's file", place.path)))?;
        let control = Control::new(&self.workspace.refs, Some(&place.snapshot));
        // This holds the readable form and the sealed one equal.
        let landed = control.landed(signature, counter)?.ok_or_else(|| {
            Fault::Wrong(format!(
                "{} holds no sealed statement {counter} of {signature}",
                place.shown()
            ))
        })?;
        let statement = &landed.statement;
        let by = &self.promoter(&control, signature, counter, statement.epoch)?;
        if let Some(run) = &statement.run {
            ensure(*run == self.record.id, || format!("it is about run {run}"))?;
        }
        let pointer = control.pointer(signature)?;
        let moved = pointer.is_some_and(|pointer| {
            (pointer.artifact, pointer.counter, pointer.statement)
                == (statement.to, counter, landed.digest)
        });
        ensure(moved, || {
            "the pointer beside it does not name it".to_owned()
        })?;
        for bound in &statement.inputs {
            let link = Link::from(bound);
            let found = self.place(&link).map_err(|fault| match fault {
                Fault::Wrong(reason) => {
                    Fault::Wrong(format!("its input `{}`: {reason}", bound.name))
                }
                Fault::Missing { what, fetch } => Fault::Missing {
                    what: format!("its input `{}`: {what}", bound.name),
                    fetch,
                },
            })?;
            let digest = Digest::of(&found.bytes);
            ensure(digest == bound.digest, || {
                format!(
                    "its input `{}` has digest {digest}, not {}",
                    bound.name, bound.digest
                )
            })?;
        }
        Ok(vec![
            recomputed("statement", landed.digest.to_string()),
            recomputed("inputs", statement.inputs.len()),
            recomputed("to", statement.to.to_string()),
            attested(
                "kind",
                serde_json::to_value(statement.kind).unwrap_or_default(),
                by,
            ),
        ])
    }
}
