//! Setting up, promoting, rolling back and verifying, with real git and
//! ssh-keygen as the second opinion, through the program as a user runs it.

mod init;
mod promotions;
mod rollback;
mod support;
mod tampering;
