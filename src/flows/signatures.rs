//! Finding signatures: the files that the globs in `proofline.toml` match, read
//! and checked together.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Serialize;
use serde_json::Value;

use crate::canon;
use crate::domain::improve::metric::Metric;
use crate::domain::improve::signature::{Parameters, Strategy};
use crate::host::files;
use crate::id::{Digest, SignatureId};
use crate::records::signatures::{self, SignatureFile};
use crate::schema::{self, did_you_mean};
use crate::schema::{Diagnostic, Diagnostics};

use super::{FlowError, Workspace};

/// Every signature file, and whatever is wrong with any of them.
#[derive(Debug)]
pub struct Catalogue {
    /// The files that are sound, in the order of their ids.
    pub files: Vec<SignatureFile>,
    /// What is wrong with the others.
    pub faults: Diagnostics,
}

/// Every signature; any fault in any file is an error.
pub fn all(workspace: &Workspace) -> Result<Vec<SignatureFile>, FlowError> {
    let catalogue = catalogue(workspace)?;
    catalogue.faults.into_result(())?;
    Ok(catalogue.files)
}

/// One signature: by its id, with or without the `@`, or by its last component where that is unique.
///
/// Faults in other files don't matter as long as they can't be about this one.
pub fn find(workspace: &Workspace, name: &str) -> Result<SignatureFile, FlowError> {
    let Catalogue { files, faults } = catalogue(workspace)?;
    let bare = name.strip_prefix('@').unwrap_or(name);
    let ids: Vec<SignatureId> = files.iter().map(|file| file.signature.id.clone()).collect();
    let mut matching: Vec<SignatureFile> = files
        .into_iter()
        .filter(|file| {
            let id = &file.signature.id;
            id.path() == bare || (!bare.contains('/') && id.name() == bare)
        })
        .collect();
    match matching.len() {
        1 => {
            let found = matching.remove(0);
            let doubtful = faults.iter().any(|fault| {
                fault
                    .hint
                    .as_ref()
                    .is_some_and(|hint| hint.contains(found.file()))
            });
            if doubtful {
                faults.into_result(())?;
            }
            Ok(found)
        }
        0 => {
            let mut error = FlowError::input(match faults.is_empty() {
                true => format!("there is no signature `{name}`"),
                false => {
                    format!("there is no signature `{name}` among the files that have no fault")
                }
            });
            let known: Vec<&str> = ids.iter().flat_map(|id| [id.as_str(), id.name()]).collect();
            error.hints.extend(did_you_mean(name, &known));
            error = error.hint(match ids.is_empty() {
                true => format!(
                    "no sound signature file matches {}",
                    workspace.project.signatures.join(", ")
                ),
                false => format!(
                    "there are: {}",
                    ids.iter()
                        .map(SignatureId::as_str)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            });
            Err(error.at(faults))
        }
        _ => {
            let ids: Vec<&str> = matching
                .iter()
                .map(|file| file.signature.id.as_str())
                .collect();
            Err(
                FlowError::usage(format!("`{name}` may be any of {}", ids.join(", ")))
                    .hint("give the whole id"),
            )
        }
    }
}

/// The signature of a project that has just one.
pub fn only(workspace: &Workspace) -> Result<SignatureFile, FlowError> {
    let mut files = all(workspace)?;
    match files.len() {
        1 => Ok(files.remove(0)),
        0 => Err(
            FlowError::input("this project has no signature yet").hint(format!(
                "no file matches {}",
                workspace.project.signatures.join(", ")
            )),
        ),
        _ => {
            let ids: Vec<&str> = files
                .iter()
                .map(|file| file.signature.id.as_str())
                .collect();
            Err(
                FlowError::usage("which signature? this project has several").hint(format!(
                    "say `--signature ID`; there are: {}",
                    ids.join(", ")
                )),
            )
        }
    }
}

/// The id that a name stands for, going by what the files call themselves: nothing is
/// checked, no schema compiled. `None` where that is not enough to say, such as a
/// file that does not parse or a name that two files have; then [`find`] explains.
pub fn id_named(workspace: &Workspace, name: &str) -> Result<Option<SignatureId>, FlowError> {
    if let Ok(id) = name.parse() {
        return Ok(Some(id));
    }
    let mut found = None;
    for (file, bytes) in sources(workspace)? {
        let id = schema::yaml::parse(&file, bytes).ok().and_then(|document| {
            document
                .value
                .get("id")?
                .as_str()?
                .parse::<SignatureId>()
                .ok()
        });
        match id {
            None => return Ok(None),
            Some(id) if id.name() != name => {}
            Some(_) if found.is_some() => return Ok(None),
            Some(id) => found = Some(id),
        }
    }
    Ok(found)
}

/// Read every file that the globs match.
pub fn catalogue(workspace: &Workspace) -> Result<Catalogue, FlowError> {
    let (files, faults) = signatures::read_all(sources(workspace)?);
    let mut catalogue = Catalogue { files, faults };
    let mut more = Vec::new();
    for file in &catalogue.files {
        more.extend(model_faults(workspace, file));
    }
    catalogue.faults.extend(more);
    Ok(catalogue)
}

/// Models that are asked for must be configured.
fn model_faults(workspace: &Workspace, file: &SignatureFile) -> Vec<Diagnostic> {
    let names: Vec<&str> = workspace
        .project
        .models
        .keys()
        .map(String::as_str)
        .collect();
    let wanted = |parameters: &Parameters| parameters.strategy == Strategy::Direct;
    let signature = &file.signature;
    let mut asked = Vec::new();
    if wanted(&signature.defaults) {
        asked.push(("/defaults/model".to_owned(), &signature.defaults.model));
    }
    for (index, name) in signature.job.space.model_variants.iter().enumerate() {
        asked.push((format!("/job/space/model_variants/{index}"), name));
    }
    asked
        .into_iter()
        .filter(|(_, name)| !names.contains(&name.as_str()))
        .map(|(pointer, name)| {
            let mut fault = file.document.source.at(
                &pointer,
                format!("no model `{name}` is configured for prompts"),
            );
            fault.hint = did_you_mean(name, &names)
                .or_else(|| Some(format!("add `[models.{name}]` to {}", super::project::FILE)));
            fault
        })
        .collect()
}

/// Name and bytes of every file that the globs match, in the order of their names.
fn sources(workspace: &Workspace) -> Result<Vec<(String, Vec<u8>)>, FlowError> {
    let patterns = &workspace.project.signatures;
    let globs = compile(patterns)?;
    if workspace.store.work_dir().is_none() {
        return committed_sources(workspace, &globs);
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for start in patterns.iter().map(|pattern| literal_folder(pattern)) {
        let walk = walkdir::WalkDir::new(workspace.root.join(start))
            .follow_links(true)
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git");
        for entry in walk
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_file())
        {
            if let Ok(relative) = entry.path().strip_prefix(&workspace.root)
                && globs.is_match(relative)
            {
                paths.push(relative.to_owned());
            }
        }
    }
    paths.sort();
    paths.dedup();
    let mut sources = Vec::new();
    for path in paths {
        sources.push((
            path.display().to_string(),
            files::read(&workspace.root.join(&path))?,
        ));
    }
    Ok(sources)
}

/// A bare repository's signatures are those on its default branch.
fn committed_sources(
    workspace: &Workspace,
    globs: &GlobSet,
) -> Result<Vec<(String, Vec<u8>)>, FlowError> {
    let Some(commit) = workspace.store.head_commit() else {
        return Ok(Vec::new());
    };
    let snapshot = workspace.store.snapshot_at(commit)?;
    let mut sources = Vec::new();
    for (path, _) in snapshot.walk(None)? {
        if globs.is_match(path.to_string())
            && let Some(bytes) = snapshot.read(&path)?
        {
            sources.push((format!("HEAD:{path}"), bytes));
        }
    }
    Ok(sources)
}

fn compile(patterns: &[String]) -> Result<GlobSet, FlowError> {
    let fault = |error: globset::Error| {
        FlowError::input(format!("a glob of signature files can't be used: {error}"))
            .hint(format!("mend `signatures` in {}", super::project::FILE))
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        // `*` stays within a folder, as in a shell; `**` goes down.
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        set.add(
            GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .map_err(fault)?,
        );
    }
    set.build().map_err(fault)
}

/// The folder that every match of a pattern is in, so that a search need not walk the whole tree.
fn literal_folder(pattern: &str) -> &Path {
    let literal = pattern.split(['*', '?', '[', '{']).next().unwrap_or("");
    let end = literal.rfind('/').unwrap_or(0);
    let folder = literal[..end].trim_start_matches("./");
    Path::new(folder)
}

/// `signature list`: what is there.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Sound signatures, in the order of their ids.
    pub signatures: Vec<Line>,
    /// How many faults there are in other files.
    pub faults: usize,
}

