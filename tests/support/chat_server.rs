//! A small chat server for tests: the OpenAI protocol over real HTTP on
//! loopback, on a port that the system chooses, with every way to misbehave
//! that a night may meet. Threads and blocking sockets, one per connection.
//!
//! It answers from what the prompt itself holds, as a model would: the nearest
//! few-shot example if there are any, otherwise the label whose words overlap
//! most. So few-shot examples help, and a search has something to find.
//!
//! ```ignore
//! #[path = "support/chat_server.rs"]
//! mod chat_server;
//! let server = ChatServer::start(Script::default());
//! // … base_url = server.base_url()
//! ```
#![allow(dead_code)] // every test file uses its own part of this

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

/// What the server does. Cheap to build with `..Script::default()`.
pub struct Script {
    /// What is answered when nothing goes wrong.
    pub answer: Box<dyn Fn(&Value) -> String + Send + Sync>,
    /// What happens to the n-th chat request, from 0.
    pub behaviour: Box<dyn Fn(u64) -> Behaviour + Send + Sync>,
    /// The model's name, by chat request.
    pub model: Box<dyn Fn(u64) -> String + Send + Sync>,
    /// Before every answer.
    pub latency: Duration,
    /// Any other key is answered with 401, quoting it.
    pub key: Option<String>,
    /// Whether requests are kept for [`ChatServer::requests`].
    pub record: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            answer: Box::new(answer_from_prompt),
            behaviour: Box::new(|_| Behaviour::Answer),
            model: Box::new(|_| "test-model-1".into()),
            latency: Duration::ZERO,
            key: None,
            record: true,
        }
    }
}

impl Script {
    /// Always the same text.
    pub fn saying(text: &str) -> Self {
        let text = text.to_owned();
        Self {
            answer: Box::new(move |_| text.clone()),
            ..Self::default()
        }
    }

    /// The given behaviours in turn, then good answers.
    pub fn first(mut self, behaviours: impl IntoIterator<Item = Behaviour>) -> Self {
        let behaviours: Vec<_> = behaviours.into_iter().collect();
        self.behaviour = Box::new(move |n| {
            let behaviour = behaviours.get(n as usize).cloned();
            behaviour.unwrap_or(Behaviour::Answer)
        });
        self
    }

    /// One behaviour, always.
    pub fn always(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = Box::new(move |_| behaviour.clone());
        self
    }

    /// `behaviour` for about `per_mille` requests in a thousand, the same ones every time.
    pub fn sometimes(mut self, per_mille: u64, behaviour: Behaviour) -> Self {
        self.behaviour = Box::new(move |n| {
            // A multiplicative hash spreads them.
            if (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000 < per_mille {
                behaviour.clone()
            } else {
                Behaviour::Answer
            }
        });
        self
    }
}

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// A good answer.
    Answer,
    /// A good answer with other text.
    Say(String),
    /// A status and a JSON error; more headers, one a line.
    Status {
        code: u16,
        message: String,
        headers: String,
    },
    /// 429 with this `Retry-After`.
    RateLimited(String),
    /// The headers promise more than the body holds; then the connection closes.
    Truncated,
    /// The same without a length: only the JSON shows it.
    TruncatedUnsized,
    /// The same with chunks.
    TruncatedChunked,
    /// A good answer in chunks.
    Chunked,
    /// Nothing for a while, then a good answer.
    SlowFirstByte(Duration),
    /// The headers at once, then a byte of the body at a time.
    SlowBody(Duration),
    /// Bytes that are not HTTP.
    Garbage,
    /// 200 with a body that isn't JSON.
    NotJson,
    /// 200 with this JSON body.
    Json(Value),
    /// 200 with more bytes than anyone wants.
    Huge(usize),
    /// The model declines.
    Refusal,
    /// `content` is null.
    NullContent,
    /// `choices` is empty.
    NoChoices,
    /// The text is cut by the length limit.
    LengthLimit,
    /// The connection closes without a byte.
    Drop,
    /// 307 to this place.
    Redirect(String),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, or null.
    pub body: Value,
}

struct Shared {
    script: Script,
    chats: AtomicU64,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    open: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

/// A running server; it stops when dropped.
pub struct ChatServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl ChatServer {
    /// Start on a free port.
    pub fn start(script: Script) -> Self {
        Self::start_on(0, script).expect("a free port on loopback")
    }

