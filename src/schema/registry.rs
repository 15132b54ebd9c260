//! Our schemas: the public contract, embedded and compiled once.
//!
//! Each is known by three names that say the same: the file
//! `schemas/signature/v1.json`, the `$id`
//! `https://proofline.dev/schemas/signature/v1.json`, and the short name
//! `proofline/signature/v1` that a document carries in its `schema` member.

use std::fmt;
use std::str::FromStr;
use std::sync::{LazyLock, OnceLock};

use serde_json::Value;

use super::diagnostic::Diagnostics;
use super::explain::did_you_mean;
use super::json;
use super::source::Located;
use super::validator::Validator;

/// What every `$id` starts with.
pub const ID_PREFIX: &str = "https://proofline.dev/schemas/";

/// The dialect of our schemas, and of users' schemas that don't say.
pub const META_SCHEMA: &str = "https://json-schema.org/draft/2020-12/schema";

macro_rules! schemas {
    ($($(#[$doc:meta])* $variant:ident = $path:literal,)+) => {
        /// One of our schemas.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SchemaName {
            $($(#[$doc])* $variant,)+
        }

        impl SchemaName {
            /// All of them.
            pub const ALL: &'static [SchemaName] = &[$(SchemaName::$variant,)+];

            /// The short name, as in a document's `schema` member.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(SchemaName::$variant => concat!("proofline/", $path),)+
                }
            }

            /// The schema's text, as in the repository.
            pub const fn text(self) -> &'static str {
                match self {
                    $(SchemaName::$variant => include_str!(concat!("../../schemas/", $path, ".json")),)+
                }
            }
        }
    };
}

schemas! {
    /// A signature file: the typed interface of a program, and how it is improved.
    Signature = "signature/v1",
    /// One row of a dataset.
    Example = "example/v1",
    /// `dataset.yaml`: what the rows of a dataset are and their digests.
    Dataset = "dataset/v1",
    /// `proofline.toml`.
    Project = "project/v1",
    /// One policy epoch.
    Policy = "policy/v1",
    /// One execution of the loop.
    Run = "run/v1",
    /// One event of a run.
    Event = "event/v1",
    /// A frozen program.
    Artifact = "artifact/v1",
    /// Everything that decides what a search does.
    Job = "job/v1",
    /// What a search saw and concluded.
    CompileReport = "compile-report/v1",
    /// One program on one split.
    EvalReport = "eval-report/v1",
    /// The reservation of one look at a holdout.
    HoldoutAttempt = "holdout-attempt/v1",
    /// What a look at a holdout came to.
    HoldoutClosing = "holdout-closing/v1",
    /// What the comparison on a holdout came to, published on a pass.
    HoldoutReport = "holdout-report/v1",
    /// A promotion or a rollback, as it is sealed.
    Promotion = "promotion/v1",
    /// The artifact in force.
    Pointer = "pointer/v1",
    /// What the verify or e2e commands of a run showed.
    CommandEvidence = "command-evidence/v1",
    /// Control and candidate sharing traffic.
    Canary = "canary/v1",
    /// What one prediction did.
    Receipt = "receipt/v1",
}

impl SchemaName {
    /// The `$id`.
    pub fn id(self) -> String {
        let path = self.as_str().trim_start_matches("proofline/");
        format!("{ID_PREFIX}{path}.json")
    }

    /// The schema as a value.
    pub fn schema(self) -> &'static Value {
        // Each on its own: a process uses three or four of them, and a short one shouldn't parse the rest.
        static PARSED: [OnceLock<Value>; SchemaName::ALL.len()] =
            [const { OnceLock::new() }; SchemaName::ALL.len()];
        PARSED[self as usize].get_or_init(|| {
            json::parse(self.as_str(), self.text())
                .expect("because every embedded schema is parsed by a test")
                .value
        })
    }

    /// The compiled schema.
    pub fn validator(self) -> &'static Validator {
        static COMPILED: [OnceLock<Validator>; SchemaName::ALL.len()] =
            [const { OnceLock::new() }; SchemaName::ALL.len()];
        COMPILED[self as usize].get_or_init(|| {
            Validator::build(
                self.as_str().to_owned(),
                self.schema(),
                surroundings(self.schema()),
            )
            .expect("because every embedded schema is compiled by a test")
        })
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names none of our schemas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a schema of proofline{}", hint.as_deref().map(|h| format!(": {h}")).unwrap_or_default())]
pub struct UnknownSchema {
    /// The text, as given.
    pub text: String,
    /// `did you mean …?`
    pub hint: Option<String>,
}

impl FromStr for SchemaName {
    type Err = UnknownSchema;

