//! `proofline predict`

use std::io::Read as _;

use serde::Serialize;
use serde_json::Value;

use crate::flows::predict::{Call, Prediction, Predictor};
use crate::flows::{FlowError, eval, resolve, signatures};
use crate::id::Digest;

use super::{Exit, Page, Terminal};

/// Answer one input with the program in force
///
/// Standard output holds the answer alone, so that it can be piped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// The input as JSON; `-` reads standard input
    #[arg(long, value_name = "JSON", default_value = "-")]
    input: String,
    /// Who asks: while a canary is running, this decides which arm answers
    #[arg(long)]
    key: Option<String>,
    /// Ask this program instead of the one in force, `sha256:…`
    #[arg(long, value_name = "DIGEST", conflicts_with = "key")]
    artifact: Option<Digest>,
}

/// An answer and what it took.
#[derive(Debug, Serialize)]
struct Answer {
    signature: String,
    artifact: Digest,
    #[serde(flatten)]
    prediction: Prediction,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let file = signatures::find(&workspace, &args.signature)?;
    let signature = file.signature;
    let (name, text) = if args.input == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| FlowError::input(format!("standard input cannot be read: {error}")))?;
        ("<stdin>", text)
    } else {
        ("--input", args.input)
    };
    let document = crate::schema::json::parse(name, text)?;
    let validator = crate::schema::Validator::new(&signature.input).map_err(|error| {
        FlowError::input(format!("the input schema of {}: {error}", signature.id))
    })?;
    let faults = validator.check(&document);
    faults.into_result(())?;
    let input: Value = document.value;
    let engine = workspace.engine()?;
    let artifact = match (args.artifact, args.key) {
        (Some(artifact), _) => Some(artifact),
        (None, Some(key)) => resolve::resolve(&workspace, &signature, Some(&key))?.artifact,
        (None, None) => None,
    };
    let program = eval::program(&workspace, &engine, &signature, artifact.as_ref())?;
    let predictor = Predictor::new(&engine, program.program, program.weights.as_deref())?;
    let call = Call {
        context: "",
        repetition: 0,
        correlation_id: format!("predict-{}", uuid::Uuid::now_v7()),
    };
    let prediction = predictor.predict(&engine, &input, &call)?;
    terminal.show(&Answer {
        signature: signature.id.to_string(),
        artifact: predictor.artifact,
        prediction,
    })
}

impl Page for Answer {
    fn page(&self) -> String {
        match (&self.prediction.output, &self.prediction.reason) {
            (Some(output), _) => format!("{output}\n"),
            (None, Some(reason)) => format!("no answer: {reason}\n"),
            (None, None) => "no answer\n".to_owned(),
        }
    }

    fn exit_code(&self) -> u8 {
        if self.prediction.output.is_some() {
            0
        } else {
            5
        }
    }
}