/// One signature in a list.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Its id.
    pub id: SignatureId,
    /// Its file.
    pub file: String,
    /// What it is for.
    pub description: String,
}

/// List the signatures.
pub fn list(workspace: &Workspace) -> Result<Listed, FlowError> {
    let catalogue = catalogue(workspace)?;
    let signatures = catalogue
        .files
        .iter()
        .map(|file| Line {
            id: file.signature.id.clone(),
            file: file.file().to_owned(),
            description: file.signature.description.clone(),
        })
        .collect();
    Ok(Listed {
        signatures,
        faults: catalogue.faults.total(),
    })
}

/// `signature show`: one definition, with what follows from it.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// Its file.
    pub file: String,
    /// Digest of the whole definition.
    pub digest: Digest,
    /// Digest of the interface that artifacts freeze.
    pub interface: Digest,
    /// The definition, with every default filled in.
    pub signature: Value,
    /// How outputs are scored, in words.
    pub metric: String,
}

/// Show one signature.
pub fn show(workspace: &Workspace, name: &str) -> Result<Shown, FlowError> {
    let file = find(workspace, name)?;
    let signature = &file.signature;
    Ok(Shown {
        file: file.file().to_owned(),
        digest: signature.digest()?,
        interface: canon::digest(&signature.interface())?,
        signature: serde_json::to_value(signature).map_err(FlowError::bug)?,
        metric: match &signature.metric {
            Metric::ExactMatch => "1 when the output equals the expected one, else 0".to_owned(),
            Metric::FieldMatch { field } => {
                format!("1 when `{field}` equals the expected one, else 0")
            }
            Metric::Reward => "0.2 for the right format, 0.8 more for an exact match".to_owned(),
        },
    })
}

