//! Whole nights with the real binary and models that are asked over real HTTP or
//! a pipe: what a search finds there, and what every way to fail comes to.
//!
//! The model behind the test server has a known skill per prompt: which rows it
//! answers correctly follows from the row and the prompt alone, so that each
//! night has one truthful end.

#[path = "support/chat_server.rs"]
mod chat_server;
#[path = "support/scratch.rs"]
mod scratch;

use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chat_server::{Behaviour, ChatServer, Script};
use scratch::Scratch;
use serde_json::{Value, json};

const LABELS: [&str; 4] = ["booking", "film", "music", "weather"];
const KEY: &str = "sk-planted-9f3b1c77d2e84a55";
const KEY_VARIABLE: &str = "NIGHT_HTTP_KEY";

const POLICY: &str = "
canary: {rehearsal_is_enough: true, harm_margin_max: 0.25}
promotion: {mode: direct, skipped_gate: pass}
";

/// Four rows in ten are answered correctly with a plain prompt, nine in ten with the
/// careful instruction, and every few-shot is worth fifteen in a hundred.
fn skill(prompt: &str, few_shots: usize) -> u64 {
    let instruction = if prompt.contains("Weigh every word") {
        90
    } else if prompt.contains("Guess") {
        15
    } else {
        40
    };
    (instruction + 15 * few_shots as u64).min(97)
}

/// The model: right on a row when the row is easy enough for its skill.
fn answer(request: &Value) -> String {
    let messages = request["messages"].as_array().expect("messages");
    let text = |role: &str| {
        let of_role = messages.iter().filter(|message| message["role"] == role);
        of_role
            .map(|message| message["content"].as_str().expect("text"))
            .collect::<Vec<_>>()
    };
    let question = *text("user").last().expect("a question");
    let skill = skill(&text("system").concat(), text("assistant").len());
    let label = LABELS
        .iter()
        .position(|label| question.contains(label))
        .expect("a label's word in the row");
    let right = difficulty(question) < skill;
    json!({"label": LABELS[if right { label } else { (label + 1) % 4 }]}).to_string()
}

/// 0 to 99, spread evenly (FNV-1a).
fn difficulty(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 24) % 100
}

fn rows() -> String {
    let splits = [
        ("train", 12),
        ("dev", 40),
        ("holdout", 60),
        ("exercise", 40),
    ];
    let mut lines = String::new();
    let mut id = 0;
    for (split, count) in splits {
        for _ in 0..count {
            let label = LABELS[id % 4];
            let row = json!({
                "id": format!("r{id:03}"),
                "input": {"text": format!("request {id} about {label}")},
                "expected": {"label": label},
                "split": split,
            });
            lines.push_str(&format!("{row}\n"));
            id += 1;
        }
    }
    lines
}

/// A signature that asks the model `main`.
fn signature(job: &str) -> String {
    format!(
        r#"
schema: proofline/signature/v1
id: "@test/http/Ask.v1"
input: {{type: object, required: [text], properties: {{text: {{type: string}}}}}}
output:
  type: object
  additionalProperties: false
  required: [label]
  properties: {{label: {{enum: [booking, film, music, weather]}}}}
defaults:
  strategy: direct.v1
  model: main
  instruction: {{text: Name the topic.}}
metric: {{kind: field_match, field: /label}}
{job}
canary: {{min_pairs: 20, harm_margin: 0.25}}
"#
    )
}

const GRID: &str = "
job:
  optimizer: instruction_grid.v1
  seed: 5
  space:
    instruction_variants:
      - {id: careful, text: Weigh every word and name the topic.}
      - {id: hasty, text: Guess the topic.}
";

/// Settings of a model that fails fast.
const QUICK: &str = "retries = 0";

/// A repository whose model `main` is the given server.
fn ready(server: &ChatServer, job: &str, settings: &str) -> Scratch {
    ready_at(&server.base_url(), job, settings)
}

