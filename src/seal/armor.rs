//! Base64 and the armor of SSHSIG.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----";
/// What `ssh-keygen` prints per line.
const WIDTH: usize = 70;

/// Canonical base64: padded, no other alphabet, no stray bits, no space.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(super) fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Take the armor off. As in OpenSSH, space within the base64 does not matter
/// (other programs wrap at other widths), and the first and last lines are
/// exact; unlike there, nothing but space may follow.
pub(super) fn dearmor(armored: &[u8]) -> Result<Vec<u8>, &'static str> {
    let text = std::str::from_utf8(armored).map_err(|_| "the armor is not ASCII")?;
    let body = text
        .strip_prefix(BEGIN)
        .ok_or("the armor's first line is missing")?;
    let (body, after) = body
        .split_once(&format!("\n{END}"))
        .ok_or("the armor's last line is missing")?;
    if !after.bytes().all(is_space) {
        return Err("something follows the armor's last line");
    }
    let base64: String = body
        .chars()
        .filter(|c| !c.is_ascii() || !is_space(*c as u8))
        .collect();
    decode_base64(&base64).ok_or("the armor holds no canonical base64")
}

/// C's `isspace`, which OpenSSH uses; Rust's ASCII whitespace lacks the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

pub(super) fn armor(blob: &[u8]) -> String {
    let base64 = encode_base64(blob);
    let mut text = String::with_capacity(base64.len() + base64.len() / WIDTH + 64);
    text.push_str(BEGIN);
    for line in base64.as_bytes().chunks(WIDTH) {
        text.push_str(std::str::from_utf8(line).expect("because base64 is ASCII"));
        text.push('\n');
    }
    text.push_str(END);
    text.push('\n');
    text
}
