//! Set a repository up, or find out that it is set up: keys, the root policy on
//! `control`, the pin in `proofline.toml`, an `allowed_signers` file.
//!
//! Safe to run again: what is there is reported and stays, what is missing is
//! made. A crash between two steps leaves something that the next run completes.
//! The index, `HEAD` and the user's branches are not touched, and in the work
//! tree nothing but `proofline.toml`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::domain::improve::signature::PromotionMode;
use crate::domain::prove::policy::{Founding, Policy, PromotionRules, Role, Rules};
use crate::host::files;
use crate::host::lock::Lock;
use crate::id::{Digest, PrincipalId};
use crate::records::Refs;
use crate::records::control::{self, Control};
use crate::records::refs::path;
use crate::seal::allowed_signers::{self, AllowedSigner};
use crate::seal::{Namespace, PublicKey};
use crate::store::{Decision, ObjectName, RefName, Snapshot, Transaction};

use super::keyring::{Keyring, Origin};
use super::pin::{self, Pin};
use super::project::FILE;
use super::workspace::KeyRole;
use super::{FlowError, Kind, Workspace};

/// What the user decides.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The runner's key; made when there is none.
    pub runner_key: Option<PathBuf>,
    /// The key of the person who promotes; git's SSH signing key, or made, when there is none.
    pub promoter_key: Option<PathBuf>,
    /// How the policy calls the person; their e-mail address otherwise.
    pub name: Option<PrincipalId>,
    /// First part of every branch.
    pub prefix: Option<String>,
    /// The remote that `control` and `ledger` are shared through.
    pub remote: Option<String>,
    /// What the loop does with a proven winner; a proposal otherwise.
    pub mode: Option<PromotionMode>,
    /// The rules of the first policy; the defaults otherwise. `mode` goes before them.
    pub rules: Option<Rules>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was there, and what was made.
#[derive(Debug, Clone, Serialize)]
pub struct Initialised {
    /// Whether nothing was done, only said.
    pub dry_run: bool,
    /// Each thing a repository needs.
    pub steps: Vec<Step>,
    /// Digest of the root policy; unknown in a dry run that would make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
    /// Where `control` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Who can act from here.
    pub here: Vec<Here>,
    /// The file to commit, in a repository without a work tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_this: Option<String>,
    /// How anyone verifies `control` with git alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// One thing that a repository needs.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What it is.
    pub what: String,
    /// Whether it was there.
    pub state: State,
}

/// Whether something was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was, and is as it was.
    Present,
    /// It was made.
    Made,
    /// It would be made.
    WouldMake,
}

/// A principal whose key is here.
#[derive(Debug, Clone, Serialize)]
pub struct Here {
    /// What the key is used for here.
    pub key: &'static str,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Whose it is by the policy; `None` when it is nobody's.
    pub principal: Option<PrincipalId>,
    /// Their roles.
    pub roles: Vec<&'static str>,
}

impl Initialised {
    /// Whether anything was made.
    pub fn changed(&self) -> bool {
        self.steps.iter().any(|step| step.state == State::Made)
    }

    fn step(&mut self, what: impl Into<String>, made: bool) {
        let state = match (made, self.dry_run) {
            (false, _) => State::Present,
            (true, false) => State::Made,
            (true, true) => State::WouldMake,
        };
        self.steps.push(Step {
            what: what.into(),
            state,
        });
    }
}

/// Set the repository that a folder is in up.
pub fn init(dir: &Path, options: &Options) -> Result<Initialised, FlowError> {
    let mut workspace = Workspace::open_unconfigured(dir)?;
    settle(&mut workspace, options)?;
    let _lock = match options.dry_run {
        true => None,
        false => Some(Lock::acquire(
            &workspace.store.local_dir()?.join("init.lock"),
        )?),
    };
    let mut done = Initialised {
        dry_run: options.dry_run,
        steps: Vec::new(),
        root: workspace.project.control.root,
        control: None,
        here: Vec::new(),
        commit_this: None,
        verify: None,
        notes: Vec::new(),
    };
    let local = workspace.store.tip(&workspace.refs.control)?;
    match (workspace.project.control.root, local) {
        (Some(root), _) => join(&workspace, options, &root, &mut done)?,
        (None, Some(tip)) => adopt(&workspace, options, tip, &mut done)?,
        (None, None) => found(&workspace, options, &mut done)?,
    }
    Ok(done)
}