fn ready_at(base_url: &str, job: &str, settings: &str) -> Scratch {
    let model = format!(
        "kind = \"openai\"\nbase_url = \"{base_url}\"\nmodel = \"test-model\"\n{settings}\n"
    );
    ready_with(&model, job)
}

fn ready_with(model: &str, job: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("signatures/Ask.v1.yaml", signature(job));
    scratch.write("policy.yaml", POLICY);
    scratch.write("rows.jsonl", rows());
    scratch.ok(&["init", "--policy", "policy.yaml"]);
    let project = scratch.read("proofline.toml");
    scratch.write(
        "proofline.toml",
        format!("{project}\n[models.main]\n{model}"),
    );
    scratch.ok(&["dataset", "import", "rows.jsonl", "--signature", "Ask.v1"]);
    scratch
}

/// One night, whatever it comes to.
fn night(scratch: &Scratch) -> (i32, Value, String) {
    night_of(scratch, &["overnight", "--run", "night-1", "--json"])
}

fn night_of(scratch: &Scratch, args: &[&str]) -> (i32, Value, String) {
    told(scratch.run(args))
}

fn told(output: Output) -> (i32, Value, String) {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let document =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}\n{stdout}\n{stderr}"));
    (
        output.status.code().expect("an exit code"),
        document,
        stderr,
    )
}

fn conclusion(night: &Value) -> &str {
    night["signatures"][0]["conclusion"]
        .as_str()
        .unwrap_or_default()
}

/// Nothing came into force.
fn nothing_is_in_force(scratch: &Scratch) {
    let control = scratch.git(&["ls-tree", "-r", "--name-only", "proofline/control"]);
    assert!(!control.contains("active/"), "{control}");
}

fn is_promoted(scratch: &Scratch, night: &(i32, Value, String)) {
    let (code, document, stderr) = night;
    assert_eq!(conclusion(document), "promoted", "{document:#}\n{stderr}");
    assert_eq!(*code, 0);
    let resolved = scratch.json(&["resolve", "Ask.v1"]);
    assert_eq!(resolved["artifact"], document["signatures"][0]["candidate"]);
}

/// Keys of the compile and holdout reports.
fn reports(scratch: &Scratch) -> String {
    scratch.git(&["ls-tree", "-r", "proofline/artifacts", "reports/"])
}

#[test]
fn an_instruction_is_found_proven_and_promoted() {
    let server = ChatServer::start(Script {
        answer: Box::new(answer),
        ..Script::default()
    });
    let scratch = ready(&server, GRID, "concurrency = 4");
    let first = night(&scratch);
    is_promoted(&scratch, &first);
    assert_eq!(
        first.1["meter"]["calls"],
        server.chats(),
        "every request is metered"
    );
    let requests = server.requests();
    let request = &requests.last().expect("a request").body;
    assert_eq!(
        request["response_format"]["type"], "json_schema",
        "{request:#}"
    );
    let resolved = scratch.json(&["resolve", "Ask.v1"]);
    let prompt = resolved["prompt"][0]["content"].as_str().expect("a prompt");
    assert!(prompt.contains("Weigh every word"), "{prompt}");
    let signers = scratch.root().join(".git/proofline/allowed_signers");
    let setting = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    scratch.git(&["-c", &setting, "verify-commit", "proofline/control"]);

    // The second night starts from the winner, whose answers are known.
    let before = server.chats();
    let second = night_of(&scratch, &["overnight", "--run", "night-2", "--json"]);
    assert_eq!(conclusion(&second.1), "no_change", "{:#}", second.1);
    let paid = server.chats() - before;
    assert!(
        paid < 40,
        "the arms that were dropped are asked again at most: {paid}"
    );
    scratch.fsck();
}

