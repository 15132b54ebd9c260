//! What the evaluator costs besides the model: programs on rows with a model that
//! answers at once, uncached, through rendering, digest, cache look-up and write,
//! decoding, validation and scoring.
//!
//! `cargo bench --bench engine`

use std::sync::Arc;
use std::time::Instant;

use proofline::domain::improve::artifact::{Program, ProgramModel, Sampling};
use proofline::domain::improve::dataset::{Example, Split};
use proofline::domain::improve::metric::Metric;
use proofline::domain::improve::signature::{
    Decode, Instruction, Interface, PromptFrame, Strategy,
};
use proofline::flows::evaluate::{self, Context, Work};
use proofline::flows::predict::{Engine, Predictor};
use proofline::host::clock::SystemClock;
use proofline::host::signal::Interrupt;
use proofline::models::cache::Cache;
use proofline::models::{
    Completion, FinishReason, Model, ModelConfigs, ModelError, ModelIdentity, Request,
    Surroundings, Usage,
};
use serde_json::json;

#[derive(Debug)]
struct Instantly;

impl Model for Instantly {
    fn complete(&self, _request: &Request) -> Result<Completion, ModelError> {
        Ok(Completion {
            text: r#"{"tool":"none"}"#.to_owned(),
            answered_by: self.identity(),
            usage: Usage {
                input_tokens: 100,
                output_tokens: 6,
            },
            finish: FinishReason::Stop,
            latency_ms: 0,
            attempts: 1,
            cost_micro_usd: 0,
            cached: false,
            fallback: None,
            server_request_id: None,
        })
    }

    fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            provider: "bench".to_owned(),
            model: "instant".to_owned(),
            revision: None,
        }
    }

    fn concurrency(&self) -> usize {
        64
    }
}

fn main() {
    const ROWS: usize = 20_000;
    let output = json!({
        "type": "object", "additionalProperties": false, "required": ["tool"],
        "properties": {"tool": {"enum": ["none", "search", "mail"]}},
    });
    let program = Program {
        schema: Program::SCHEMA.to_owned(),
        interface: Interface {
            signature: "@bench/engine/Route.v1".parse().expect("an id"),
            input: json!({"type": "object"}),
            output,
            prompt: PromptFrame::default(),
        },
        strategy: Strategy::Direct,
        model: ProgramModel {
            name: "instant".to_owned(),
            provider: "bench".to_owned(),
            model: "instant".to_owned(),
        },
        instruction: Instruction {
            text: "Choose the tool for the message.".to_owned(),
        },
        few_shots: Vec::new(),
        decode: Decode::default(),
        sampling: Sampling {
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: 64,
        },
        budgets: Default::default(),
        lexical: None,
    };
    let rows: Vec<Example> = (0..ROWS)
        .map(|number| Example {
            id: format!("row-{number}").parse().expect("an id"),
            input: json!({"message": format!("what is the weather like on day {number}?")}),
            expected: json!({"tool": "search"}),
            split: Split::Dev,
            tags: Vec::new(),
            group: None,
            source: None,
            meta: Default::default(),
        })
        .collect();
    for (name, with_cache) in [("cache on, every key new", true), ("no cache", false)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let surroundings = Surroundings::new(
            Arc::new(SystemClock::default()),
            Interrupt::default(),
            |_| None,
        );
        let cache = with_cache.then(|| Cache::open(folder.path()).expect("a cache"));
        let engine = Engine::new(ModelConfigs::new(), surroundings, cache);
        engine.connect_as("instant", Arc::new(Instantly));
        let predictor = Predictor::new(&engine, program.clone(), None).expect("a predictor");
        let work: Vec<Work<'_>> = rows
            .iter()
            .map(|row| Work {
                predictor: &predictor,
                row,
            })
            .collect();
        let context = Context {
            key: "",
            run: "bench",
        };
        let mut best = 0.0_f64;
        for round in 0..5 {
            // A context of its own makes every key new.
            let key = format!("round {round}");
            let context = Context {
                key: &key,
                ..context
            };
            let began = Instant::now();
            let outcomes =
                evaluate::outcomes(&engine, &Metric::ExactMatch, &work, context).expect("outcomes");
            let rate = outcomes.len() as f64 / began.elapsed().as_secs_f64();
            println!("{name}: {rate:.0} predictions/s");
            best = best.max(rate);
        }
        println!("{name}: best of five {best:.0} predictions/s (asked for: 20,000)");
    }
}
