//! A program that answers prompts over JSON lines on its standard input and output.
//!
//! # The protocol
//!
//! One line of JSON per request on the program's standard input, one line per
//! answer on its standard output, UTF-8, one request at a time per process:
//!
//! ```json
//! {"id":"1","messages":[{"role":"user","content":"hi"}],"decoding":{"temperature":0.0,"max_tokens":64},"response":{"type":"text"},"correlation_id":"run-1/7"}
//! {"id":"1","text":"hello","model":"mine-3","usage":{"input_tokens":9,"output_tokens":1}}
//! ```
//!
//! - `decoding` has `temperature`, `top_p`, `max_tokens` and `seed`, each only when set.
//! - `response` is `{"type":"text"}`, `{"type":"json_object"}` or
//!   `{"type":"json_schema","name":…,"schema":…}`.
//! - An answer has `id` and `text`; `model`, `revision`, `usage` and
//!   `finish` (`stop`, `length`, `other`) are optional.
//! - A failure is `{"id":"1","error":{"message":"…","retryable":true}}`.
//! - Unknown members are ignored, in both directions. Flush after every line;
//!   standard error is free text, whose end is quoted when something goes wrong.
//! - At the end of its standard input the program should exit.
//!
//! # What happens when it misbehaves
//!
//! | it | then |
//! |---|---|
//! | dies, or can't be started | the request fails as `process`; it is started again for the next, but not after five deaths in a row without an answer |
//! | says nothing in time | its process group is ended, the request fails as `timeout` |
//! | writes something else | its process group is ended (who knows what comes next), `malformed` |
//! | lives on when we stop | its process group is ended |

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::host::process::{Program, kill_group};

use super::config::ExecConfig;
use super::error::{Context, Phase};
use super::secret::{Secret, redact};
use super::{
    Completion, Decoding, Failure, FinishReason, Message, Model, ModelError, ModelIdentity,
    Request, ResponseFormat, Surroundings, Usage,
};

/// What every program may see of the environment.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "LC_ALL"];
const ANSWER_BYTES_MAX: u64 = 16 << 20;
const STDERR_BYTES_MAX: usize = 2048;
const DEATHS_MAX: u32 = 5;

/// Kept-alive processes of one program.
pub struct Exec {
    config: ExecConfig,
    environment: Vec<(String, String)>,
    /// What was passed through beyond the usual: not to be quoted.
    secrets: Vec<Secret>,
    surroundings: Surroundings,
    idle: Mutex<Idle>,
    returned: Condvar,
    next_id: AtomicU64,
    /// Deaths since the last answer.
    deaths: AtomicU32,
    aborted: AtomicBool,
}

#[derive(Default)]
struct Idle {
    /// A place per process that may run; None where none was started yet.
    places: Vec<Option<Worker>>,
}

impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec")
            .field("command", &self.config.command)
            .finish_non_exhaustive()
    }
}

impl Exec {
    /// A program that is started when it is first needed.
    pub fn new(config: &ExecConfig, surroundings: &Surroundings) -> Self {
        let look = |name: &str| {
            let value = (surroundings.environment)(name)?;
            Some((name.to_owned(), value))
        };
        let usual = ENVIRONMENT.iter().filter_map(|name| look(name));
        let passed: Vec<_> = config.env.iter().filter_map(|name| look(name)).collect();
        // A short value is a setting (`0`, `debug`), not a key.
        let secrets = passed.iter().filter(|(_, value)| value.len() >= 8);
        let secrets = secrets.map(|(_, value)| Secret::new(value)).collect();
        let places = (0..config.concurrency.max(1)).map(|_| None).collect();
        Self {
            environment: usual.chain(passed).collect(),
            secrets,
            config: config.clone(),
            surroundings: surroundings.clone(),
            idle: Mutex::new(Idle { places }),
            returned: Condvar::new(),
            next_id: AtomicU64::new(1),
            deaths: AtomicU32::new(0),
            aborted: AtomicBool::new(false),
        }
    }

    fn program(&self) -> &str {
        &self.config.command[0]
    }