    /// Start on a given port.
    pub fn start_on(port: u16, script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script,
            chats: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            seen: Mutex::default(),
            open: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepted = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepted.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepted.connections.fetch_add(1, Ordering::SeqCst);
                if let Ok(copy) = stream.try_clone() {
                    accepted.open.lock().expect("no panic").push(copy);
                }
                let shared = Arc::clone(&accepted);
                // A client that goes away is no error here.
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Ok(Self {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    /// What goes into `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic").clone()
    }

    /// How many chat requests arrived.
    pub fn chats(&self) -> u64 {
        self.shared.chats.load(Ordering::SeqCst)
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The most requests that were being answered at once.
    pub fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }

    /// Wait for ever (for the example).
    pub fn wait(mut self) {
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for ChatServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        for stream in self.shared.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(16 << 10, stream);
    while let Some(seen) = read_request(&mut reader)? {
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_in_flight.fetch_max(now, Ordering::SeqCst);
        if shared.script.record {
            // Before the answer, so that whoever has it can look.
            shared.seen.lock().expect("no panic").push(seen.clone());
        }
        let goes_on = respond(stream, shared, &seen);
        shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        if !goes_on? {
            return stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Seen {
        method,
        target,
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }))
}

/// Whether the connection goes on.
fn respond(stream: &TcpStream, shared: &Shared, seen: &Seen) -> io::Result<bool> {
    let mut stream = stream;
    let script = &shared.script;
    if let Some(key) = &script.key {
        let sent = seen.headers.get("authorization").map_or("", String::as_str);
        if sent != format!("Bearer {key}") {
            // As the real ones do: the wrong key is quoted.
            let message = format!("Incorrect API key provided: {sent}");
            return send(stream, 401, "", &error_body(&message));
        }
    }
    let path = seen.target.split('?').next().unwrap_or_default();
    match (seen.method.as_str(), path) {
        ("GET", "/v1/models") => {
            let model = (script.model)(shared.chats.load(Ordering::SeqCst));
            let list = json!({"object": "list", "data": [{"id": model, "object": "model"}]});
            return send(stream, 200, "", &list.to_string());
        }
        ("POST", "/v1/chat/completions") => {}
        _ => return send(stream, 404, "", &error_body("no such path")),
    }
    let number = shared.chats.fetch_add(1, Ordering::SeqCst);
    if !script.latency.is_zero() {
        std::thread::sleep(script.latency);
    }
    let id = format!("x-request-id: srv-{number}\r\n");
    if !seen.body.get("messages").is_some_and(Value::is_array) {
        return send(stream, 400, &id, &error_body("`messages` is required"));
    }
    let model = (script.model)(number);
    let good = |text: &str| completion(number, &model, &seen.body, text, "stop").to_string();
    let answer = || good(&(script.answer)(&seen.body));
    match (script.behaviour)(number) {
        Behaviour::Answer => send(stream, 200, &id, &answer()),
        Behaviour::Say(text) => send(stream, 200, &id, &good(&text)),
        Behaviour::Status {
            code,
            message,
            headers,
        } => {
            let headers = headers.lines().fold(id, |all, line| all + line + "\r\n");
            send(stream, code, &headers, &error_body(&message))
        }
        Behaviour::RateLimited(after) => {
            let headers = format!("{id}retry-after: {after}\r\n");
            send(stream, 429, &headers, &error_body("too many requests"))
        }
        Behaviour::Truncated => {
            let body = answer();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
                body.len(),
                &body[..body.len() / 2]
            )?;
            Ok(false)
        }
        Behaviour::TruncatedUnsized => {
            let body = answer();
            let half = &body[..body.len() / 2];
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{half}"
            )?;
            Ok(false)
        }
        Behaviour::TruncatedChunked => {
            let body = answer();
            let half = &body[..body.len() / 2];
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n",
                half.len()
            )?;
            Ok(false)
        }
        Behaviour::Chunked => {
            let body = answer();
            let (left, right) = body.split_at(body.len() / 2);
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{left}\r\n{:x}\r\n{right}\r\n0\r\n\r\n",
                left.len(),
                right.len()
            )?;
            Ok(true)
        }
        Behaviour::SlowFirstByte(pause) => {
            std::thread::sleep(pause);
            send(stream, 200, &id, &answer())
        }
        Behaviour::SlowBody(pause) => {
            let body = answer();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )?;
            for byte in body.as_bytes() {
                std::thread::sleep(pause);
                stream.write_all(&[*byte])?;
            }
            Ok(true)
        }
        Behaviour::Garbage => {
            stream.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n")?;
            Ok(false)
        }
        Behaviour::NotJson => send(stream, 200, &id, "<html>It works!</html>"),
        Behaviour::Json(value) => send(stream, 200, &id, &value.to_string()),
        Behaviour::Huge(bytes) => send(stream, 200, &id, &" ".repeat(bytes)),
        Behaviour::Refusal => {
            let mut body = completion(number, &model, &seen.body, "", "stop");
            body["choices"][0]["message"] =
                json!({"role": "assistant", "content": null, "refusal": "I can't help with that."});
            send(stream, 200, &id, &body.to_string())
        }
        Behaviour::NullContent => {
            let mut body = completion(number, &model, &seen.body, "", "tool_calls");
            body["choices"][0]["message"]["content"] = Value::Null;
            send(stream, 200, &id, &body.to_string())
        }
        Behaviour::NoChoices => {
            let mut body = completion(number, &model, &seen.body, "", "stop");
            body["choices"] = json!([]);
            send(stream, 200, &id, &body.to_string())
        }
        Behaviour::LengthLimit => {
            let text = (script.answer)(&seen.body);
            let half: String = text.chars().take(text.chars().count() / 2).collect();
            let body = completion(number, &model, &seen.body, &half, "length");
            send(stream, 200, &id, &body.to_string())
        }
        Behaviour::Drop => Ok(false),
        Behaviour::Redirect(to) => {
            let headers = format!("{id}location: {to}\r\n");
            send(stream, 307, &headers, "")
        }
    }
}