/// Bring what the command line says together with what `proofline.toml` says.
fn settle(workspace: &mut Workspace, options: &Options) -> Result<(), FlowError> {
    let project = &mut workspace.project;
    if let Some(prefix) = &options.prefix {
        if project.control.root.is_some() && *prefix != project.refs.prefix {
            return Err(FlowError::usage(format!(
                "this repository's branches begin with `{}`, not `{prefix}`: {FILE} says so",
                project.refs.prefix
            )));
        }
        project.refs.prefix.clone_from(prefix);
    }
    if let Some(remote) = &options.remote {
        if let Some(known) = project.remote.as_ref().filter(|known| *known != remote) {
            return Err(FlowError::usage(format!(
                "{FILE} names the remote `{known}`, not `{remote}`"
            ))
            .hint(format!("to change it, edit {FILE}")));
        }
        workspace.store.remote(remote)?;
        project.remote = Some(remote.clone());
    }
    workspace.refs = Refs::new(&project.refs.prefix)?;
    Ok(())
}

/// There is a pin: see that what it names is here.
fn join(
    workspace: &Workspace,
    options: &Options,
    root: &Digest,
    done: &mut Initialised,
) -> Result<(), FlowError> {
    done.step(format!("{FILE}, pinned to {root}"), false);
    let control = &workspace.refs.control;
    let tip = match workspace.store.tip(control)? {
        Some(tip) => tip,
        None => tracked(workspace, control)?.ok_or_else(|| not_here(workspace, root))?,
    };
    let policy = policy_of(workspace, tip, root)?;
    for branch in workspace.refs.branches() {
        if workspace.store.tip(branch)?.is_some() {
            done.step(format!("branch {}", branch.short()), false);
        } else if let Some(tip) = tracked(workspace, branch)? {
            if !options.dry_run {
                workspace
                    .store
                    .create_ref(branch, tip, &workspace.author()?)?;
            }
            done.step(
                format!("branch {}, at what the remote has", branch.short()),
                true,
            );
        }
    }
    remember_remote(workspace, options, root, done)?;
    let mut keyring = Keyring::new(workspace, options.dry_run);
    for (role, given) in [
        (KeyRole::Promoter, &options.promoter_key),
        (KeyRole::Runner, &options.runner_key),
    ] {
        if let Some(path) = given {
            keyring.given(role, path)?;
        }
    }
    for text in keyring.made() {
        done.step(text, true);
    }
    finish(workspace, &policy, Some(tip), done)
}

/// A pinned repository that was given `--remote` later.
fn remember_remote(
    workspace: &Workspace,
    options: &Options,
    root: &Digest,
    done: &mut Initialised,
) -> Result<(), FlowError> {
    if options.remote.is_none() || workspace.store.is_bare() {
        return Ok(());
    }
    write_pin(workspace, options, root, done, false)
}

/// The commit that a remote's branch was at when it was last fetched.
fn tracked(workspace: &Workspace, branch: &RefName) -> Result<Option<ObjectName>, FlowError> {
    for remote in remotes(workspace) {
        let name: RefName = format!("refs/remotes/{remote}/{}", branch.short()).parse()?;
        if let Some(tip) = workspace.store.tip(&name)? {
            return Ok(Some(tip));
        }
    }
    Ok(None)
}

/// The remote that `proofline.toml` names; else all of them, `origin` first.
fn remotes(workspace: &Workspace) -> Vec<String> {
    if let Some(remote) = &workspace.project.remote {
        return vec![remote.clone()];
    }
    let mut names: Vec<String> = workspace
        .store
        .remotes()
        .iter()
        .map(|remote| remote.name().to_owned())
        .collect();
    names.sort_by_key(|name| (name != "origin", name.clone()));
    names
}

fn not_here(workspace: &Workspace, root: &Digest) -> FlowError {
    let error = FlowError::new(
        Kind::Undecidable,
        format!(
            "{FILE} pins {root}, and {} is neither here nor among what was fetched",
            workspace.refs.control.short()
        ),
    );
    match remotes(workspace).first() {
        Some(remote) => error
            .hint(fetch_command(workspace, remote))
            .hint("then run `proofline init` again"),
        None => error.hint("add the remote that has it: `git remote add origin URL`"),
    }
}

fn fetch_command(workspace: &Workspace, remote: &str) -> String {
    let prefix = &workspace.project.refs.prefix;
    format!("git fetch {remote} 'refs/heads/{prefix}/*:refs/remotes/{remote}/{prefix}/*'")
}

/// The current policy at a commit of `control`, from the pinned root.
fn policy_of(workspace: &Workspace, tip: ObjectName, root: &Digest) -> Result<Policy, FlowError> {
    let snapshot = workspace.store.snapshot_at(tip)?;
    let policy = Control::new(&workspace.refs, Some(&snapshot)).policy(root)?;
    policy.ok_or_else(|| {
        FlowError::new(
            Kind::Refused,
            format!("{} at {tip} holds no policy", workspace.refs.control),
        )
    })
}

