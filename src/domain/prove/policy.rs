//! Policy: who may do what, and how much proof is asked for. Append-only epochs;
//! the first is the root, and its digest is the name of the repository.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canon::{self, CanonError};
use crate::domain::improve::signature::PromotionMode;
use crate::id::{Digest, PrincipalId, SignatureId};

/// The rules of a policy: everything in it but principals and roles. What a
/// founder may write into a file for `init`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// How much proof is asked for.
    pub gates: Gates,
    /// What a canary must show.
    pub canary: CanaryRules,
    /// How a winner comes into force.
    pub promotion: PromotionRules,
}

/// One policy epoch, `policy/<epoch>.yaml` on `control`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Always [`Policy::SCHEMA`].
    pub schema: String,
    /// 1 for the root, then one more each.
    pub epoch: u64,
    /// A random UUID, so that no two roots share a digest.
    pub repository: String,
    /// Digest of the epoch before; absent in the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// Everyone with keys.
    pub principals: BTreeMap<PrincipalId, Principal>,
    /// Who may do what.
    pub roles: Roles,
    /// How much proof is asked for.
    #[serde(default)]
    pub gates: Gates,
    /// What a canary must show.
    #[serde(default)]
    pub canary: CanaryRules,
    /// How a winner comes into force.
    #[serde(default)]
    pub promotion: PromotionRules,
    /// The last counter of every signature when the epoch began, so that no
    /// statement of an older epoch can be replayed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub last_counters: BTreeMap<SignatureId, u64>,
}

/// A person or machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// OpenSSH public keys, `ssh-ed25519 AAAA…`, without comment.
    pub keys: Vec<String>,
}

/// Who may do what. A principal may have several roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    /// Changes epochs.
    pub maintainer: Vec<PrincipalId>,
    /// Promotes and rolls back.
    pub promoter: Vec<PrincipalId>,
    /// Writes the holdout ledger, evidence and canaries.
    pub runner: Vec<PrincipalId>,
    /// Approves proposals.
    pub reviewer: Vec<PrincipalId>,
}

/// A role's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Changes epochs.
    Maintainer,
    /// Promotes and rolls back.
    Promoter,
    /// Writes the holdout ledger, evidence and canaries.
    Runner,
    /// Approves proposals.
    Reviewer,
}

impl Role {
    /// The name, as in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maintainer => "maintainer",
            Self::Promoter => "promoter",
            Self::Runner => "runner",
            Self::Reviewer => "reviewer",
        }
    }
}

/// How much proof is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// α of the holdout gate, over all attempts on one signature's holdout, 0 to 1.
    pub alpha: f64,
    /// A holdout attempt is only made when dev gained more than this, 0 to 1.
    pub dev_gain_min: f64,
    /// Fewest rows of a dataset.
    pub min_rows: u64,
    /// Fewest holdout rows.
    pub min_holdout_rows: u64,
    /// Every row must carry at least one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_tags: Vec<String>,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            dev_gain_min: 0.01,
            min_rows: 30,
            min_holdout_rows: 10,
            required_tags: Vec::new(),
        }
    }
}

/// What a canary must show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryRules {
    /// α of the harm stop, over all starts of one canary, 0 to 1.
    pub alpha: f64,
    /// The largest harm margin δ a signature may set, 0 to 1.
    pub harm_margin_max: f64,
    /// The largest error rate a signature may set, 0 to 1.
    pub error_rate_max: f64,
    /// Whether a night that had only exercise rows may promote.
    pub rehearsal_is_enough: bool,
}

impl Default for CanaryRules {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            harm_margin_max: 0.10,
            error_rate_max: 0.10,
            rehearsal_is_enough: false,
        }
    }
}

/// How a winner comes into force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromotionRules {
    /// What the loop does with a proven winner.
    pub mode: PromotionMode,
    /// Whether the runner that sealed the evidence may promote on it itself.
    pub self_attested: bool,
    /// Whether a landing must keep the signed commit reachable.
    pub require_signed_commit: bool,
    /// What a skipped gate (no e2e commands, no traffic) means.
    pub skipped_gate: SkippedGate,
    /// How many reviewers must approve a proposal.
    pub approvals: u32,
}

impl Default for PromotionRules {
    fn default() -> Self {
        Self {
            mode: PromotionMode::Propose,
            self_attested: false,
            require_signed_commit: true,
            skipped_gate: SkippedGate::Propose,
            approvals: 1,
        }
    }
}

/// What a skipped gate means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkippedGate {
    /// Nothing is promoted.
    Block,
    /// A proposal for a person, instead of a direct promotion.
    Propose,
    /// The promotion goes on, with a mark.
    Pass,
}

