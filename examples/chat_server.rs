//! The tests' chat server, to try a night against by hand:
//!
//! ```text
//! cargo run --example chat_server -- [--port 8080] [--latency-ms 50] [--errors 20] [--rate-limits 10] [--model NAME] [--say TEXT] [--key KEY]
//! ```
//!
//! `--errors` and `--rate-limits` are per thousand requests.

#[path = "../tests/support/chat_server.rs"]
mod chat_server;

use std::time::Duration;

use chat_server::{Behaviour, ChatServer, Script};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut script = Script {
        record: false,
        ..Script::default()
    };
    let (mut port, mut errors, mut limits) = (0, 0, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--port" => port = value.parse()?,
            "--latency-ms" => script.latency = Duration::from_millis(value.parse()?),
            "--errors" => errors = value.parse()?,
            "--rate-limits" => limits = value.parse()?,
            "--model" => script.model = Box::new(move |_| value.clone()),
            "--say" => script.answer = Box::new(move |_| value.clone()),
            "--key" => script.key = Some(value),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    if errors + limits > 0 {
        script.behaviour = Box::new(move |n| {
            let place = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000;
            if place < errors {
                Behaviour::Status {
                    code: 503,
                    message: "overloaded".into(),
                    headers: String::new(),
                }
            } else if place < errors + limits {
                Behaviour::RateLimited("1".into())
            } else {
                Behaviour::Answer
            }
        });
    }
    let server = ChatServer::start_on(port, script)?;
    println!("base_url = \"{}\"", server.base_url());
    server.wait();
    Ok(())
}