/// There is `control` and no pin: a run that was cut off, or somebody else's.
fn adopt(
    workspace: &Workspace,
    options: &Options,
    tip: ObjectName,
    done: &mut Initialised,
) -> Result<(), FlowError> {
    let snapshot = workspace.store.snapshot_at(tip)?;
    let (root, policy) = unpinned(workspace, &snapshot)?;
    let keyring = Keyring::new(workspace, options.dry_run);
    let ours = keyring.known().iter().any(|key| {
        policy
            .principal_of(&key.to_string())
            .is_some_and(|name| policy.in_role(Role::Maintainer).contains(name))
    });
    if !ours {
        return Err(made_by_others(workspace, &root));
    }
    done.step(format!("branch {}", workspace.refs.control.short()), false);
    pin_and_finish(workspace, options, &root, &policy, tip, done)
}

fn unpinned(workspace: &Workspace, snapshot: &Snapshot) -> Result<(Digest, Policy), FlowError> {
    let control = Control::new(&workspace.refs, Some(snapshot));
    let first = control.policy_at(1)?.ok_or_else(|| {
        FlowError::input(format!(
            "there is a branch {} already, and it is none of ours: it has no {}",
            workspace.refs.control.short(),
            path::policy(1)
        ))
        .hint("choose another name for our branches: `proofline init --prefix NAME`")
    })?;
    let root = first.digest()?;
    let policy = control.policy(&root)?.unwrap_or(first);
    Ok((root, policy))
}

fn made_by_others(workspace: &Workspace, root: &Digest) -> FlowError {
    FlowError::new(
        Kind::Undecidable,
        format!(
            "there is a {} that others made, and no {FILE} says that it is the one to trust",
            workspace.refs.control.short()
        ),
    )
    .hint(format!("take {FILE} from the branch that your team works on"))
    .hint(format!(
        "or, if you know its root to be the right one, write it into {FILE} yourself:\n[control]\nroot = \"{root}\""
    ))
}

/// There is nothing: make keys and the root policy.
fn found(
    workspace: &Workspace,
    options: &Options,
    done: &mut Initialised,
) -> Result<(), FlowError> {
    if let Some(tip) = tracked(workspace, &workspace.refs.control)? {
        let snapshot = workspace.store.snapshot_at(tip)?;
        let (root, _) = unpinned(workspace, &snapshot)?;
        return Err(made_by_others(workspace, &root));
    }
    let mut keyring = Keyring::new(workspace, options.dry_run);
    let promoter = match &options.promoter_key {
        Some(path) => keyring.given(KeyRole::Promoter, path)?,
        None => keyring.promoter()?,
    };
    let runner = match &options.runner_key {
        Some(path) => keyring.given(KeyRole::Runner, path)?,
        None => keyring.runner()?,
    };
    for key in [&promoter, &runner] {
        done.step(key.sentence(), key.origin == Origin::Made);
    }
    done.notes.extend(keyring.notes());
    if options.dry_run {
        done.step(
            format!(
                "branch {}, with policy epoch 1",
                workspace.refs.control.short()
            ),
            true,
        );
        done.step(FILE, true);
        done.step("allowed_signers", true);
        return Ok(());
    }
    let (promoter, runner) = (promoter.expected()?, runner.expected()?);
    if promoter == runner {
        return Err(FlowError::usage(
            "the runner's key and the promoter's are one; they must be two, so that nobody promotes on evidence of their own",
        )
        .hint("leave --runner-key away, and a key is made for the runner"));
    }
    let mut person_keys = vec![promoter.to_string()];
    if let Some(key) = keyring
        .git_key()
        .filter(|key| *key != promoter && *key != runner)
    {
        // Commits are signed with git's own key: a verifier must know whose it is.
        person_keys.push(key.to_string());
    }
    let person = match &options.name {
        Some(name) => name.clone(),
        None => person_name(workspace)?,
    };
    let rules = options.rules.clone().unwrap_or_default();
    let mode = options.mode.unwrap_or(rules.promotion.mode);
    let mut policy = Policy::root(Founding {
        // A v7 UUID: the time in front, and 74 random bits behind it.
        repository: uuid::Uuid::now_v7().to_string(),
        runner: runner_name(workspace, &person)?,
        person,
        person_keys,
        runner_keys: vec![runner.to_string()],
        mode,
    });
    policy.gates = rules.gates;
    policy.canary = rules.canary;
    policy.promotion = PromotionRules {
        mode,
        ..rules.promotion
    };
    let faults = policy.faults();
    if !faults.is_empty() {
        return Err(FlowError::input(faults.join("; ")));
    }
    let root = policy.digest()?;
    let tip = commit_root(workspace, &policy, &root)?;
    done.step(
        format!(
            "branch {}, with policy epoch 1",
            workspace.refs.control.short()
        ),
        true,
    );
    pin_and_finish(workspace, options, &root, &policy, tip, done)
}