    fn stopping(&self) -> bool {
        self.surroundings.interrupt.is_set() || self.aborted.load(Ordering::Relaxed)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_place(&self) -> Result<Option<Worker>, Failure> {
        let mut idle = self.idle();
        loop {
            if self.stopping() {
                return Err(Failure::Interrupted);
            }
            // A running process before a place where one would have to be started.
            let running = idle.places.iter().position(Option::is_some);
            if let Some(index) = running.or(idle.places.len().checked_sub(1)) {
                return Ok(idle.places.swap_remove(index));
            }
            idle = self
                .returned
                .wait_timeout(idle, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn give_back(&self, worker: Option<Worker>) {
        self.idle().places.push(worker);
        self.returned.notify_one();
    }

    fn clean(&self, text: &str) -> String {
        redact(text, &self.secrets)
    }

    fn died(&self, reason: String, stderr: &str) -> Failure {
        let deaths = self.deaths.fetch_add(1, Ordering::Relaxed) + 1;
        let restarts = deaths < DEATHS_MAX;
        let reason = if restarts {
            reason
        } else {
            format!("{reason}; it died {deaths} times in a row and isn't started again")
        };
        Failure::Process {
            reason: self.clean(&reason),
            stderr: self.clean(stderr.trim_end()),
            restarts,
        }
    }

    fn start(&self) -> Result<Worker, Failure> {
        if self.deaths.load(Ordering::Relaxed) >= DEATHS_MAX {
            return Err(Failure::Process {
                reason: format!(
                    "`{}` died {DEATHS_MAX} times in a row and isn't started again",
                    self.program()
                ),
                stderr: String::new(),
                restarts: false,
            });
        }
        let mut program = Program::new(self.program()).args(&self.config.command[1..]);
        if let Some(directory) = &self.surroundings.directory {
            program = program.dir(directory);
        }
        let mut command = program.command();
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| {
            self.died(format!("cannot start `{}`: {error}", self.program()), "")
        })?;
        Ok(Worker::new(child))
    }

    /// One attempt on one process. The process comes back unless it must not be used again.
    fn attempt(
        &self,
        worker: Option<Worker>,
        request: &Request,
    ) -> (Option<Worker>, Result<Completion, Failure>) {
        let began = Instant::now();
        // One that died while idle is replaced without a word.
        let worker = worker.and_then(|mut worker| worker.is_alive().then_some(worker));
        let mut worker = match worker.map_or_else(|| self.start(), Ok) {
            Ok(worker) => worker,
            Err(failure) => return (None, Err(failure)),
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let line = request_line(&id, request);
        let limit = Duration::from_millis(self.config.timeout_ms);
        let answer = match worker.ask(line, began, limit, &|| self.stopping()) {
            Ok(answer) => answer,
            Err(Silence::Late) => {
                return (
                    None,
                    Err(Failure::Timeout {
                        phase: Phase::Answer,
                        limit_ms: self.config.timeout_ms,
                    }),
                );
            }
            Err(Silence::Stopping) => return (None, Err(Failure::Interrupted)),
            Err(Silence::TooLong) => {
                return (
                    None,
                    Err(Failure::TooLarge {
                        limit_bytes: ANSWER_BYTES_MAX,
                    }),
                );
            }
            Err(Silence::Died) => {
                let (status, stderr) = worker.end();
                let reason = format!("`{}` ended without answering ({status})", self.program());
                return (None, Err(self.died(reason, &stderr)));
            }
        };
        self.deaths.store(0, Ordering::Relaxed);
        match self.read_answer(&answer, &id) {
            // The program is sane, whatever it reports.
            Ok(outcome) => (Some(worker), outcome),
            Err(failure) => (None, Err(failure)),
        }
    }

    /// Outer error: not of the protocol.
    fn read_answer(&self, line: &[u8], id: &str) -> Result<Result<Completion, Failure>, Failure> {
        let malformed = |reason: String| {
            let text = String::from_utf8_lossy(line);
            let excerpt: String = text.chars().take(200).collect();
            Failure::Malformed {
                reason,
                excerpt: self.clean(&excerpt),
            }
        };
        let answer: AnswerLine =
            serde_json::from_slice(line).map_err(|error| malformed(error.to_string()))?;
        if answer.id != id {
            return Err(malformed(format!(
                "the answer's id is `{}`, the request's `{id}`",
                answer.id
            )));
        }
        if let Some(error) = answer.error {
            return Ok(Err(Failure::Reported {
                message: self.clean(&error.message),
                retryable: error.retryable,
            }));
        }
        let Some(text) = answer.text else {
            return Err(malformed("neither `text` nor `error`".into()));
        };
        let mut answered_by = self.identity();
        if let Some(model) = answer.model {
            answered_by.model = model;
        }
        answered_by.revision = answer.revision;
        let usage = answer.usage.unwrap_or_default();
        Ok(Ok(Completion {
            text,
            answered_by,
            cost_micro_usd: self.config.price.of(usage),
            usage,
            finish: answer.finish.unwrap_or(FinishReason::Stop),
            latency_ms: 0,
            attempts: 1,
            cached: false,
            fallback: None,
            server_request_id: None,
        }))
    }
}

impl Model for Exec {
    fn complete(&self, request: &Request) -> Result<Completion, ModelError> {
        let clock = &self.surroundings.clock;
        let began_ms = clock.elapsed_ms();
        let outcome = self.take_place().and_then(|worker| {
            let (worker, outcome) = self.attempt(worker, request);
            self.give_back(worker);
            outcome
        });
        let elapsed_ms = clock.elapsed_ms().saturating_sub(began_ms);
        match outcome {
            Ok(completion) => Ok(Completion {
                latency_ms: elapsed_ms,
                ..completion
            }),
            Err(failure) => Err(ModelError::new(
                failure,
                Context {
                    at: format!("program `{}`", self.program()),
                    elapsed_ms,
                    attempts: 1,
                    correlation_id: request.correlation_id.clone(),
                    server_request_id: None,
                    cause: None,
                },
            )),
        }
    }

    fn identity(&self) -> ModelIdentity {
        let name = std::path::Path::new(self.program()).file_name();
        let mut model = name.map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        for argument in &self.config.command[1..] {
            model.push(' ');
            model.push_str(argument);
        }
        ModelIdentity {
            provider: "exec".into(),
            model,
            revision: None,
        }
    }

    fn concurrency(&self) -> usize {
        self.config.concurrency.max(1)
    }

    fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }
}

#[derive(Serialize)]
struct RequestLine<'a> {
    id: &'a str,
    messages: &'a [Message],
    decoding: Map<String, Value>,
    response: &'a ResponseFormat,
    correlation_id: &'a str,
}

#[derive(Deserialize)]
struct AnswerLine {
    id: String,
    text: Option<String>,
    model: Option<String>,
    revision: Option<String>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    error: Option<ReportedError>,
}

#[derive(Deserialize)]
struct ReportedError {
    message: String,
    #[serde(default)]
    retryable: bool,
}

fn request_line(id: &str, request: &Request) -> Vec<u8> {
    let mut line = serde_json::to_vec(&RequestLine {
        id,
        messages: &request.messages,
        decoding: set_members(&request.decoding),
        response: &request.response,
        correlation_id: &request.correlation_id,
    })
    .expect("because a request has string keys only");
    line.push(b'\n');
    line
}

fn set_members(decoding: &Decoding) -> Map<String, Value> {
    let Ok(Value::Object(mut members)) = serde_json::to_value(decoding) else {
        return Map::new();
    };
    members.retain(|_, value| !value.is_null());
    members
}

/// Why there was no line.
enum Silence {
    Late,
    Stopping,
    TooLong,
    Died,
}

/// A running process. Three threads keep its pipes from filling up, so that
/// neither side can block the other for longer than the time limit.
struct Worker {
    child: Child,
    requests: Option<Sender<Vec<u8>>>,
    answers: Receiver<Option<Vec<u8>>>,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    stderr_thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn new(mut child: Child) -> Self {
        let mut stdin = child
            .stdin
            .take()
            .expect("because stdin was asked to be piped");
        let stdout = child
            .stdout
            .take()
            .expect("because stdout was asked to be piped");
        let stderr = child
            .stderr
            .take()
            .expect("because stderr was asked to be piped");
        let (requests, to_write) = channel::<Vec<u8>>();
        std::thread::spawn(move || {
            for line in to_write {
                if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
                    // It closed its input: the reader will see its end, or the clock will.
                    break;
                }
            }
        });
        // One line may wait; a program that keeps talking is held up, not buffered.
        let (read, answers) = sync_channel(1);
        std::thread::spawn(move || read_lines(stdout, &read));
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let keep = Arc::clone(&kept);
        let stderr_thread = std::thread::spawn(move || keep_tail(stderr, &keep));
        Self {
            child,
            requests: Some(requests),
            answers,
            stderr: kept,
            stderr_thread: Some(stderr_thread),
        }
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn ask(
        &mut self,
        line: Vec<u8>,
        began: Instant,
        limit: Duration,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Silence> {
        const LOOK: Duration = Duration::from_millis(50);
        let requests = self.requests.as_ref().ok_or(Silence::Died)?;
        requests.send(line).map_err(|_| Silence::Died)?;
        loop {
            let left = limit.saturating_sub(began.elapsed());
            match self.answers.recv_timeout(left.min(LOOK)) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => return Err(Silence::TooLong),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Died),
                Err(RecvTimeoutError::Timeout) if stopping() => return Err(Silence::Stopping),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(Silence::Late),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// End a process that closed its output, and say how it ended.
    fn end(&mut self) -> (String, String) {
        // It usually is on its way out already.
        let mut status = None;
        for _ in 0..50 {
            status = self.child.try_wait().ok().flatten();
            if status.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = status.map_or_else(
            || "its standard output closed while it ran on".to_owned(),
            |status| status.to_string(),
        );
        kill_group(&mut self.child);
        if let Some(thread) = self.stderr_thread.take() {
            // The whole group is gone, so the pipe is closed.
            let _ = thread.join();
        }
        let mut kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
        (status, tail)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Closing its input is the polite request to end; the group gets no choice.
        self.requests = None;
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill_group(&mut self.child);
    }
}

fn read_lines(stdout: impl Read, answers: &SyncSender<Option<Vec<u8>>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match stdout
            .by_ref()
            .take(ANSWER_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(read) if read > 0 && line.ends_with(b"\n") => {
                line.pop();
                if answers.send(Some(line)).is_err() {
                    return;
                }
            }
            Ok(read) if read as u64 == ANSWER_BYTES_MAX => {
                let _ = answers.send(None);
                return;
            }
            // The end, or a torn line at the end: no answer.
            _ => return,
        }
    }
}

fn keep_tail(mut stderr: impl Read, kept: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(read) = stderr.read(&mut buffer) {
        if read == 0 {
            return;
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(&buffer[..read]);
        let excess = kept.len().saturating_sub(STDERR_BYTES_MAX);
        kept.drain(..excess);
    }
}
