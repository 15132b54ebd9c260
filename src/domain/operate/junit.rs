//! Which tests failed, from a JUnit XML report.
//!
//! The report comes from a command that may be hostile or broken. A document
//! type, and any entity that XML itself does not define, is refused, so nothing
//! expands and nothing is fetched; depth, size and counts are bounded.

use std::collections::BTreeSet;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::command::{FAILING_TESTS_MAX, TestCounts};

/// Largest report, in bytes.
pub const REPORT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Deepest nesting of elements.
pub const DEPTH_MAX: usize = 32;
/// Longest test id, in characters.
const ID_CHARS_MAX: usize = 300;

/// What a report says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many tests, counted one by one: the totals that a report claims are not used.
    pub counts: TestCounts,
    /// Tests that failed, as `class::name`, in order, each once, at most [`FAILING_TESTS_MAX`].
    pub failing: Vec<String>,
}

/// Why a report cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JunitError {
    /// It is larger than [`REPORT_BYTES_MAX`].
    #[error("it has {bytes} bytes; at most {REPORT_BYTES_MAX} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not well-formed, or not UTF-8.
    #[error("it is not well-formed XML in UTF-8, at byte {at}: {reason}")]
    Malformed {
        /// Where.
        at: u64,
        /// What the parser says.
        reason: String,
    },
    /// It has something that no test report needs.
    #[error("it has {what}, at byte {at}, which is refused")]
    Refused {
        /// What.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// It is XML of another kind.
    #[error("it is not a JUnit report: its root is `{root}`")]
    NotJunit {
        /// The root element.
        root: String,
    },
}