fn commit_root(
    workspace: &Workspace,
    policy: &Policy,
    root: &Digest,
) -> Result<ObjectName, FlowError> {
    let signer = workspace.commit_signer()?;
    let remote = workspace.remote()?;
    let transaction = Transaction::new(workspace.refs.control.clone(), workspace.author()?)
        .signed_by(Some(&signer))
        .shared_with(remote.as_ref());
    let edits = vec![control::policy_edit(policy)?];
    let message = founding_message(policy, root);
    let outcome =
        workspace
            .store
            .transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
                if let Some(snapshot) = snapshot {
                    let (root, _) = unpinned(workspace, snapshot)?;
                    return Err(made_by_others(workspace, &root));
                }
                Ok(Decision::Commit {
                    edits: edits.clone(),
                    message: message.clone(),
                })
            })?;
    outcome
        .tip()
        .ok_or_else(|| FlowError::bug("the root policy was committed, yet its branch has no tip"))
}

fn founding_message(policy: &Policy, root: &Digest) -> String {
    let mut text = "policy: epoch 1, the root of trust\n\nWho may do what:\n".to_owned();
    for role in [
        Role::Maintainer,
        Role::Promoter,
        Role::Reviewer,
        Role::Runner,
    ] {
        let names: Vec<&str> = policy
            .in_role(role)
            .iter()
            .map(PrincipalId::as_str)
            .collect();
        text.push_str(&format!("  {}: {}\n", role.as_str(), names.join(", ")));
    }
    text.push_str(&format!("\nEpoch: 1\nRoot: {root}\n"));
    text
}

fn pin_and_finish(
    workspace: &Workspace,
    options: &Options,
    root: &Digest,
    policy: &Policy,
    tip: ObjectName,
    done: &mut Initialised,
) -> Result<(), FlowError> {
    done.root = Some(*root);
    write_pin(workspace, options, root, done, true)?;
    finish(workspace, policy, Some(tip), done)
}

/// Write the pin into `proofline.toml`, or say what to commit where there is no work tree.
fn write_pin(
    workspace: &Workspace,
    options: &Options,
    root: &Digest,
    done: &mut Initialised,
    say_present: bool,
) -> Result<(), FlowError> {
    let pin = Pin {
        root,
        prefix: options
            .prefix
            .as_deref()
            .filter(|prefix| *prefix != "proofline"),
        remote: options.remote.as_deref(),
    };
    if workspace.store.is_bare() {
        done.commit_this = Some(pin::new_file(&pin));
        done.notes.push(format!(
            "this repository has no work tree: commit the file below as {FILE} on its default branch"
        ));
        return Ok(());
    }
    let path = workspace.root.join(FILE);
    let text = match files::read_optional(&path)? {
        None => Some(pin::new_file(&pin)),
        Some(bytes) => {
            let text = String::from_utf8(bytes)
                .map_err(|_| FlowError::input(format!("{} is not UTF-8", path.display())))?;
            pin::insert(&text, &pin)?
        }
    };
    match text {
        Some(text) => {
            if !options.dry_run {
                files::write_users(&path, text.as_bytes())?;
            }
            done.step(format!("{}, with the pin", path.display()), true);
            done.notes.push(format!(
                "{FILE} is the only file in your work tree that was written; commit it with your code"
            ));
        }
        None if say_present => done.step(format!("{}, with the pin", path.display()), false),
        None => {}
    }
    Ok(())
}