    /// Accepts the short name, the `$id`, and the short name without `proofline/` or version.
    fn from_str(text: &str) -> Result<Self, UnknownSchema> {
        let path = text
            .strip_prefix(ID_PREFIX)
            .and_then(|path| path.strip_suffix(".json"))
            .unwrap_or_else(|| text.strip_prefix("proofline/").unwrap_or(text));
        let found = Self::ALL.iter().find(|name| {
            let own = &name.as_str()["proofline/".len()..];
            own == path || own.split('/').next() == Some(path)
        });
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|name| name.as_str()).collect();
            UnknownSchema {
                text: text.to_owned(),
                hint: did_you_mean(text, &names),
            }
        })
    }
}

/// Checks a document against one of our schemas.
pub fn validate(name: SchemaName, document: &Located<Value>) -> Result<(), Diagnostics> {
    let mut all = name.validator().check(document);
    if let Some(hint) = missing_name_hint(name, &document.value) {
        let mut hinted = Diagnostics::new();
        for mut diagnostic in all {
            if diagnostic.message == "`schema` is missing" {
                diagnostic.hint = Some(hint.clone());
            }
            hinted.push(diagnostic);
        }
        all = hinted;
    }
    all.into_result(())
}

fn missing_name_hint(name: SchemaName, value: &Value) -> Option<String> {
    let members = value.as_object()?;
    (!members.contains_key("schema")).then(|| format!("add `schema` with the value `{name}`"))
}

/// Checks a document against the schema that its `schema` member names.
pub fn validate_document(document: &Located<Value>) -> Result<SchemaName, Diagnostics> {
    let source = &document.source;
    let named = match document.value.get("schema") {
        Some(Value::String(text)) => text.parse::<SchemaName>().map_err(|unknown| {
            let mut fault = source.at(
                "/schema",
                format!("`{}` is not a schema of proofline", unknown.text),
            );
            fault.hint = unknown.hint;
            fault
        }),
        Some(_) => Err(source.at("/schema", "`schema` is not a text")),
        None => Err(source
            .at("", "the document doesn't say which schema it follows")
            .with_hint("add `schema`, such as `schema: proofline/signature/v1`")),
    };
    let name = named?;
    validate(name, document).map(|()| name)
}

/// Our schemas and the meta-schemas, and nothing that would have to be fetched.
pub(crate) fn offline() -> &'static jsonschema::Registry<'static> {
    static REGISTRY: LazyLock<jsonschema::Registry<'static>> = LazyLock::new(|| {
        jsonschema::Registry::new()
            .extend(
                SchemaName::ALL
                    .iter()
                    .map(|name| (name.id(), name.schema())),
            )
            .and_then(jsonschema::RegistryBuilder::prepare)
            .expect("because every embedded schema is registered by a test")
    });
    &REGISTRY
}

/// The registry, when a schema refers to one of ours other than itself. Making it
/// takes milliseconds; the meta-schemas are known without it.
pub(crate) fn surroundings(schema: &Value) -> Option<&'static jsonschema::Registry<'static>> {
    fn refers(value: &Value) -> bool {
        match value {
            Value::Object(members) => members.iter().any(|(key, value)| match value {
                Value::String(target) => {
                    matches!(key.as_str(), "$ref" | "$dynamicRef") && target.starts_with(ID_PREFIX)
                }
                value => refers(value),
            }),
            Value::Array(items) => items.iter().any(refers),
            _ => false,
        }
    }
    refers(schema).then(offline)
}

/// One of our schemas, by `$id`.
pub(crate) fn by_uri(uri: &str) -> Option<&'static Value> {
    is_ours(uri).then(|| uri.parse::<SchemaName>().ok().map(SchemaName::schema))?
}

pub(crate) fn is_ours(uri: &str) -> bool {
    SchemaName::ALL.iter().any(|name| name.id() == uri)
}

pub(crate) fn is_meta(uri: &str) -> bool {
    uri.starts_with("https://json-schema.org/draft/2020-12/")
        || uri.starts_with("https://json-schema.org/draft/2019-09/")
        || META_SCHEMAS.contains(&uri)
}

/// The dialects that a user's schema may be written in.
const META_SCHEMAS: [&str; 5] = [
    META_SCHEMA,
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-04/schema",
];

/// The validator of a dialect, by the URI of its meta-schema without `#`.
pub(crate) fn meta_validator(uri: &str) -> Option<&'static Validator> {
    static COMPILED: [OnceLock<Option<Validator>>; META_SCHEMAS.len()] =
        [const { OnceLock::new() }; META_SCHEMAS.len()];
    let index = META_SCHEMAS.iter().position(|known| *known == uri)?;
    COMPILED[index]
        .get_or_init(|| {
            let hash = if uri.starts_with("http://") { "#" } else { "" };
            let schema = serde_json::json!({
                "$schema": format!("{uri}{hash}"),
                "$ref": format!("{uri}{hash}"),
            });
            Validator::build(String::new(), &schema, None).ok()
        })
        .as_ref()
}
