//! What a command printed, made fit to keep: plain text, its end, and the ids
//! under which its requests can be looked up elsewhere.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

/// Bytes as text without colours, cursor movements and other control
/// characters: what is kept is read on terminals and pages.
pub fn plain(bytes: &[u8]) -> String {
    static ESCAPES: LazyLock<Regex> = LazyLock::new(|| {
        // CSI and OSC sequences, then any other escape.
        Regex::new(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|\x1b")
            .expect("because it is compiled by a test")
    });
    let text = String::from_utf8_lossy(bytes);
    let text = ESCAPES.replace_all(&text, "");
    let text = text.replace("\r\n", "\n");
    text.chars()
        // A lone carriage return rewrites a line on a terminal; here it begins a new one.
        .map(|c| if c == '\r' { '\n' } else { c })
        .filter(|c| matches!(c, '\n' | '\t') || !c.is_control())
        .collect()
}

/// The end of a text: at most `bytes_max` bytes, whole lines where there is one, else whole characters.
pub fn tail(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut start = text.len() - bytes_max;
    if text.as_bytes()[start - 1] == b'\n' {
        return &text[start..];
    }
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let end = &text[start..];
    match end.find('\n') {
        Some(newline) if newline + 1 < end.len() => &end[newline + 1..],
        _ => end,
    }
}

/// Request, correlation and trace ids in a text, in order, each once, at most `most`.
pub fn correlation_ids(text: &str, most: usize) -> Vec<String> {
    static IDS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"(?i)\b(?:x-)?(?:amzn-|goog-)?(?:request|correlation|trace)[-_ ]?id\\?[\x22']?\s*[:=]\s*\\?[\x22']?(?P<named>[a-z0-9][a-z0-9._:/+=-]{3,127})",
            r"|\btraceparent\\?[\x22']?\s*[:=]\s*\\?[\x22']?(?P<parent>[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})",
            r"|\b(?P<bare>req_[a-z0-9_-]{3,124})",
        ))
        .expect("because it is compiled by a test")
    });
    let mut seen = BTreeSet::new();
    let mut ids = Vec::new();
    for found in IDS.captures_iter(text) {
        let id = ["named", "parent", "bare"]
            .iter()
            .find_map(|group| found.name(group));
        let Some(id) = id else { continue };
        let id = id.as_str().trim_end_matches(['.', ':', '/', '=', '-']);
        if seen.insert(id) {
            ids.push(id.to_owned());
            if ids.len() == most {
                break;
            }
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_only() {
        let table: [(&[u8], &str); 6] = [
            (b"\x1b[31;1mred\x1b[0m plain", "red plain"),
            (b"\x1b]0;title\x07x", "x"),
            (b"50%\r100%\r\ndone\n", "50%\n100%\ndone\n"),
            (b"bell\x07 null\0 tab\t", "bell null tab\t"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"\x1b\x1b[2Jx", "x"),
        ];
        for (bytes, text) in table {
            assert_eq!(plain(bytes), text);
        }
    }

    #[test]
    fn the_tail_is_bounded_and_whole() {
        assert_eq!(tail("one\ntwo\n", 100), "one\ntwo\n");
        assert_eq!(tail("one\ntwo\nthree\n", 9), "three\n");
        assert_eq!(tail("one\ntwo\nthree\n", 10), "two\nthree\n");
        assert_eq!(tail("äöü", 3), "ü");
        assert_eq!(tail("longline\n", 4), "ine\n");
        assert_eq!(tail("", 0), "");
    }

    #[test]
    fn ids_are_found_in_headers_json_and_prose() {
        let text = "X-Request-Id: 7f3a-11\n{\"correlationId\":\"c0ffee42\"} {\\\"request_id\\\": \\\"abcd-ef\\\"}\n\
            traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n\
            failed for req_8f2aQ. X-Request-Id: 7f3a-11 trace_id=99aa88\nrequest id: none\nthe request identity\n";
        assert_eq!(
            correlation_ids(text, 50),
            [
                "7f3a-11",
                "c0ffee42",
                "abcd-ef",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "req_8f2aQ",
                "99aa88",
                "none",
            ]
        );
        assert_eq!(correlation_ids(text, 2).len(), 2);
    }
}