/// Read a report.
pub fn parse(bytes: &[u8]) -> Result<Report, JunitError> {
    if bytes.len() > REPORT_BYTES_MAX {
        return Err(JunitError::TooLarge { bytes: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| JunitError::Malformed {
        at: error.valid_up_to() as u64,
        reason: "it is not UTF-8".to_owned(),
    })?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut found = Found::default();
    loop {
        let at = reader.buffer_position();
        let malformed = |reason: String| JunitError::Malformed { at, reason };
        let refused = |what| JunitError::Refused { what, at };
        match reader
            .read_event()
            .map_err(|error| malformed(error.to_string()))?
        {
            Event::Start(element) => found.open(&element, at)?,
            Event::Empty(element) => {
                found.open(&element, at)?;
                found.close();
            }
            Event::End(_) => found.close(),
            Event::DocType(_) => return Err(refused("a document type")),
            Event::GeneralRef(reference) => {
                let known = reference.is_char_ref()
                    || matches!(&*reference, "lt" | "gt" | "amp" | "quot" | "apos");
                if !known {
                    return Err(refused("an entity"));
                }
            }
            Event::Eof => return found.finish(at),
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_) => {}
        }
    }
}

#[derive(Debug, Default)]
struct Found {
    /// The names of the open elements; a test case with its id.
    open: Vec<Element>,
    has_root: bool,
    report: Report,
    named: BTreeSet<String>,
}

#[derive(Debug)]
enum Element {
    Suite {
        name: Option<String>,
    },
    Case {
        id: String,
        failed: bool,
        skipped: bool,
    },
    Other,
}

impl Found {
    fn open(&mut self, element: &BytesStart<'_>, at: u64) -> Result<(), JunitError> {
        if self.open.len() == DEPTH_MAX {
            return Err(JunitError::Refused {
                what: "elements nested too deeply",
                at,
            });
        }
        let local = element.local_name().as_ref().to_owned();
        if self.open.is_empty() {
            let is_junit = matches!(local.as_str(), "testsuites" | "testsuite");
            if self.has_root || !is_junit {
                return Err(JunitError::NotJunit { root: local });
            }
            self.has_root = true;
        }
        let opened = match local.as_str() {
            "testsuite" => Element::Suite {
                name: attribute(element, "name", at)?,
            },
            "testcase" => Element::Case {
                id: self.case_id(element, at)?,
                failed: false,
                skipped: false,
            },
            other => {
                // Failures count only right inside a test case: what flaky runs
                // report besides (`flakyFailure`, `rerunFailure`) ended well.
                if let Some(Element::Case {
                    failed, skipped, ..
                }) = self.open.last_mut()
                {
                    *failed |= matches!(other, "failure" | "error");
                    *skipped |= other == "skipped";
                }
                Element::Other
            }
        };
        self.open.push(opened);
        Ok(())
    }

    fn case_id(&self, element: &BytesStart<'_>, at: u64) -> Result<String, JunitError> {
        let name = attribute(element, "name", at)?.unwrap_or_else(|| "(no name)".to_owned());
        let class = match attribute(element, "classname", at)? {
            Some(class) => Some(class),
            None => self.open.iter().rev().find_map(|open| match open {
                Element::Suite { name } => name.clone(),
                _ => None,
            }),
        };
        let id = match class.filter(|class| !class.is_empty()) {
            Some(class) => format!("{class}::{name}"),
            None => name,
        };
        let plain = id.chars().map(|c| if c.is_control() { ' ' } else { c });
        Ok(plain.take(ID_CHARS_MAX).collect())
    }

    fn close(&mut self) {
        let Some(Element::Case {
            id,
            failed,
            skipped,
        }) = self.open.pop()
        else {
            return;
        };
        let counts = &mut self.report.counts;
        counts.total += 1;
        counts.failed += u64::from(failed);
        counts.skipped += u64::from(skipped && !failed);
        if failed && self.report.failing.len() < FAILING_TESTS_MAX && self.named.insert(id.clone())
        {
            self.report.failing.push(id);
        }
    }

    fn finish(self, at: u64) -> Result<Report, JunitError> {
        if !self.has_root || !self.open.is_empty() {
            return Err(JunitError::Malformed {
                at,
                reason: "it ends too early".to_owned(),
            });
        }
        Ok(self.report)
    }
}

fn attribute(element: &BytesStart<'_>, name: &str, at: u64) -> Result<Option<String>, JunitError> {
    for attribute in element.attributes() {
        let malformed = |reason: String| JunitError::Malformed { at, reason };
        let attribute = attribute.map_err(|error| malformed(error.to_string()))?;
        if attribute.key.as_ref() == name {
            // Any entity but XML's own is an error here.
            let value = attribute
                .normalized_value(quick_xml::XmlVersion::Implicit1_0)
                .map_err(|error| malformed(error.to_string()))?;
            return Ok(Some(value.into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_errors_and_skips_are_counted_one_by_one() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="99" failures="0">
  <testsuite name="shop" tests="5">
    <properties><property name="x" value="y"/></properties>
    <testcase classname="shop.Cart" name="adds"/>
    <testcase classname="shop.Cart" name="removes &lt;all&gt;"><failure message="no">trace &#65; <![CDATA[<boom>]]></failure></testcase>
    <testcase name="pays"><error/></testcase>
    <testcase name="ships"><skipped/></testcase>
    <testcase name="flaky"><flakyFailure message="once"/></testcase>
    <testcase classname="shop.Cart" name="removes &lt;all&gt;"><failure/></testcase>
  </testsuite>
</testsuites>"#;
        let report = parse(xml.as_bytes()).expect("it is a report");
        assert_eq!(
            report.counts,
            TestCounts {
                total: 6,
                failed: 3,
                skipped: 1
            }
        );
        assert_eq!(report.failing, ["shop.Cart::removes <all>", "shop::pays"]);
        assert_eq!(
            parse(b"<testsuite/>").expect("an empty one"),
            Report::default()
        );
    }

    #[test]
    fn the_names_of_failing_tests_are_bounded() {
        let long = "x".repeat(1_000);
        let cases: String = (0..1_000)
            .map(|index| format!("<testcase name='t{index}{long}'><failure/></testcase>"))
            .collect();
        let report =
            parse(format!("<testsuite>{cases}</testsuite>").as_bytes()).expect("it is a report");
        assert_eq!(report.counts.failed, 1_000);
        assert_eq!(report.failing.len(), FAILING_TESTS_MAX);
        assert!(
            report
                .failing
                .iter()
                .all(|id| id.chars().count() <= ID_CHARS_MAX)
        );
    }

    #[test]
    fn hostile_and_broken_reports_are_refused() {
        let lol = r#"<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><testsuite name="&b;"/>"#;
        let external = r#"<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><testsuite/>"#;
        let deep = format!(
            "<testsuite>{}{}</testsuite>",
            "<a>".repeat(100),
            "</a>".repeat(100)
        );
        let table: [(&[u8], &str); 14] = [
            (lol.as_bytes(), "document type"),
            (external.as_bytes(), "document type"),
            (b"<testsuite>&bomb;</testsuite>", "entity"),
            (
                b"<testsuite><testcase name='&bomb;'/></testsuite>",
                "well-formed",
            ),
            (deep.as_bytes(), "nested too deeply"),
            (b"", "too early"),
            (b"   ", "too early"),
            (b"<testsuite>", "too early"),
            (b"<testsuite></testcase>", "well-formed"),
            (
                b"<testsuite><testcase name='a' name='b'/></testsuite>",
                "well-formed",
            ),
            (b"<html/>", "root is `html`"),
            (b"<testsuite/><testsuite/>", "root is `testsuite`"),
            (b"\xff<testsuite/>", "not UTF-8"),
            (b"<testsuite", "well-formed"),
        ];
        for (xml, reason) in table {
            let error = parse(xml)
                .expect_err(&String::from_utf8_lossy(xml))
                .to_string();
            assert!(error.contains(reason), "{error} does not say {reason}");
        }
        let large = vec![b' '; REPORT_BYTES_MAX + 1];
        assert!(matches!(parse(&large), Err(JunitError::TooLarge { .. })));
    }
}
