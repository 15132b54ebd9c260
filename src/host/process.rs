//! Other programs, called with arguments (never through a shell), each with a
//! time limit, in a process group of their own so that nothing is orphaned.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::signal::Interrupt;

/// A program to run: name, arguments, folder, environment, input, limits.
#[derive(Debug, Clone)]
pub struct Program {
    name: OsString,
    args: Vec<OsString>,
    dir: Option<PathBuf>,
    inherits: bool,
    set: Vec<(OsString, OsString)>,
    unset: Vec<OsString>,
    input: Vec<u8>,
    timeout: Duration,
    output_bytes_max: usize,
    interrupt: Option<Interrupt>,
}

/// What a finished program left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output: the last `output_bytes_max` bytes.
    pub stdout: Vec<u8>,
    /// Standard error: the last `output_bytes_max` bytes.
    pub stderr: Vec<u8>,
    /// Wall time.
    pub elapsed: Duration,
}

/// Why a program gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program's name.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ran longer than allowed and was killed, with its children.
    #[error("`{program}` was killed after {} ms without finishing", limit.as_millis())]
    TimedOut {
        /// The program's name.
        program: String,
        /// The limit it passed.
        limit: Duration,
        /// The end of its standard output.
        stdout: Vec<u8>,
        /// The end of its standard error.
        stderr: Vec<u8>,
    },
    /// The user asked us to stop while it ran; it was killed, with its children.
    #[error("interrupted while `{program}` ran")]
    Interrupted {
        /// The program's name.
        program: String,
    },
    /// Talking to it failed.
    #[error("lost contact with `{program}`: {source}")]
    Io {
        /// The program's name.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Program {
    /// A program by name or path, with a limit of 60 seconds and 1 MiB of each output.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            args: Vec::new(),
            dir: None,
            inherits: true,
            set: Vec::new(),
            unset: Vec::new(),
            input: Vec::new(),
            timeout: Duration::from_secs(60),
            output_bytes_max: 1 << 20,
            interrupt: None,
        }
    }

    /// Add one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Add arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Run in this folder.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Set an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.set
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Give it no variables of ours but those that are set for it.
    pub fn env_clear(mut self) -> Self {
        self.inherits = false;
        self
    }

    /// Remove an environment variable.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.unset.push(name.as_ref().to_owned());
        self
    }

    /// Give it this on standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Kill it, and its children, after this long.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Keep at most this many bytes from the end of each output.
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }

    /// Kill it when this flag is set.
    pub fn interrupt(mut self, flag: Interrupt) -> Self {
        self.interrupt = Some(flag);
        self
    }

    fn shown(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    /// The `std` command, in a process group of its own; for programs that are kept alive.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.args).process_group(0);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if !self.inherits {
            command.env_clear();
        }
        for name in &self.unset {
            command.env_remove(name);
        }
        for (name, value) in &self.set {
            command.env(name, value);
        }
        command
    }

    /// Run it to its end.
    pub fn run(self) -> Result<Finished, ProcessError> {
        let began = Instant::now();
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ProcessError::Start {
                program: self.shown(),
                source,
            })?;
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .expect("because stdout was asked to be piped");
        let stderr = child
            .stderr
            .take()
            .expect("because stderr was asked to be piped");
        let keep = self.output_bytes_max;
        let (status, stdout, stderr) = std::thread::scope(|scope| {
            let input = &self.input;
            scope.spawn(move || {
                if let Some(mut stdin) = stdin {
                    // A program that does not read all its input is not at fault.
                    let _ = stdin.write_all(input);
                }
            });
            let stdout = scope.spawn(move || read_tail(stdout, keep));
            let stderr = scope.spawn(move || read_tail(stderr, keep));
            let status = self.wait(&mut child, began);
            match status {
                // What it left running would hold its pipes, and us, open for ever.
                Wait::Exited(_) => kill_leftovers(&child),
                _ => kill_group(&mut child),
            }
            let stdout = stdout
                .join()
                .expect("because reading a pipe does not panic");
            let stderr = stderr
                .join()
                .expect("because reading a pipe does not panic");
            (status, stdout, stderr)
        });
        match status {
            Wait::Exited(status) => Ok(Finished {
                status,
                stdout,
                stderr,
                elapsed: began.elapsed(),
            }),
            Wait::TimedOut => Err(ProcessError::TimedOut {
                program: self.shown(),
                limit: self.timeout,
                stdout,
                stderr,
            }),
            Wait::Interrupted => Err(ProcessError::Interrupted {
                program: self.shown(),
            }),
            Wait::Failed(source) => Err(ProcessError::Io {
                program: self.shown(),
                source,
            }),
        }
    }

    fn wait(&self, child: &mut std::process::Child, began: Instant) -> Wait {
        let mut pause = Duration::from_micros(200);
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Wait::Exited(status),
                Ok(None) => {}
                Err(error) => return Wait::Failed(error),
            }
            if began.elapsed() >= self.timeout {
                return Wait::TimedOut;
            }
            if self.interrupt.as_ref().is_some_and(Interrupt::is_set) {
                return Wait::Interrupted;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

enum Wait {
    Exited(ExitStatus),
    TimedOut,
    Interrupted,
    Failed(std::io::Error),
}

/// End a process group: ask first, then insist.
pub fn kill_group(child: &mut std::process::Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let Some(pid) = Pid::from_raw(child.id() as i32) else {
        return;
    };
    let _ = kill_process_group(pid, Signal::TERM);
    for _ in 0..20 {
        if matches!(child.try_wait(), Ok(Some(_))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_leftovers(child);
    let _ = child.wait();
}

/// End children that ignored a request to end, or outlived their parent.
fn kill_leftovers(child: &std::process::Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        // No such group is the usual, good answer.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn read_tail(mut from: impl Read, keep: usize) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..read]);
        if tail.len() > 2 * keep {
            tail.drain(..tail.len() - keep);
        }
    }
    if tail.len() > keep {
        tail.drain(..tail.len() - keep);
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_reaches_it_and_output_comes_back() {
        let done = Program::new("cat")
            .input("one\ntwo\n")
            .run()
            .expect("cat runs");
        assert!(done.status.success());
        assert_eq!(done.stdout, b"one\ntwo\n");
    }

    #[test]
    fn only_the_tail_is_kept() {
        let done = Program::new("seq")
            .args(["1", "100000"])
            .output_bytes_max(7)
            .run()
            .expect("seq runs");
        assert_eq!(done.stdout, b"100000\n");
    }

    #[test]
    fn a_hanging_program_and_its_children_end() {
        let error = Program::new("sh")
            .args(["-c", "echo began; sleep 100 & wait"])
            .timeout(Duration::from_millis(300))
            .run()
            .expect_err("it hangs");
        let ProcessError::TimedOut { stdout, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(stdout, b"began\n");
    }

    #[test]
    fn a_background_child_does_not_hold_us() {
        let done = Program::new("sh")
            .args(["-c", "sleep 100 & echo done"])
            .run()
            .expect("sh runs");
        assert_eq!(done.stdout, b"done\n");
        assert!(done.elapsed < Duration::from_secs(50));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Program::new("no-such-program-here")
            .run()
            .expect_err("missing");
        assert!(
            error.to_string().contains("no-such-program-here"),
            "{error}"
        );
    }
}
