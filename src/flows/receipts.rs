//! Looking at receipts, newest first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::improve::receipt::Receipt;
use crate::id::{CanaryId, RunId, SignatureId};
use crate::records::receipts;

use super::{FlowError, Workspace};

/// Which receipts.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of this signature.
    pub signature: Option<SignatureId>,
    /// Of this canary.
    pub canary: Option<CanaryId>,
    /// Of this run.
    pub run: Option<RunId>,
    /// Failed ones alone.
    pub failed: bool,
    /// At most so many.
    pub limit: usize,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The receipts, newest first.
    pub receipts: Vec<Receipt>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

/// List receipts of every writer whose ref is here. Days are read newest first, and no more of them than needed.
pub fn list(workspace: &Workspace, query: &Query) -> Result<Listed, FlowError> {
    let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (_, reference, tip) in receipts::writers(&workspace.refs, &workspace.store)? {
        let snapshot = workspace.store.snapshot_at(tip)?;
        let signatures = match &query.signature {
            Some(signature) => [signature.clone()].into(),
            None => receipts::signatures(&snapshot)?,
        };
        for signature in signatures {
            for day in receipts::days(Some(&snapshot), &signature, None)? {
                let place = (reference.clone(), snapshot.clone(), signature.clone());
                places.entry(Reverse(day)).or_default().push(place);
            }
        }
    }
    let mut found: Vec<Receipt> = Vec::new();
    for (Reverse(day), places) in places {
        if found.len() > query.limit {
            break;
        }
        let mut of_day = Vec::new();
        for (reference, snapshot, signature) in places {
            of_day.extend(receipts::of_day(
                &reference,
                Some(&snapshot),
                &signature,
                day,
            )?);
        }
        of_day.retain(|receipt| query.matches(receipt));
        of_day.sort_by(|a, b| {
            let place = |receipt: &Receipt| (receipt.ts, receipt.index, receipt.arm);
            place(b)
                .cmp(&place(a))
                .then_with(|| a.writer.cmp(&b.writer))
        });
        found.extend(of_day);
    }
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    Ok(Listed {
        receipts: found,
        more,
    })
}

impl Query {
    fn matches(&self, receipt: &Receipt) -> bool {
        (self.canary.is_none() || receipt.canary == self.canary)
            && (self.run.is_none() || receipt.run == self.run)
            && (!self.failed || receipt.failed())
    }
}