#[test]
fn few_shots_are_found_alone_and_after_an_instruction() {
    let server = ChatServer::start(Script {
        answer: Box::new(answer),
        ..Script::default()
    });
    let few_shot = "
job:
  optimizer: fewshot_greedy_forward.v1
  seed: 5
  space:
    few_shot: {candidate_count: 3, k_max: 3}
";
    let joint = "
job:
  optimizer: joint_instruction_grid_then_fewshot_greedy_forward.v1
  seed: 5
  space:
    instruction_variants:
      - {id: plain, text: Say what it is about.}
      - {id: careful, text: Weigh every word and name the topic.}
    few_shot: {candidate_count: 2, k_max: 1}
";
    for (job, shots, instruction) in [
        (few_shot, 3, "Name the topic."),
        (joint, 1, "Weigh every word"),
    ] {
        let scratch = ready(&server, job, "concurrency = 8");
        let done = night(&scratch);
        is_promoted(&scratch, &done);
        let resolved = scratch.json(&["resolve", "Ask.v1"]);
        let parameters = &resolved["parameters"];
        let ids = parameters["few_shot"]["example_ids"]
            .as_array()
            .expect("ids");
        assert!(ids.len() <= shots && !ids.is_empty(), "{parameters:#}");
        let text = parameters["instruction"]["text"].as_str().expect("text");
        assert!(text.contains(instruction), "{text}");
        scratch.fsck();
    }
}

/// The same model as a program: it speaks JSON lines, in sh alone.
const PROGRAM: &str = r#"
while IFS= read -r line; do
  id=${line#*\"id\":\"}; id=${id%%\"*}
  question=${line##*\"role\":\"user\"}
  case "$line" in *'Weigh every word'*) easy=9 ;; *Guess*) easy=1 ;; *) easy=4 ;; esac
  number=${line##*request }; number=${number%% about*}
  topic=${line##* about }; topic=${topic%%[!a-z]*}
  if [ $((number * 7 % 10)) -ge "$easy" ]; then
    case "$topic" in film) topic=music ;; *) topic=film ;; esac
  fi
  printf '{"id":"%s","text":"{\\"label\\":\\"%s\\"}","model":"sh-1"}\n' "$id" "$topic"
done
"#;

#[test]
fn a_program_is_a_model_like_any_other() {
    let scratch = ready_with(
        "kind = \"exec\"\ncommand = [\"sh\", \"model.sh\"]\nconcurrency = 2\n",
        GRID,
    );
    scratch.write("model.sh", PROGRAM);
    let done = night(&scratch);
    is_promoted(&scratch, &done);
    scratch.fsck();

    // A program that dies is an outage, not a bad score.
    let scratch = ready_with(
        "kind = \"exec\"\ncommand = [\"sh\", \"model.sh\"]\nconcurrency = 2\nretries = 0\n",
        GRID,
    );
    scratch.write("model.sh", "read -r line; echo out of memory >&2; exit 3");
    let (code, document, _) = night(&scratch);
    assert_eq!((code, conclusion(&document)), (5, "failed"), "{document:#}");
    let reason = document["reason"].as_str().expect("a reason");
    assert!(reason.contains("out of memory"), "{reason}");
    nothing_is_in_force(&scratch);
    scratch.fsck();
}

/// What every provider does now and then changes nothing but the time it takes.
#[test]
fn passing_faults_leave_the_result_as_it_was() {
    let fault = Arc::new(Mutex::new(Behaviour::Answer));
    let current = Arc::clone(&fault);
    let server = ChatServer::start(Script {
        answer: Box::new(answer),
        behaviour: Box::new(move |n| {
            if n % 25 == 7 {
                current.lock().expect("no panic").clone()
            } else {
                Behaviour::Answer
            }
        }),
        ..Script::default()
    });
    let settings = "concurrency = 16\nretries = 4\nfirst_byte_timeout_ms = 400";
    let clean = ready(&server, GRID, settings);
    let template = clean.copy();
    is_promoted(&clean, &night(&clean));
    let wanted = reports(&clean);
    let faults = [
        Behaviour::Status {
            code: 500,
            message: "internal".into(),
            headers: String::new(),
        },
        Behaviour::RateLimited("1".into()),
        Behaviour::SlowFirstByte(Duration::from_millis(900)),
        Behaviour::Truncated,
        Behaviour::Drop,
    ];
    for behaviour in faults {
        *fault.lock().expect("no panic") = behaviour.clone();
        let scratch = template.copy();
        let before = server.chats();
        let done = night(&scratch);
        is_promoted(&scratch, &done);
        assert_eq!(reports(&scratch), wanted, "{behaviour:?}");
        assert!(
            server.chats() - before > done.1["meter"]["answered"]["paid"].as_u64().unwrap_or(0)
        );
    }
}

