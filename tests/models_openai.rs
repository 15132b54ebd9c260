//! The HTTP model against a real server on loopback: answers, every failure,
//! limits, retries, and that a planted key is never shown.

#[path = "support/chat_server.rs"]
mod chat_server;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chat_server::{Behaviour, ChatServer, Script};
use proofline::host::clock::{Clock, SystemClock};
use proofline::host::signal::Interrupt;
use proofline::models::config::{ConfigError, check};
use proofline::models::error::Phase;
use proofline::models::pool::run_bounded;
use proofline::models::retry::Sleeper;
use proofline::models::{
    Completion, Decoding, Failure, FinishReason, Message, ModelConfigs, ModelError, Request,
    ResponseFormat, Surroundings, connect,
};
use serde_json::json;

const KEY: &str = "sk-planted-5e0c1f";

/// Counts pauses instead of making them.
#[derive(Default)]
struct Pauses(Mutex<Vec<u64>>);

impl Sleeper for Pauses {
    fn sleep(&self, pause: Duration, interrupt: &Interrupt) -> bool {
        let mut pauses = self.0.lock().expect("no panic");
        pauses.push(pause.as_millis() as u64);
        !interrupt.is_set()
    }
}

struct Setting {
    surroundings: Surroundings,
    pauses: Arc<Pauses>,
}

fn setting() -> Setting {
    let pauses = Arc::new(Pauses::default());
    let mut surroundings = Surroundings::new(
        Arc::new(SystemClock::default()),
        Interrupt::default(),
        |name| match name {
            "PLANTED_KEY" => Some(format!("{KEY}\n")),
            // Nobody listens there: loopback must not go through it.
            "ALL_PROXY" | "http_proxy" => Some("http://127.0.0.1:9".into()),
            _ => None,
        },
    );
    surroundings.sleeper = pauses.clone();
    Setting {
        surroundings,
        pauses,
    }
}

fn configs(text: &str) -> ModelConfigs {
    toml::from_str(text).expect("a good configuration")
}

fn config(server: &ChatServer, more: &str) -> ModelConfigs {
    configs(&format!(
        "[main]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"asked-model\"\n{more}",
        server.base_url()
    ))
}

fn request() -> Request {
    Request {
        messages: vec![Message::system("Be brief."), Message::user("Say hello.")],
        decoding: Decoding {
            temperature: Some(0.5),
            top_p: Some(0.9),
            max_tokens: Some(16),
            seed: Some(7),
        },
        response: ResponseFormat::Text,
        repetition: 3,
        correlation_id: "run-1/7".into(),
    }
}

fn ask(server: &ChatServer, more: &str) -> Result<Completion, ModelError> {
    let model = connect(&config(server, more), "main", &setting().surroundings);
    model.expect("a good configuration").complete(&request())
}

#[test]
fn an_answer_and_what_was_sent() {
    let server = ChatServer::start(Script {
        key: Some(KEY.into()),
        ..Script::saying("hello there")
    });
    let more = "api_key_env = \"PLANTED_KEY\"\n\
        price = { input_per_million_usd = \"0.15\", output_per_million_usd = 600000 }\n\
        headers = { x-team = \"blue\" }";
    let answer = ask(&server, more).expect("it answers");
    assert_eq!(answer.text, "hello there");
    assert_eq!(answer.answered_by.model, "test-model-1");
    assert_eq!(answer.answered_by.revision.as_deref(), Some("fp_test"));
    assert_eq!(answer.answered_by.provider, server.address().to_string());
    assert_eq!(
        (answer.usage.input_tokens, answer.usage.output_tokens),
        (4, 2)
    );
    // 4 × 0.15 + 2 × 0.60 = 1.8 micro-dollars, rounded up.
    assert_eq!(answer.cost_micro_usd, 2);
    assert_eq!((answer.attempts, answer.finish), (1, FinishReason::Stop));
    assert_eq!(answer.server_request_id.as_deref(), Some("srv-0"));
    assert!(!answer.cached && answer.fallback.is_none());

    let seen = server.requests().remove(0);
    assert_eq!(seen.target, "/v1/chat/completions");
    assert_eq!(seen.headers["x-correlation-id"], "run-1/7");
    assert_eq!(seen.headers["x-request-id"], "run-1/7");
    assert_eq!(seen.headers["x-team"], "blue");
    assert_eq!(
        seen.body,
        json!({
            "model": "asked-model",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Say hello."},
            ],
            "temperature": 0.5, "top_p": 0.9, "max_tokens": 16, "seed": 7,
        })
    );
}