/// What is written anew each time, and what there is to say.
fn finish(
    workspace: &Workspace,
    policy: &Policy,
    tip: Option<ObjectName>,
    done: &mut Initialised,
) -> Result<(), FlowError> {
    let text = render_allowed_signers(policy)?;
    let file = workspace
        .store
        .common_dir()
        .join("proofline")
        .join("allowed_signers");
    let stale = files::read_optional(&file)?.as_deref() != Some(text.as_bytes());
    if stale && !done.dry_run {
        workspace.store.local_dir()?;
        files::write_atomic(&file, text.as_bytes())?;
    }
    done.step(file.display().to_string(), stale);
    for (role, key) in Keyring::new(workspace, done.dry_run).by_role() {
        let principal = policy.principal_of(&key.to_string()).cloned();
        let has = |role: &Role| {
            principal
                .as_ref()
                .is_some_and(|name| policy.in_role(*role).contains(name))
        };
        let all = [
            Role::Maintainer,
            Role::Promoter,
            Role::Reviewer,
            Role::Runner,
        ];
        let roles: Vec<&'static str> = all
            .iter()
            .filter(|role| has(role))
            .map(|role| role.as_str())
            .collect();
        if !roles.contains(&role.as_str()) {
            done.notes.push(format!(
                "the {} key here, {}, has not the role `{}` by policy epoch {}",
                role.as_str(),
                key.fingerprint(),
                role.as_str(),
                policy.epoch
            ));
        }
        done.here.push(Here {
            key: role.as_str(),
            fingerprint: key.fingerprint(),
            principal,
            roles,
        });
    }
    if let Some(tip) = tip {
        done.control = Some(tip.to_string());
        done.verify = Some(verify_command(workspace, tip, &file)?);
    }
    Ok(())
}

/// Each key may seal what its owner's roles are for; git's own namespace is for those who land on `control`.
fn render_allowed_signers(policy: &Policy) -> Result<String, FlowError> {
    let mut signers = Vec::new();
    for (name, principal) in &policy.principals {
        let has = |role: Role| policy.in_role(role).contains(name);
        let mut namespaces: Vec<&str> = Vec::new();
        if has(Role::Maintainer) || has(Role::Promoter) || has(Role::Reviewer) {
            namespaces.push("git");
        }
        for (role, sealed) in [
            (Role::Maintainer, &[Namespace::Policy][..]),
            (Role::Promoter, &[Namespace::Promotion]),
            (Role::Reviewer, &[Namespace::Approval]),
            (
                Role::Runner,
                &[Namespace::Ledger, Namespace::Evidence, Namespace::Canary],
            ),
        ] {
            if has(role) {
                namespaces.extend(sealed.iter().map(|namespace| namespace.as_str()));
            }
        }
        if namespaces.is_empty() {
            // A line without namespaces would allow everything.
            continue;
        }
        for key in &principal.keys {
            let key: PublicKey = key.parse().map_err(|error| {
                FlowError::input(format!("the policy's key of `{name}`: {error}"))
            })?;
            signers.push(AllowedSigner::new(
                [name.as_str()],
                key,
                namespaces.iter().copied(),
            ));
        }
    }
    allowed_signers::render(&signers).map_err(FlowError::input)
}

fn verify_command(
    workspace: &Workspace,
    tip: ObjectName,
    file: &Path,
) -> Result<String, FlowError> {
    let control = workspace.refs.control.short();
    let signature = workspace.store.commit(tip)?.signature.unwrap_or_default();
    Ok(if signature.starts_with("-----BEGIN SSH SIGNATURE-----") {
        format!(
            "git -c gpg.ssh.allowedSignersFile='{}' verify-commit {control}",
            file.display()
        )
    } else {
        format!("git verify-commit {control}")
    })
}

/// The person's e-mail address, else their name, as a principal.
fn person_name(workspace: &Workspace) -> Result<PrincipalId, FlowError> {
    let author = workspace.author()?;
    let known = workspace.store.config_string("user.email").is_some()
        || workspace.store.config_string("user.name").is_some();
    let texts = match known {
        true => vec![author.email().to_owned(), author.name().to_owned()],
        false => Vec::new(),
    };
    let found = texts.iter().find_map(|text| as_principal(text));
    Ok(match found {
        Some(name) => name,
        None => "maintainer".parse()?,
    })
}

/// The runner's name: the same on every machine that has this repository.
fn runner_name(workspace: &Workspace, person: &PrincipalId) -> Result<PrincipalId, FlowError> {
    let place = workspace
        .store
        .common_dir()
        .ancestors()
        .filter_map(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned())
        .find(|name| name != ".git")
        .unwrap_or_default();
    let place: String = place.trim_end_matches(".git").chars().take(40).collect();
    let name = as_principal(&format!("runner@{place}"));
    match name.filter(|name| name != person) {
        Some(name) => Ok(name),
        None => Ok("runner@proofline".parse()?),
    }
}

/// A text with everything that a principal may not hold made into `-`.
fn as_principal(text: &str) -> Option<PrincipalId> {
    let safe: String = text
        .trim()
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@') => c,
            _ => '-',
        })
        .take(64)
        .collect();
    safe.trim_matches(['-', '.']).parse().ok()
}
