//! What the models layer costs: figures are printed, nothing is asserted.
//!
//! ```text
//! cargo bench --bench models
//! ```
//!
//! The server shares the machine with the client, as it does in
//! `peers/dspy_evaluate.sh`, which measures DSPy's `Evaluate` on the same server.

#[path = "../tests/support/chat_server.rs"]
mod chat_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_server::{ChatServer, Script};
use proofline::canon;
use proofline::host::clock::SystemClock;
use proofline::host::signal::Interrupt;
use proofline::models::cache::Cache;
use proofline::models::meter::{Budget, Estimate, Meter};
use proofline::models::pool::run_bounded;
use proofline::models::{
    Completion, Decoding, FinishReason, Message, Model, ModelConfigs, ModelError, ModelIdentity,
    Request, ResponseFormat, Surroundings, Usage, connect,
};

/// Answers at once.
#[derive(Debug)]
struct Instantly;

impl Model for Instantly {
    fn complete(&self, _: &Request) -> Result<Completion, ModelError> {
        Ok(Completion {
            text: "{\"label\":\"none\"}".into(),
            answered_by: self.identity(),
            usage: Usage {
                input_tokens: 120,
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
            provider: "bench".into(),
            model: "instant".into(),
            revision: None,
        }
    }
    fn concurrency(&self) -> usize {
        2
    }
}

fn main() {
    trivial_items();
    in_process(2);
    in_process(64);
    cache_open();
    over_http("answers at once", Duration::ZERO, 20_000, None);
    over_http(
        "answers in 50 ms",
        Duration::from_millis(50),
        12_800,
        Some(1280.0),
    );
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn request(number: usize) -> Request {
    Request {
        messages: vec![
            Message::system(
                "Choose the tool that fits the user's message. Answer with JSON: {\"label\": one of play_music, get_weather, book_restaurant, none}.",
            ),
            Message::user(format!(
                "play the new album number {number}, please, in the kitchen"
            )),
        ],
        decoding: Decoding {
            temperature: Some(0.0),
            max_tokens: Some(64),
            ..Decoding::default()
        },
        response: ResponseFormat::JsonObject,
        repetition: 0,
        correlation_id: format!("bench/{number}"),
    }
}

fn trivial_items() {
    let items: Vec<u64> = (0..2_000_000).collect();
    let began = Instant::now();
    let done = run_bounded(&items, 2, || false, |_, n| n + 1);
    println!(
        "pool, trivial work, 2 threads: {:.0} items/s",
        rate(done.len(), began.elapsed())
    );
}

/// The evaluator's path for one uncached prediction: digest, look up, reserve, ask, keep, count.
fn in_process(concurrency: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let cache = Cache::open(dir.path()).expect("an empty cache");
    let meter = Meter::new(Budget::default(), Arc::new(SystemClock::default()));
    let requests: Vec<Request> = (0..100_000).map(request).collect();
    let round = |requests: &[Request]| {
        let began = Instant::now();
        let done = run_bounded(
            requests,
            concurrency,
            || false,
            |_, request| {
                let key = canon::digest(&(&request.messages, &request.decoding, &request.response))
                    .expect("no large integers");
                let answer = cache
                    .get_or_ask(&key, || {
                        let reservation = meter.reserve(Estimate::default()).expect("no limit");
                        let answer = Instantly.complete(request)?;
                        reservation.answered("bench", &answer);
                        Ok::<_, ModelError>(answer)
                    })
                    .expect("it always answers");
                if answer.cached {
                    meter.cached("bench", &answer);
                }
            },
        );
        rate(done.len(), began.elapsed())
    };
    let missed = round(&requests);
    let hit = round(&requests);
    println!(
        "in process, digest + cache + meter, {concurrency} threads: {missed:.0} predictions/s uncached, {hit:.0}/s cached"
    );
}

fn cache_open() {
    let dir = tempfile::tempdir().expect("a folder");
    let cache = Cache::open(dir.path()).expect("an empty cache");
    let answer = Instantly.complete(&request(0)).expect("it always answers");
    let count = 200_000_u32;
    for number in 0..count {
        cache
            .put(&proofline::id::Digest::of(&number.to_be_bytes()), &answer)
            .expect("room on the disk");
    }
    drop(cache);
    let began = Instant::now();
    let cache = Cache::open(dir.path()).expect("it opens");
    println!(
        "cache, opening {} answers: {:.0} ms",
        cache.len(),
        began.elapsed().as_secs_f64() * 1000.0
    );
}

fn over_http(what: &str, latency: Duration, count: usize, ideal: Option<f64>) {
    let server = ChatServer::start(Script {
        latency,
        record: false,
        ..Script::saying("{\"label\":\"none\"}")
    });
    let configs: ModelConfigs = toml::from_str(&format!(
        "[main]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"bench\"\nconcurrency = 64\n",
        server.base_url()
    ))
    .expect("a good configuration");
    let surroundings = Surroundings::new(
        Arc::new(SystemClock::default()),
        Interrupt::default(),
        |_| None,
    );
    let model = connect(&configs, "main", &surroundings).expect("a good configuration");
    let requests: Vec<Request> = (0..count).map(request).collect();
    // Connections are made before the clock starts, as they are in a night.
    run_bounded(
        &requests[..256],
        64,
        || false,
        |_, r| model.complete(r).is_ok(),
    );
    let began = Instant::now();
    let answers = run_bounded(&requests, 64, || false, |_, r| model.complete(r));
    let rate = rate(count, began.elapsed());
    let failed = answers.iter().flatten().filter(|a| a.is_err()).count();
    let against = ideal.map_or_else(String::new, |ideal| {
        format!(" ({:.1} % of {ideal:.0})", 100.0 * rate / ideal)
    });
    println!(
        "HTTP, server {what}, concurrency 64: {rate:.0} predictions/s{against}, {failed} failed, {} requests on {} connections",
        server.chats(),
        server.connections()
    );
}