fn send(mut stream: &TcpStream, status: u16, headers: &str, body: &str) -> io::Result<bool> {
    let mut whole = String::with_capacity(256 + body.len());
    write!(
        whole,
        "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("writing to a String cannot fail");
    stream.write_all(whole.as_bytes())?;
    Ok(true)
}

fn error_body(message: &str) -> String {
    json!({"error": {"message": message, "type": "scripted"}}).to_string()
}

fn completion(number: u64, model: &str, request: &Value, text: &str, finish: &str) -> Value {
    let words = |text: &str| text.split_whitespace().count();
    let messages = request["messages"].as_array().into_iter().flatten();
    let read: usize = messages
        .filter_map(|m| m["content"].as_str())
        .map(words)
        .sum();
    json!({
        "id": format!("chatcmpl-{number}"),
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "system_fingerprint": "fp_test",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": finish,
        }],
        "usage": {"prompt_tokens": read, "completion_tokens": words(text), "total_tokens": read + words(text)},
    })
}

/// The default model: the nearest example's answer, or the best label of the schema.
pub fn answer_from_prompt(request: &Value) -> String {
    let messages: Vec<(&str, &str)> = request["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|m| {
            (
                m["role"].as_str().unwrap_or_default(),
                m["content"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    let last = messages
        .iter()
        .rev()
        .find(|(role, _)| *role == "user")
        .map_or("", |(_, content)| content);
    let (examples, question) = examples(&messages, last);
    let asked = words(&question);
    let nearest = examples
        .iter()
        .map(|(input, output)| (overlap(&asked, &words(input)), output))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((score, output)) = nearest
        && score > 0.2
    {
        return output.clone();
    }
    best_label(request, &asked).unwrap_or_else(|| question.clone())
}

/// Few-shot examples as pairs of messages, or as `Input:` and `Output:` lines in one.
fn examples(messages: &[(&str, &str)], last: &str) -> (Vec<(String, String)>, String) {
    let mut found = Vec::new();
    for pair in messages.windows(2) {
        if let [("user", input), ("assistant", output)] = pair {
            found.push(((*input).to_owned(), (*output).to_owned()));
        }
    }
    let mut question = last.to_owned();
    let mut input: Option<String> = None;
    let texts = messages.iter().filter(|(role, _)| *role != "assistant");
    for line in texts.flat_map(|(_, content)| content.lines()) {
        let lower = line.trim().to_ascii_lowercase();
        if lower.starts_with("input:") {
            input = Some(line.trim()["input:".len()..].trim().to_owned());
        } else if lower.starts_with("output:") {
            let output = line.trim()["output:".len()..].trim();
            if let Some(input) = input.take()
                && !output.is_empty()
            {
                found.push((input, output.to_owned()));
            }
        }
    }
    // An input without an output is the question.
    if let Some(input) = input {
        question = input;
    }
    (found, question)
}

/// JSON for the response schema with its first enumeration set to the label
/// that shares most letters-of-three with the question.
fn best_label(request: &Value, asked: &BTreeSet<String>) -> Option<String> {
    let schema = &request["response_format"]["json_schema"]["schema"];
    let properties = schema["properties"].as_object()?;
    let (name, labels) = properties
        .iter()
        .find_map(|(name, property)| Some((name, property["enum"].as_array()?)))?;
    let asked: BTreeSet<String> = asked.iter().flat_map(|word| threes(word)).collect();
    let label = labels
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
        .max_by_key(|(index, label)| {
            let own: BTreeSet<String> = words(label).iter().flat_map(|word| threes(word)).collect();
            // The first of equals.
            (own.intersection(&asked).count(), usize::MAX - index)
        })
        .map(|(_, label)| label)?;
    Some(json!({ name: label }).to_string())
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

fn threes(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    letters
        .windows(3)
        .map(|three| three.iter().collect())
        .collect()
}

fn overlap(a: &BTreeSet<String>, b: &BTreeSet<String>) -> f64 {
    let union = a.union(b).count();
    if union == 0 {
        return 0.0;
    }
    a.intersection(b).count() as f64 / union as f64
}
