#![forbid(unsafe_code)]
//! The `proofline` binary; everything it does is in the library.

fn main() -> std::process::ExitCode {
    proofline::cli::main(std::env::args_os())
}