#[test]
fn response_formats_as_offered() {
    let server = ChatServer::start(Script::saying("{}"));
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let strict = json!({"type": "object", "properties": {"a": {"type": "string"}},
        "required": ["a"], "additionalProperties": false});
    let asked = |schema: &serde_json::Value| ResponseFormat::JsonSchema {
        name: "out".into(),
        schema: schema.clone(),
    };
    let sent = |schema: &serde_json::Value, strict: bool| {
        json!({"type": "json_schema",
        "json_schema": {"name": "out", "schema": schema, "strict": strict}})
    };
    let object = json!({"type": "json_object"});
    let nothing = serde_json::Value::Null;
    let cases = [
        ("json_schema", asked(&schema), sent(&schema, false)),
        ("json_schema", asked(&strict), sent(&strict, true)),
        ("json_object", asked(&schema), object.clone()),
        ("text", asked(&schema), nothing.clone()),
        ("json_schema", ResponseFormat::JsonObject, object.clone()),
        ("json_object", ResponseFormat::JsonObject, object),
        ("text", ResponseFormat::JsonObject, nothing.clone()),
        ("json_schema", ResponseFormat::Text, nothing),
    ];
    for (offered, response, expected) in cases {
        let configs = config(&server, &format!("response_format = \"{offered}\""));
        let model = connect(&configs, "main", &setting().surroundings).expect("good");
        let asked = format!("{offered}, {response:?}");
        let request = Request {
            response,
            ..request()
        };
        model.complete(&request).expect("it answers");
        let seen = server.requests().pop().expect("it was recorded");
        assert_eq!(seen.body["response_format"], expected, "{asked}");
    }
}

#[test]
fn every_failure_has_its_name() {
    let status = |code, message: &str, headers: &str| Behaviour::Status {
        code,
        message: message.into(),
        headers: headers.into(),
    };
    let cases = [
        (
            status(400, "no such parameter", ""),
            "rejected",
            "no such parameter",
        ),
        (
            status(401, "who are you", ""),
            "unauthorised",
            "who are you",
        ),
        (
            status(404, "no such model", ""),
            "rejected",
            "no such model",
        ),
        (status(500, "oops", ""), "server_error", "HTTP 500: oops"),
        (
            Behaviour::RateLimited("1".into()),
            "rate_limited",
            "too many requests",
        ),
        (Behaviour::Truncated, "truncated", "cut off"),
        (
            Behaviour::TruncatedUnsized,
            "truncated",
            "the JSON ends after",
        ),
        (Behaviour::TruncatedChunked, "truncated", "cut off"),
        (Behaviour::Garbage, "malformed", "not HTTP"),
        (Behaviour::NotJson, "malformed", "It works!"),
        (
            Behaviour::Json(json!({"answer": 1})),
            "malformed",
            "no choices",
        ),
        (
            Behaviour::Json(json!({"choices": [{"message": {"content": 7}}]})),
            "malformed",
            "content",
        ),
        (Behaviour::Json(json!([1])), "malformed", "began"),
        (
            Behaviour::Json(json!({"error": {"code": 429, "message": "upstream is busy"}})),
            "rate_limited",
            "upstream is busy",
        ),
        (
            Behaviour::Json(json!({"error": "strange"})),
            "malformed",
            "strange",
        ),
        (Behaviour::Huge(17 << 20), "too_large", "larger than"),
        (Behaviour::Refusal, "refused", "I can't help with that."),
        (Behaviour::NullContent, "empty", "tool_calls"),
        (Behaviour::NoChoices, "malformed", "no choices"),
        (Behaviour::Drop, "truncated", "cut off"),
        (
            Behaviour::Redirect("http://elsewhere.invalid/".into()),
            "rejected",
            "redirects are not followed",
        ),
    ];
    for (behaviour, code, words) in cases {
        let server = ChatServer::start(Script::default().always(behaviour.clone()));
        let error = ask(&server, "retries = 0").expect_err("it fails");
        assert_eq!(error.failure.code(), code, "{behaviour:?}: {error}");
        let text = error.to_string();
        assert!(text.contains(words), "{behaviour:?}: {text}");
        assert!(text.contains("/v1/chat/completions"), "{text}");
        assert!(text.contains("correlation id run-1/7"), "{text}");
        assert!(text.contains("1 attempt,"), "{text}");
    }
}

