//! `artifacts`: programs, their weights, frozen signatures and jobs, reports.

use crate::domain::improve::artifact::Program;
use crate::domain::improve::report::CompileReport;
use crate::domain::improve::signature::Signature;
use crate::id::{Digest, SignatureId};
use crate::schema::SchemaName;
use crate::store::{Edit, Snapshot};

use super::refs::path;
use super::{RecordError, Refs, document};

/// `artifacts` at one commit, or before its first.
#[derive(Debug, Clone)]
pub struct Artifacts<'a> {
    refs: &'a Refs,
    snapshot: Option<&'a Snapshot>,
}

impl<'a> Artifacts<'a> {
    /// Look at `artifacts` as it is in a snapshot.
    pub fn new(refs: &'a Refs, snapshot: Option<&'a Snapshot>) -> Self {
        Self { refs, snapshot }
    }

    /// A program by its id; its bytes must hash to it.
    pub fn program(
        &self,
        signature: &SignatureId,
        artifact: &Digest,
    ) -> Result<Option<Program>, RecordError> {
        let path = path::artifact(signature, artifact);
        let program: Option<Program> = document::load(
            self.snapshot,
            &self.refs.artifacts,
            &path,
            Some(SchemaName::Artifact),
        )?;
        if let Some(program) = &program {
            let found = program.artifact_id()?;
            if found != *artifact {
                return Err(RecordError::Digest {
                    what: document::shown(&self.refs.artifacts, &path),
                    found: found.to_string(),
                    named: artifact.to_string(),
                });
            }
        }
        Ok(program)
    }

    /// The ids of every program of a signature, in order.
    pub fn ids(&self, signature: &SignatureId) -> Result<Vec<Digest>, RecordError> {
        let Some(snapshot) = self.snapshot else {
            return Ok(Vec::new());
        };
        let folder = format!("artifacts/{}", signature.path()).parse()?;
        let names = snapshot.list(Some(&folder))?;
        let hex = names
            .iter()
            .filter_map(|(name, _)| name.strip_suffix(".yaml"));
        Ok(hex
            .filter_map(|hex| format!("sha256:{hex}").parse().ok())
            .collect())
    }

    /// A program that must be there.
    pub fn program_expected(
        &self,
        signature: &SignatureId,
        artifact: &Digest,
    ) -> Result<Program, RecordError> {
        self.program(signature, artifact)?
            .ok_or_else(|| RecordError::Missing {
                what: format!("artifact {artifact} of {signature}"),
                reference: self.refs.artifacts.to_string(),
            })
    }

    /// The weights that a program names; their bytes must hash to the name.
    pub fn weights(
        &self,
        signature: &SignatureId,
        program: &Program,
    ) -> Result<Option<Vec<u8>>, RecordError> {
        let Some(lexical) = &program.lexical else {
            return Ok(None);
        };
        let path = path::weights(signature, &lexical.weights);
        let bytes = self
            .snapshot
            .map(|snapshot| snapshot.read(&path))
            .transpose()?
            .flatten();
        let bytes = bytes.ok_or_else(|| RecordError::Missing {
            what: format!("the weights {} of {signature}", lexical.weights),
            reference: self.refs.artifacts.to_string(),
        })?;
        let found = Digest::of(&bytes);
        if found != lexical.weights {
            return Err(RecordError::Digest {
                what: document::shown(&self.refs.artifacts, &path),
                found: found.to_string(),
                named: lexical.weights.to_string(),
            });
        }
        Ok(Some(bytes))
    }

    /// The edits that keep a program with its weights.
    pub fn keep(
        signature: &SignatureId,
        program: &Program,
        weights: Option<&[u8]>,
    ) -> Result<Vec<Edit>, RecordError> {
        let mut edits = vec![Edit::Put {
            path: path::artifact(signature, &program.artifact_id()?),
            bytes: document::to_yaml(program)?,
        }];
        if let (Some(lexical), Some(weights)) = (&program.lexical, weights) {
            edits.push(Edit::Put {
                path: path::weights(signature, &lexical.weights),
                bytes: weights.to_vec(),
            });
        }
        Ok(edits)
    }

    /// The edit that keeps a signature as it was when it was used.
    pub fn freeze(signature: &Signature) -> Result<Edit, RecordError> {
        Ok(Edit::Put {
            path: path::signature(&signature.id, &signature.digest()?),
            bytes: document::to_yaml(signature)?,
        })
    }

    /// A compile report by its key.
    pub fn compile_report(
        &self,
        signature: &SignatureId,
        key: &Digest,
    ) -> Result<Option<CompileReport>, RecordError> {
        document::load(
            self.snapshot,
            &self.refs.artifacts,
            &path::report("compile", signature, key, "report.yaml"),
            Some(SchemaName::CompileReport),
        )
    }
}