/// What the model itself gets wrong is its score, and the night ends truthfully.
#[test]
fn wrong_answers_are_scored_and_change_nothing() {
    let wrong = [
        Behaviour::Say("I would say weather.".into()),
        Behaviour::Say(r#"{"label": "politics"}"#.into()),
        Behaviour::Refusal,
        Behaviour::NullContent,
        Behaviour::LengthLimit,
    ];
    for behaviour in wrong {
        let server = ChatServer::start(
            Script {
                answer: Box::new(answer),
                ..Script::default()
            }
            .always(behaviour.clone()),
        );
        let scratch = ready(&server, GRID, "concurrency = 8");
        let (code, document, stderr) = night(&scratch);
        assert_eq!(
            (code, conclusion(&document)),
            (0, "no_change"),
            "{behaviour:?} {document:#} {stderr}"
        );
        assert_eq!(document["signatures"][0]["compile"]["base_mean"], 0.0);
        nothing_is_in_force(&scratch);
    }
}

/// What is no answer at all ends the night as a failure outside, that says where and when.
#[test]
fn outages_fail_the_night_and_are_no_scores() {
    let outages = [
        (Behaviour::Garbage, "not HTTP"),
        (Behaviour::NotJson, "not an answer of the protocol"),
        (Behaviour::NoChoices, "choices"),
        (Behaviour::Truncated, "cut off"),
        (
            Behaviour::SlowFirstByte(Duration::from_millis(900)),
            "first byte within 300 ms",
        ),
        (
            Behaviour::Status {
                code: 503,
                message: "maintenance".into(),
                headers: String::new(),
            },
            "HTTP 503: maintenance",
        ),
        (Behaviour::RateLimited("3600".into()), "HTTP 429"),
    ];
    for (behaviour, words) in outages {
        // Some answers arrive first.
        let outage = behaviour.clone();
        let server = ChatServer::start(Script {
            answer: Box::new(answer),
            behaviour: Box::new(move |n| {
                if n < 10 {
                    Behaviour::Answer
                } else {
                    outage.clone()
                }
            }),
            ..Script::default()
        });
        let settings = format!("concurrency = 2\nfirst_byte_timeout_ms = 300\n{QUICK}");
        let scratch = ready(&server, GRID, &settings);
        let (code, document, stderr) = night(&scratch);
        assert_eq!(
            (code, conclusion(&document)),
            (5, "failed"),
            "{behaviour:?} {document:#}"
        );
        let reason = document["reason"].as_str().expect("a reason");
        assert!(reason.contains(words), "{words}: {reason}");
        assert!(
            reason.contains("/v1/chat/completions")
                && reason.contains("night-1-")
                && reason.contains(" ms"),
            "where, which and after how long: {reason}"
        );
        assert!(stderr.contains("the rest is asked"), "{stderr}");
        assert!(
            server.chats() < 10 + 8,
            "an outage is noticed at once, not once per row: {} requests",
            server.chats()
        );
        let run = scratch.json(&["runs", "show", "night-1"]);
        assert_eq!(run["run"]["status"], "failed");
        nothing_is_in_force(&scratch);
        scratch.fsck();
    }
}

#[test]
fn a_model_that_changes_underway_cannot_be_promoted() {
    let server = ChatServer::start(Script {
        answer: Box::new(answer),
        model: Box::new(|n| {
            if n < 60 {
                "model-0513".into()
            } else {
                "model-0806".into()
            }
        }),
        ..Script::default()
    });
    let scratch = ready(&server, GRID, "concurrency = 4");
    let (code, document, _) = night(&scratch);
    assert_eq!(
        (code, conclusion(&document)),
        (1, "refused"),
        "{document:#}"
    );
    assert!(
        document["signatures"][0]["reason"]
            .as_str()
            .expect("a reason")
            .contains("more than one model")
    );
    nothing_is_in_force(&scratch);
}

/// The server is gone in the middle of each step in turn; the resumed night pays for
/// what is missing and ends as if nothing had happened.
#[test]
fn a_server_that_dies_is_waited_for_and_nothing_is_paid_twice() {
    let alive_until = Arc::new(AtomicU64::new(u64::MAX));
    let limit = Arc::clone(&alive_until);
    let good = Arc::new(AtomicU64::new(0));
    let answered = Arc::clone(&good);
    let server = ChatServer::start(Script {
        answer: Box::new(answer),
        behaviour: Box::new(move |n| {
            if n < limit.load(Ordering::SeqCst) {
                answered.fetch_add(1, Ordering::SeqCst);
                Behaviour::Answer
            } else {
                Behaviour::Drop
            }
        }),
        ..Script::default()
    });
    let undisturbed = ready(&server, GRID, &format!("concurrency = 4\n{QUICK}"));
    let template = undisturbed.copy();
    is_promoted(&undisturbed, &night(&undisturbed));
    let whole = good.swap(0, Ordering::SeqCst);
    let wanted = reports(&undisturbed);
    // In compile, in the holdout gate, in the canary, and before the very last call.
    for moment in [30, whole / 3 + 20, whole - 60, whole - 1] {
        let scratch = template.copy();
        alive_until.store(server.chats() + moment, Ordering::SeqCst);
        let (code, document, stderr) = night(&scratch);
        alive_until.store(u64::MAX, Ordering::SeqCst);
        if moment == whole - 1 {
            // The promoted artifact does not answer: it is taken back.
            assert_eq!(
                (code, conclusion(&document)),
                (1, "rolled_back"),
                "{document:#}"
            );
            continue;
        }
        assert_eq!(
            (code, conclusion(&document)),
            (5, "failed"),
            "after {moment} of {whole}: {document:#}\n{stderr}"
        );
        let resumed = night_of(&scratch, &["overnight", "--resume", "night-1", "--json"]);
        is_promoted(&scratch, &resumed);
        assert_eq!(
            good.swap(0, Ordering::SeqCst),
            whole,
            "died after {moment}: each answer is paid once"
        );
        assert_eq!(reports(&scratch), wanted);
        scratch.fsck();
    }
}

#[test]
fn a_killed_night_pays_at_most_the_calls_in_flight_again() {
    let server = ChatServer::start(Script {
        answer: Box::new(answer),
        latency: Duration::from_millis(10),
        ..Script::default()
    });
    const CONCURRENCY: u64 = 4;
    let undisturbed = ready(&server, GRID, &format!("concurrency = {CONCURRENCY}"));
    let template = undisturbed.copy();
    is_promoted(&undisturbed, &night(&undisturbed));
    let whole = server.chats();
    for moment in [25, 70, whole / 2, whole - 40] {
        let scratch = template.copy();
        let before = server.chats();
        let mut child = scratch
            .proofline(&["overnight", "--run", "night-1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let began = Instant::now();
        while server.chats() - before < moment && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        let resumed = night_of(&scratch, &["overnight", "--resume", "night-1", "--json"]);
        is_promoted(&scratch, &resumed);
        let paid = server.chats() - before;
        assert!(
            (whole..=whole + CONCURRENCY).contains(&paid),
            "killed after {moment}: {paid} requests for {whole} answers"
        );
        assert_eq!(reports(&scratch), reports(&undisturbed));
        scratch.fsck();
    }
}

#[test]
fn the_report_does_not_depend_on_concurrency() {
    let server = ChatServer::start(Script {
        answer: Box::new(answer),
        ..Script::default()
    });
    let one = ready(&server, GRID, "concurrency = 1");
    let many = ready(&server, GRID, "concurrency = 16");
    is_promoted(&one, &night(&one));
    is_promoted(&many, &night(&many));
    assert!(server.most_in_flight() > 1);
    let compile = |scratch: &Scratch| {
        scratch.git(&["ls-tree", "-r", "proofline/artifacts", "reports/compile"])
    };
    assert_eq!(compile(&one), compile(&many));
    assert!(compile(&one).contains("report.yaml"));
}

/// The key is where it must be, in the request, and nowhere else.
#[test]
fn a_key_is_in_no_object_event_or_message() {
    let server = ChatServer::start(Script {
        answer: Box::new(answer),
        key: Some(KEY.to_owned()),
        ..Script::default()
    });
    let settings = format!("api_key_env = \"{KEY_VARIABLE}\"\nconcurrency = 4\n{QUICK}");
    let scratch = ready(&server, GRID, &settings);

    // Missing: preflight names the variable, and the server hears nothing.
    let (code, document, stderr) = night(&scratch);
    assert_eq!(code, 4, "{document:#}");
    assert!(
        stderr.contains(KEY_VARIABLE) && stderr.contains("main"),
        "{stderr}"
    );
    assert_eq!(server.requests().len(), 0);

    // Wrong: the server quotes it in its answer.
    let wrong = format!("{KEY}-wrong");
    let run = |key: &str, run: &str| {
        let mut command = scratch.proofline(&["overnight", "--run", run, "--json"]);
        let output = command
            .env(KEY_VARIABLE, key)
            .output()
            .expect("the binary runs");
        let said = [output.stdout.clone(), output.stderr.clone()].concat();
        assert!(
            !String::from_utf8_lossy(&said).contains(KEY),
            "the key is in a message"
        );
        told(output)
    };
    let (code, document, _) = run(&wrong, "night-2");
    assert_eq!((code, conclusion(&document)), (5, "failed"), "{document:#}");
    let reason = document["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("HTTP 401") && reason.contains("Incorrect API key"),
        "{reason}"
    );
    assert!(server.chats() < 8, "a wrong key is not tried once per row");

    // Right.
    is_promoted(&scratch, &run(KEY, "night-3"));
    let sent = server.requests();
    assert_eq!(
        sent.last().expect("a request").headers["authorization"],
        format!("Bearer {KEY}")
    );

    let objects = scratch.git(&["cat-file", "--batch-all-objects", "--unordered", "--batch"]);
    assert!(
        objects.contains("Weigh every word"),
        "objects are looked into"
    );
    assert!(!objects.contains(KEY), "the key is in an object");
    let mut files = vec![scratch.root().to_owned()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(path)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").path()),
            );
        } else {
            seen += 1;
            let bytes = std::fs::read(&path).expect("a file");
            assert!(
                !bytes
                    .windows(KEY.len())
                    .any(|window| window == KEY.as_bytes()),
                "the key is in {}",
                path.display()
            );
        }
    }
    assert!(seen > 50, "spools, caches and logs were looked into");
}

#[test]
fn an_endpoint_that_nobody_listens_at_is_named_before_anything_is_done() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let scratch = ready_at(&format!("http://127.0.0.1:{port}/v1"), GRID, QUICK);
    let (code, document, stderr) = night(&scratch);
    assert_eq!(code, 4, "{document:#}");
    assert!(
        stderr.contains(&format!("127.0.0.1:{port}")) && stderr.contains("base_url"),
        "{stderr}"
    );
    assert_eq!(document["signatures"], json!([]));
    nothing_is_in_force(&scratch);
}