#[test]
fn good_answers_in_odd_shapes() {
    let server = ChatServer::start(Script::saying("héllo wörld").first([
        Behaviour::Chunked,
        Behaviour::LengthLimit,
        Behaviour::Json(json!({"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]})),
        Behaviour::Say(String::new()),
    ]));
    let ask = || ask(&server, "retries = 0").expect("it answers");
    assert_eq!(ask().text, "héllo wörld");
    assert_eq!(ask().finish, FinishReason::Length);
    let parts = ask();
    assert_eq!(parts.text, "ab");
    assert_eq!(parts.answered_by.model, "asked-model", "unsaid: as asked");
    assert_eq!(ask().text, "");
}

#[test]
fn limits_are_kept() {
    let second = Duration::from_secs(30);
    let cases = [
        (
            "first_byte_timeout_ms = 80",
            Behaviour::SlowFirstByte(second),
            Phase::FirstByte,
            80,
        ),
        (
            "total_timeout_ms = 90",
            Behaviour::SlowFirstByte(second),
            Phase::Answer,
            90,
        ),
        (
            "total_timeout_ms = 100",
            Behaviour::SlowBody(Duration::from_millis(20)),
            Phase::Answer,
            100,
        ),
    ];
    for (setting, behaviour, phase, limit_ms) in cases {
        let server = ChatServer::start(Script::default().always(behaviour));
        let began = Instant::now();
        let error = ask(&server, &format!("retries = 0\n{setting}")).expect_err("too slow");
        assert_eq!(
            error.failure,
            Failure::Timeout { phase, limit_ms },
            "{setting}"
        );
        assert!(error.elapsed_ms >= limit_ms, "{error}");
        assert!(began.elapsed() < Duration::from_secs(10), "{setting}");
    }
}

#[test]
fn a_connection_that_is_never_made() {
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let configs = configs(&format!(
        "[main]\nkind = \"openai\"\nbase_url = \"http://{address}/v1?secret=abc\"\nmodel = \"m\"\nretries = 2"
    ));
    let setting = setting();
    let model = connect(&configs, "main", &setting.surroundings).expect("good");
    let error = model.complete(&request()).expect_err("nobody listens");
    assert_eq!(error.failure.code(), "connect");
    assert_eq!(
        (error.attempts, setting.pauses.0.lock().expect("ok").len()),
        (3, 2)
    );
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn asking_again() {
    let busy = || Behaviour::Status {
        code: 503,
        message: "busy".into(),
        headers: String::new(),
    };
    let cases: Vec<(Vec<Behaviour>, u32, Result<u32, &str>)> = vec![
        (vec![busy(), busy()], 4, Ok(3)),
        (vec![Behaviour::Truncated, Behaviour::Drop], 4, Ok(3)),
        (vec![busy(), busy(), busy()], 2, Err("server_error")),
        (vec![Behaviour::RateLimited("2".into())], 4, Ok(2)),
        (
            vec![Behaviour::RateLimited("86400".into())],
            4,
            Err("rate_limited"),
        ),
        (vec![Behaviour::NotJson], 4, Err("malformed")),
        (vec![Behaviour::Refusal], 4, Err("refused")),
    ];
    for (behaviours, retries, expected) in cases {
        let story = format!("{behaviours:?}");
        let server = ChatServer::start(Script::saying("ok").first(behaviours));
        let setting = setting();
        let configs = config(&server, &format!("retries = {retries}"));
        let model = connect(&configs, "main", &setting.surroundings).expect("good");
        let outcome = model.complete(&request());
        let outcome = outcome.as_ref().map(|answer| answer.attempts);
        let outcome = outcome.map_err(|error| error.failure.code());
        assert_eq!(outcome, expected, "{story}");
        if story.contains("RateLimited(\"2\")") {
            let pauses = setting.pauses.0.lock().expect("no panic").clone();
            assert!(pauses[0] >= 2000 && pauses[0] <= 2500, "{pauses:?}");
        }
    }
}

#[test]
fn retry_after_as_a_date() {
    let now = SystemClock::default().now();
    let date = now + Duration::from_secs(40);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&date)
        .expect("a date of this era");
    let server = ChatServer::start(Script::saying("ok").first([Behaviour::RateLimited(date)]));
    let setting = setting();
    let model = connect(&config(&server, ""), "main", &setting.surroundings).expect("good");
    model.complete(&request()).expect("the second is answered");
    let pause = setting.pauses.0.lock().expect("no panic")[0];
    assert!((35_000..=40_500).contains(&pause), "{pause}");
}

#[test]
fn the_key_is_never_shown() {
    // It is quoted by the server, and sent nowhere but there.
    let quoting = |code| Behaviour::Status {
        code,
        message: format!(
            "Incorrect API key provided: {KEY}. {} {KEY}",
            "x".repeat(270)
        ),
        headers: format!("x-request-id: {KEY}"),
    };
    for behaviour in [
        quoting(400),
        quoting(401),
        Behaviour::Json(json!({"error": {"message": KEY}})),
        Behaviour::Json(json!({"choices": [], "echo": KEY})),
        Behaviour::Redirect(format!("http://elsewhere.invalid/{KEY}")),
        Behaviour::Drop,
    ] {
        let server = ChatServer::start(Script::default().always(behaviour));
        let configs = config(
            &server,
            "retries = 0\napi_key_env = \"PLANTED_KEY\"\nheaders = { x-other = { env = \"PLANTED_KEY\" } }",
        );
        let surroundings = setting().surroundings;
        let model = connect(&configs, "main", &surroundings).expect("good");
        let error = model.complete(&request()).expect_err("it fails");
        let sent = &server.requests()[0].headers;
        assert_eq!(sent["authorization"], format!("Bearer {KEY}"));
        for text in [
            error.to_string(),
            format!("{error:?}"),
            format!("{model:?}"),
            format!("{surroundings:?}"),
            format!("{configs:?}"),
        ] {
            // Not even its beginning.
            assert!(!text.contains(&KEY[..10]), "{text}");
        }
    }
}

#[test]
fn settings_that_cannot_work() {
    let cases = [
        (
            "base_url = \"ftp://x/v1\"\nmodel = \"m\"",
            "base_url",
            "http",
        ),
        ("base_url = \"nonsense\"\nmodel = \"m\"", "base_url", "http"),
        (
            "base_url = \"https://u:hunter2@h/v1\"\nmodel = \"m\"",
            "base_url",
            "api_key_env",
        ),
        (
            "base_url = \"https://h/v1/chat/completions\"\nmodel = \"m\"",
            "base_url",
            "leave out",
        ),
        (
            "base_url = \"https://h/v1\"\nmodel = \" \"",
            "model",
            "name the model",
        ),
        (
            "base_url = \"https://h/v1\"\nmodel = \"m\"\nconcurrency = 0",
            "concurrency",
            "at least 1",
        ),
        (
            "base_url = \"https://h/v1\"\nmodel = \"m\"\nfallback = \"b\"",
            "fallback",
            "models.b",
        ),
        (
            "base_url = \"https://h/v1\"\nmodel = \"m\"\nfallback = \"main\"",
            "fallback",
            "circle",
        ),
        (
            "base_url = \"https://h/v1\"\nmodel = \"m\"\nheaders = { Authorization = \"Bearer x\" }",
            "headers",
            "committed",
        ),
        (
            "base_url = \"https://h/v1\"\nmodel = \"m\"\napi_key_env = \"MISSING\"",
            "api_key_env",
            "`MISSING` is not set",
        ),
        (
            "base_url = \"http://h.example/v1\"\nmodel = \"m\"\napi_key_env = \"PLANTED_KEY\"",
            "base_url",
            "allow_http",
        ),
    ];
    for (text, field, words) in cases {
        let configs = configs(&format!("[main]\nkind = \"openai\"\n{text}"));
        let error = connect(&configs, "main", &setting().surroundings).expect_err(text);
        assert_eq!(error.field, field, "{error}");
        assert!(error.reason.contains(words), "{error}");
        let shown = error.to_string();
        assert!(
            !shown.contains("hunter2") && !shown.contains(KEY),
            "{shown}"
        );
    }
    let allowed = configs(
        "[main]\nkind = \"openai\"\nbase_url = \"http://h.example/v1\"\nmodel = \"m\"\napi_key_env = \"PLANTED_KEY\"\nallow_http = true",
    );
    assert_eq!(check(&allowed), [] as [ConfigError; 0]);
    assert!(connect(&allowed, "main", &setting().surroundings).is_ok());
    let error = connect(&allowed, "other", &setting().surroundings).expect_err("unknown");
    assert!(error.reason.contains("`main`"), "{error}");
}

#[test]
fn settings_are_strict_about_names_and_money() {
    let read = |text: &str| toml::from_str::<ModelConfigs>(text);
    let base = "[m]\nkind = \"openai\"\nbase_url = \"https://h/v1\"\nmodel = \"m\"\n";
    for (more, words) in [
        ("time_out = 3", "time_out"),
        ("price = { input_per_million_usd = 0.15 }", "decimal string"),
        ("price = { input_per_million_usd = \"0.1234567\" }", "six"),
        ("price = { input_per_million_usd = \"-1\" }", "dollars"),
        ("response_format = \"yaml\"", "yaml"),
        ("breaker = { failures = 3 }", "cool_down_ms"),
    ] {
        let error = read(&format!("{base}{more}")).expect_err(more).to_string();
        assert!(error.contains(words), "{more}: {error}");
    }
    assert!(read("[m]\nkind = \"lexical\"\nmodel = \"x\"").is_err());
    assert!(read("[m]\nkind = \"lexical\"").is_ok());
    let good = read(&format!(
        "{base}price = {{ input_per_million_usd = \"12.5\" }}\nbreaker = {{ failures = 3, cool_down_ms = 10 }}"
    ))
    .expect("good");
    let text = toml::to_string(&good).expect("it can be written");
    assert_eq!(read(&text).expect("and read back"), good);
}

#[test]
fn a_fallback_answers_on_the_record_and_only_when_named() {
    let out = ChatServer::start(Script::default().always(Behaviour::Status {
        code: 500,
        message: "out".into(),
        headers: String::new(),
    }));
    let other = ChatServer::start(Script {
        model: Box::new(|_| "other-model".into()),
        ..Script::saying("from the other")
    });
    let text = format!(
        "[main]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"a\"\nretries = 1\nfallback = \"spare\"\nbreaker = {{ failures = 2, cool_down_ms = 3600000 }}\n\
         [spare]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"b\"\nretries = 0\n",
        out.base_url(),
        other.base_url()
    );
    let setting = setting();
    let model = connect(&configs(&text), "main", &setting.surroundings).expect("good");
    for (asked_main, why) in [
        (2, "HTTP 500"),
        (4, "HTTP 500"),
        (4, "circuit is open"),
        (4, "circuit is open"),
    ] {
        let answer = model.complete(&request()).expect("the spare answers");
        assert_eq!(answer.text, "from the other");
        assert_eq!(answer.answered_by.model, "other-model");
        let reason = answer.fallback.expect("it is recorded");
        assert!(
            reason.contains(why) && reason.contains("`spare` answered for `main`"),
            "{reason}"
        );
        assert_eq!(out.chats(), asked_main);
    }
    // Without one, the open circuit is the error.
    let alone = configs(&text.replace("fallback = \"spare\"\n", ""));
    let model = connect(&alone, "main", &setting.surroundings).expect("good");
    let codes: Vec<_> = (0..3)
        .map(|_| {
            model
                .complete(&request())
                .expect_err("it is out")
                .failure
                .code()
        })
        .collect();
    assert_eq!(codes, ["server_error", "server_error", "circuit_open"]);
    // When both are out, the error tells both stories.
    drop(other);
    let model = connect(&configs(&text), "main", &setting.surroundings).expect("good");
    let error = model
        .complete(&request())
        .expect_err("both are out")
        .to_string();
    assert!(
        error.contains("cannot connect") && error.contains("it was asked because"),
        "{error}"
    );
    assert!(error.contains("HTTP 500: out"), "{error}");
}

#[test]
fn a_refusal_is_not_an_outage() {
    let refusing = ChatServer::start(Script::default().always(Behaviour::Refusal));
    let text = format!(
        "[main]\nkind = \"openai\"\nbase_url = \"{0}\"\nmodel = \"a\"\nfallback = \"spare\"\nbreaker = {{ failures = 1, cool_down_ms = 3600000 }}\n\
         [spare]\nkind = \"openai\"\nbase_url = \"{0}\"\nmodel = \"b\"\n",
        refusing.base_url()
    );
    let model = connect(&configs(&text), "main", &setting().surroundings).expect("good");
    for _ in 0..3 {
        let error = model.complete(&request()).expect_err("it refuses");
        assert_eq!(error.failure.code(), "refused");
    }
}

#[test]
fn another_model_half_way_is_visible() {
    let server = ChatServer::start(Script {
        model: Box::new(|n| if n < 2 { "m-1".into() } else { "m-2".into() }),
        ..Script::saying("x")
    });
    let model = connect(&config(&server, ""), "main", &setting().surroundings).expect("good");
    let names: Vec<_> = (0..3)
        .map(|_| {
            model
                .complete(&request())
                .expect("it answers")
                .answered_by
                .model
        })
        .collect();
    assert_eq!(names, ["m-1", "m-1", "m-2"]);
}

#[test]
fn connections_are_kept_and_bounded() {
    let server = ChatServer::start(Script {
        latency: Duration::from_millis(3),
        ..Script::saying("x")
    });
    let configs = config(&server, "concurrency = 5");
    let model = connect(&configs, "main", &setting().surroundings).expect("good");
    // More threads than the model allows in flight.
    let answers = run_bounded(
        &[(); 100],
        16,
        || false,
        |_, ()| model.complete(&request()).is_ok(),
    );
    assert!(answers.iter().all(|ok| *ok == Some(true)));
    assert!(server.connections() <= 5, "{}", server.connections());
    assert!(server.most_in_flight() <= 5);
    assert_eq!(server.chats(), 100);
}

#[test]
fn an_interrupt_ends_calls_in_flight() {
    let server = ChatServer::start(
        Script::default().always(Behaviour::SlowFirstByte(Duration::from_secs(30))),
    );
    let surroundings = setting().surroundings;
    let model = connect(&config(&server, ""), "main", &surroundings).expect("good");
    let began = Instant::now();
    let interrupt = surroundings.interrupt.clone();
    let error = std::thread::scope(|scope| {
        let asking = scope.spawn(|| model.complete(&request()));
        while server.chats() == 0 {
            std::thread::yield_now();
        }
        interrupt.set();
        asking
            .join()
            .expect("no panic")
            .expect_err("it was interrupted")
    });
    assert_eq!(error.failure, Failure::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_is_listed() {
    let server = ChatServer::start(Script {
        key: Some(KEY.into()),
        ..Script::default()
    });
    let config = |more: &str| match config(&server, more).remove("main") {
        Some(proofline::models::ModelConfig::Openai(config)) => config,
        other => panic!("{other:?}"),
    };
    let new = |more: &str| {
        let surroundings = setting().surroundings;
        proofline::models::openai::OpenAi::new(&config(more), &surroundings).expect("good")
    };
    let listed = new("api_key_env = \"PLANTED_KEY\"").models();
    assert_eq!(listed.expect("it lists"), ["test-model-1"]);
    let error = new("").models().expect_err("no key");
    assert_eq!(error.failure.code(), "unauthorised");
}

#[test]
fn examples_in_the_prompt_help_the_test_model() {
    let server = ChatServer::start(Script::default());
    let model = connect(&config(&server, ""), "main", &setting().surroundings).expect("good");
    let schema = json!({"type": "object", "properties": {"tool": {"enum": ["play_music", "get_weather"]}},
        "required": ["tool"], "additionalProperties": false});
    let ask = |messages: Vec<Message>| {
        let request = Request {
            messages,
            response: ResponseFormat::JsonSchema {
                name: "out".into(),
                schema: schema.clone(),
            },
            ..request()
        };
        model.complete(&request).expect("it answers").text
    };
    let question = || Message::user("will it rain tomorrow in Bern");
    assert_eq!(
        ask(vec![Message::user("what will the weather be")]),
        "{\"tool\":\"get_weather\"}"
    );
    let zero_shot = ask(vec![question()]);
    assert_eq!(
        zero_shot, "{\"tool\":\"play_music\"}",
        "wrong, without examples"
    );
    let few_shot = ask(vec![
        Message::user("will it rain today"),
        Message::assistant("{\"tool\":\"get_weather\"}"),
        question(),
    ]);
    assert_eq!(few_shot, "{\"tool\":\"get_weather\"}");
    let in_text = ask(vec![Message::user(
        "Input: will it rain today\nOutput: {\"tool\":\"get_weather\"}\nInput: will it rain tomorrow in Bern\nOutput:",
    )]);
    assert_eq!(in_text, "{\"tool\":\"get_weather\"}");
}