/// What a root policy is made from; everything else has a default.
#[derive(Debug, Clone)]
pub struct Founding {
    /// A random UUID.
    pub repository: String,
    /// Who sets the repository up: maintainer, promoter and reviewer.
    pub person: PrincipalId,
    /// Their keys: the one they seal with, and another one that git signs their commits with, if it is.
    pub person_keys: Vec<String>,
    /// Who runs the loop.
    pub runner: PrincipalId,
    /// The runner's keys.
    pub runner_keys: Vec<String>,
    /// What the loop does with a proven winner. Where it may promote directly, a gate
    /// that was skipped passes with a mark: who wants a person to look asks for proposals.
    pub mode: PromotionMode,
}

impl Policy {
    /// The `schema` field of a policy epoch.
    pub const SCHEMA: &str = "proofline/policy/v1";

    /// The first epoch.
    pub fn root(founding: Founding) -> Self {
        let person = vec![founding.person.clone()];
        Self {
            schema: Self::SCHEMA.to_owned(),
            epoch: 1,
            repository: founding.repository,
            previous: None,
            principals: BTreeMap::from([
                (
                    founding.person,
                    Principal {
                        keys: founding.person_keys,
                    },
                ),
                (
                    founding.runner.clone(),
                    Principal {
                        keys: founding.runner_keys,
                    },
                ),
            ]),
            roles: Roles {
                maintainer: person.clone(),
                promoter: person.clone(),
                runner: vec![founding.runner],
                reviewer: person,
            },
            gates: Gates::default(),
            canary: CanaryRules::default(),
            promotion: PromotionRules {
                mode: founding.mode,
                skipped_gate: match founding.mode {
                    PromotionMode::Direct => SkippedGate::Pass,
                    PromotionMode::Propose => SkippedGate::Propose,
                },
                ..PromotionRules::default()
            },
            last_counters: BTreeMap::new(),
        }
    }

    /// Whether a statement of this epoch with this counter was made while the epoch
    /// was current, judged by the epoch after it; `None` when it was, else why not.
    pub fn replayed(
        &self,
        next: Option<&Self>,
        signature: &SignatureId,
        counter: u64,
    ) -> Option<String> {
        let before = self.last_counters.get(signature).copied().unwrap_or(0);
        if self.epoch > 1 && counter <= before {
            return Some(format!(
                "policy epoch {} began after statement {before}, so statement {counter} cannot be of it",
                self.epoch
            ));
        }
        let next = next?;
        let last = next.last_counters.get(signature).copied().unwrap_or(0);
        (counter > last).then(|| {
            format!(
                "it names policy epoch {}, which ended with statement {last}: a statement of an old epoch is not accepted",
                self.epoch
            )
        })
    }

    /// The digest of the epoch; of the root, the name of the repository.
    pub fn digest(&self) -> Result<Digest, CanonError> {
        canon::digest(self)
    }

    /// Who has a role.
    pub fn in_role(&self, role: Role) -> &[PrincipalId] {
        match role {
            Role::Maintainer => &self.roles.maintainer,
            Role::Promoter => &self.roles.promoter,
            Role::Runner => &self.roles.runner,
            Role::Reviewer => &self.roles.reviewer,
        }
    }

    /// The principal that a public key belongs to.
    pub fn principal_of(&self, key: &str) -> Option<&PrincipalId> {
        self.principals
            .iter()
            .find(|(_, principal)| principal.keys.iter().any(|known| known == key))
            .map(|(name, _)| name)
    }

    /// Everything wrong with the epoch on its own.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut owner: BTreeMap<&str, &PrincipalId> = BTreeMap::new();
        for (name, principal) in &self.principals {
            if principal.keys.is_empty() {
                faults.push(format!("principal `{name}` has no key"));
            }
            for key in &principal.keys {
                if let Some(other) = owner.insert(key, name) {
                    faults.push(format!("`{other}` and `{name}` share a key: thresholds count principals, so a key belongs to one"));
                }
            }
        }
        for role in [
            Role::Maintainer,
            Role::Promoter,
            Role::Runner,
            Role::Reviewer,
        ] {
            for name in self.in_role(role) {
                if !self.principals.contains_key(name) {
                    faults.push(format!(
                        "roles.{} names `{name}`, who is not among the principals",
                        role.as_str()
                    ));
                }
            }
        }
        if self.roles.maintainer.is_empty() {
            faults.push("roles.maintainer is empty: nobody could change this policy".to_owned());
        }
        if (self.epoch == 1) != self.previous.is_none() {
            faults.push("the root epoch has no `previous`, and every later one has".to_owned());
        }
        for (name, value) in [
            ("gates.alpha", self.gates.alpha),
            ("gates.dev_gain_min", self.gates.dev_gain_min),
            ("canary.alpha", self.canary.alpha),
            ("canary.harm_margin_max", self.canary.harm_margin_max),
            ("canary.error_rate_max", self.canary.error_rate_max),
        ] {
            if !(0.0..1.0).contains(&value) {
                faults.push(format!("{name} is {value}; it must lie in 0 to 1"));
            }
        }
        faults
    }
}
