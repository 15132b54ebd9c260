#![forbid(unsafe_code)]
//! The `proofline` binary; everything it does is in the library.

fn main() {}
