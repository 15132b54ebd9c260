//! What a night needs, looked for before anything is done; everything missing is named at once.

use serde::Serialize;

use crate::domain::improve::signature::{Signature, Strategy};
use crate::domain::prove::policy::{Policy, Role};
use crate::host::network;
use crate::models::{ModelConfig, ModelConfigs};

use super::workspace::KeyRole;
use super::{FlowError, Workspace, canary};

/// Something missing, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Missing {
    /// Something missing.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Look for everything that these signatures need.
pub fn check(
    workspace: &Workspace,
    policy: &Policy,
    signatures: &[Signature],
    promotes: bool,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut roles = vec![(KeyRole::Runner, Role::Runner)];
    if promotes {
        roles.push((KeyRole::Promoter, Role::Promoter));
    }
    for (key, role) in roles {
        missing.extend(missing_key(workspace, policy, key, role));
    }
    // Here, because a canary starts only after the holdout was paid for.
    for signature in signatures {
        missing.extend(canary::excesses(policy, signature));
    }
    let mut names: Vec<&str> = signatures.iter().flat_map(models_of).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        missing.extend(missing_model(&workspace.project.models, name));
    }
    for command in workspace
        .project
        .commands
        .verify
        .iter()
        .chain(&workspace.project.commands.e2e)
    {
        if command.argv.is_empty() {
            missing.push(Missing::new(
                format!("the command `{}` has no program", command.name),
                "give it an `argv` in proofline.toml",
            ));
        }
    }
    missing
}

/// Every model that a signature's defaults or space can ask.
pub fn models_of(signature: &Signature) -> Vec<&str> {
    let space = &signature.job.space;
    let prompts = signature.defaults.strategy == Strategy::Direct
        || space.strategy_variants.contains(&Strategy::Direct);
    if !prompts {
        return Vec::new();
    }
    let defaults = std::iter::once(signature.defaults.model.as_str());
    defaults
        .chain(space.model_variants.iter().map(String::as_str))
        .collect()
}

fn missing_key(
    workspace: &Workspace,
    policy: &Policy,
    key: KeyRole,
    role: Role,
) -> Option<Missing> {
    let sealer = match workspace.sealer(key) {
        Ok(sealer) => sealer,
        Err(error) => return Some(Missing::new(error.message.clone(), error.hints.join("; "))),
    };
    let public = sealer.public_key().to_string();
    let known = policy
        .principal_of(&public)
        .is_some_and(|name| policy.in_role(role).contains(name));
    (!known).then(|| {
        Missing::new(
            format!(
                "the {} key {} has not the role `{}` in policy epoch {}",
                key.as_str(),
                sealer.public_key().fingerprint(),
                role.as_str(),
                policy.epoch
            ),
            format!(
                "set PROOFLINE_{}_KEY to a key that has it, or propose a policy that gives it",
                key.as_str().to_uppercase()
            ),
        )
    })
}

fn missing_model(configs: &ModelConfigs, name: &str) -> Vec<Missing> {
    let Some(config) = configs.get(name) else {
        return vec![Missing::new(
            format!("the model `{name}` is not configured"),
            format!("add `[models.{name}]` to proofline.toml"),
        )];
    };
    let mut missing: Vec<Missing> = config
        .required_environment()
        .into_iter()
        .filter(|variable| std::env::var_os(variable).is_none_or(|value| value.is_empty()))
        .map(|variable| {
            Missing::new(
                format!("the model `{name}` needs the environment variable {variable}"),
                format!("export {variable}=…"),
            )
        })
        .collect();
    if let ModelConfig::Openai(config) = config
        && let Err(reason) = network::reach(&config.base_url)
    {
        missing.push(Missing::new(
            format!("the endpoint of the model `{name}` cannot be reached: {reason}"),
            "start it, or mend `base_url` in proofline.toml",
        ));
    }
    missing
}

/// The faults as one error.
pub fn error(missing: &[Missing]) -> FlowError {
    let mut error = FlowError::input(format!(
        "the night cannot begin: {}",
        missing
            .iter()
            .map(|missing| missing.what.as_str())
            .collect::<Vec<_>>()
            .join("; ")
    ));
    for missing in missing {
        error = error.hint(&missing.remedy);
    }
    error
}