/// Check files: those given, else all that the globs match. Faults are an error with all of them.
pub fn check(workspace: &Workspace, paths: &[PathBuf]) -> Result<Listed, FlowError> {
    let catalogue = match paths.is_empty() {
        true => catalogue(workspace)?,
        false => {
            let mut sources = Vec::new();
            for path in paths {
                sources.push((path.display().to_string(), files::read(path)?));
            }
            let (files, mut faults) = signatures::read_all(sources);
            let more: Vec<Diagnostic> = files
                .iter()
                .flat_map(|file| model_faults(workspace, file))
                .collect();
            faults.extend(more);
            Catalogue { files, faults }
        }
    };
    catalogue.faults.into_result(())?;
    let signatures = catalogue
        .files
        .iter()
        .map(|file| Line {
            id: file.signature.id.clone(),
            file: file.file().to_owned(),
            description: file.signature.description.clone(),
        })
        .collect();
    Ok(Listed {
        signatures,
        faults: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_starts_where_the_pattern_does() {
        for (pattern, folder) in [
            ("signatures/*.yaml", "signatures"),
            ("a/b/**/x.yaml", "a/b"),
            ("*.yaml", ""),
            ("./s/x.yaml", "s"),
            ("s/{a,b}/*.yaml", "s"),
        ] {
            assert_eq!(literal_folder(pattern), Path::new(folder), "{pattern}");
        }
        let globs = compile(&["signatures/*.yaml".into()]).expect("a glob");
        assert!(globs.is_match("signatures/a.yaml") && !globs.is_match("signatures/old/a.yaml"));
    }
}
