//! The classifier as a whole: the same to the bit, round trips, refusals, honest confidence.

use std::num::NonZeroUsize;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

/// Rows of three labels with words of their own and words in common.
fn rows(per_label: usize) -> Vec<(String, String)> {
    let kinds = [
        (
            "play",
            [
                "play some Miles Davis",
                "put on a jazz record",
                "I want to hear that song",
                "turn up the music",
            ],
        ),
        (
            "weather",
            [
                "will it rain in Berlin",
                "how cold is it outside",
                "forecast for tomorrow",
                "is it sunny in Rome",
            ],
        ),
        (
            "book",
            [
                "book a table for two",
                "reserve dinner at Noma",
                "I need a table tonight",
                "get us seats at a bistro",
            ],
        ),
    ];
    let places = ["Oslo", "Lima", "Kyoto", "Accra", "Quito", "Tunis", "Perth"];
    let mut rows = Vec::new();
    for number in 0..per_label {
        for (label, texts) in kinds {
            rows.push((
                format!(
                    "{} please {} {number}",
                    texts[number % 4],
                    places[number % 7]
                ),
                label.to_owned(),
            ));
        }
    }
    rows
}

fn fitted(knobs: &Knobs) -> Model {
    fit(&rows(30), knobs, 7).expect("three labels with text can be fitted")
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("tests ask for at least one thread")
}

#[test]
fn the_model_is_the_same_for_any_thread_count_and_row_order() {
    let mut rows = rows(60);
    let knobs = Knobs::default();
    let bytes = fit_on_threads(&rows, &knobs, 7, threads(1))
        .expect("fits")
        .to_bytes();
    for count in [2, 3, 16] {
        assert_eq!(
            fit_on_threads(&rows, &knobs, 7, threads(count))
                .expect("fits")
                .to_bytes(),
            bytes,
            "{count} threads"
        );
    }
    rows.reverse();
    rows.swap(3, 90);
    assert_eq!(
        fit(&rows, &knobs, 7).expect("fits").to_bytes(),
        bytes,
        "another order"
    );
    assert_ne!(
        fit(&rows, &knobs, 8).expect("fits").to_bytes(),
        bytes,
        "another seed"
    );
    assert_ne!(
        fit(&rows[1..], &knobs, 7).expect("fits").to_bytes(),
        bytes,
        "a row less"
    );
}

/// Pinned: a change of platform, compiler or code that changes a model shows here. When the code changes on purpose, so does the pin, and with it
/// the strategy's version.
#[test]
fn the_bytes_are_pinned() {
    let digest: String = Sha256::digest(fitted(&Knobs::default()).to_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        digest,
        "4bc7ee76245fd239db640d253ada7aa90e7b7159773562ecf6caa9964034407f"
    );
}

#[test]
fn more_labels_than_a_block_holds() {
    let rows: Vec<(String, String)> = (0..20)
        .flat_map(|l| {
            (0..6).map(move |i| (format!("word{l} more{i} text"), format!("label {l:02}")))
        })
        .collect();
    let one = fit_on_threads(&rows, &Knobs::default(), 1, threads(1)).expect("fits");
    assert_eq!(
        one.to_bytes(),
        fit_on_threads(&rows, &Knobs::default(), 1, threads(4))
            .expect("fits")
            .to_bytes()
    );
    assert_eq!(one.labels().len(), 20);
    for (text, label) in &rows {
        let prediction = one.predict(text);
        assert_eq!(
            (prediction.label, prediction.margins.len()),
            (label.as_str(), 20)
        );
    }
}

#[test]
fn a_model_read_back_answers_the_same() {
    let every_knob = Knobs {
        lowercase: false,
        fold_digits: true,
        word_ngram_max: 3,
        sublinear: false,
        class_balance: 0.5,
        none_label: Some("none".to_owned()),
        none_threshold: 0.6,
        min_document_frequency: 2,
        ..Knobs::default()
    };
    for knobs in [Knobs::default(), every_knob] {
        let model = fitted(&knobs);
        let bytes = model.to_bytes();
        let read = Model::from_bytes(&bytes).expect("what was written reads back");
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.knobs(), &knobs);
        for text in [
            "play jazz in Oslo",
            "",
            "rain?",
            "völlig unbekannt",
            "table 4 two",
        ] {
            assert_eq!(read.predict(text), model.predict(text), "{text:?}");
        }
    }
}

#[test]
fn rows_that_make_no_model_are_refused_with_the_reason() {
    let knobs = Knobs::default();
    let says = |rows: &[(&str, &str)], knobs: &Knobs| {
        fit(rows, knobs, 1)
            .expect_err("no model can be made")
            .to_string()
    };
    assert_eq!(says(&[], &knobs), "there are no training rows");
    assert!(
        says(&[("a", "x"), ("b", "x")], &knobs).contains("all training rows have the label \"x\"")
    );
    assert!(
        says(&[("", "x"), (" ", "y")], &knobs)
            .contains("no n-gram is in 1 or more of the 2 training rows")
    );
    let strict = Knobs {
        min_document_frequency: 9,
        ..Knobs::default()
    };
    assert!(says(&[("a b", "x"), ("b c", "y")], &strict).contains("no n-gram is in 9 or more"));
    let nan = Knobs {
        cost: f64::NAN,
        ..Knobs::default()
    };
    assert_eq!(
        says(&[("a", "x"), ("b", "y")], &nan),
        "knob `cost` is NaN: it must be a number from 0.0001 to 10000"
    );
}

#[test]
fn the_smallest_and_oddest_rows_are_fitted() {
    let odd = [
        vec![("a", "x"), ("b", "y")],
        vec![("", "x"), ("something", "y")],
        vec![("same text", "x"), ("same text", "y"), ("same text", "y")],
        vec![
            ("👩‍🚀🎉", "😀"),
            ("e\u{301}\u{301}\u{301}", ""),
            ("\u{0}\u{7}", "x"),
            ("नमस्ते दुनिया", "y"),
            ("日本語の文", "z"),
        ],
    ];
    for rows in odd {
        let model = fit(&rows, &Knobs::default(), 3).expect("two labels and some text are enough");
        assert_eq!(
            Model::from_bytes(&model.to_bytes())
                .expect("reads back")
                .to_bytes(),
            model.to_bytes()
        );
        for (text, _) in &rows {
            check(&model, text);
        }
    }
}

#[test]
fn any_text_gets_an_answer() {
    let model = fitted(&Knobs::default());
    let long = "a".repeat(10_000);
    let many = "play the rain table ".repeat(500);
    let marks = format!("e{}", "\u{301}".repeat(9_999));
    for text in [
        "",
        " ",
        "\0",
        "🎉🎉👩‍👩‍👧",
        "e\u{301}",
        "\u{301}",
        "ﷺ",
        "ẞß",
        "İstanbul",
        &long,
        &many,
        &marks,
    ] {
        check(&model, text);
    }
}

/// What holds for every answer.
fn check(model: &Model, text: &str) {
    let prediction = model.predict(text);
    let sum: f64 = prediction.probabilities.iter().sum();
    assert!(
        (sum - 1.0).abs() < 1e-9,
        "{text:?}: probabilities sum to {sum}"
    );
    assert!(
        (0.0..=1.0).contains(&prediction.confidence)
            && (0.0..=1.0).contains(&prediction.known_share),
        "{prediction:?}"
    );
    assert!(
        prediction.margins.iter().all(|margin| margin.is_finite()),
        "{prediction:?}"
    );
    assert!(
        model.labels().iter().any(|label| label == prediction.label) || prediction.abstained,
        "{prediction:?}"
    );
}

#[test]
fn confidence_is_high_for_the_familiar_and_nothing_for_the_unknown() {
    let model = fitted(&Knobs::default());
    let familiar = model.predict("will it rain in Berlin please");
    assert_eq!(familiar.label, "weather");
    assert!(
        familiar.confidence > 0.8 && familiar.known_share > 0.8,
        "{familiar:?}"
    );
    let unknown = model.predict("Ωψξ ЖЩЮ");
    assert_eq!((unknown.confidence, unknown.abstained), (0.0, false));
    let third = 1.0 / 3.0;
    assert_eq!(unknown.probabilities, vec![third; 3]);
    let strange = model.predict("xylophon qwertz Oslo Ωψξ");
    assert!(
        strange.confidence < 0.7 && strange.confidence < familiar.confidence,
        "{strange:?}"
    );
}

#[test]
fn labels_that_the_text_does_not_tell_get_no_confidence() {
    let rows: Vec<(String, &str)> = rows(40)
        .into_iter()
        .enumerate()
        .map(|(n, (text, _))| (text, ["x", "y"][n * 7919 / 13 % 2]))
        .collect();
    let model = fit(&rows, &Knobs::default(), 1).expect("fits");
    let mean = rows
        .iter()
        .map(|(text, _)| model.predict(text).confidence)
        .sum::<f64>()
        / rows.len() as f64;
    assert!(
        mean < 0.75,
        "{mean} on the very rows it was trained on, though labels are noise"
    );
}

#[test]
fn below_the_threshold_the_answer_is_none() {
    let knobs = |none_threshold| Knobs {
        none_label: Some("none".to_owned()),
        none_threshold,
        ..Knobs::default()
    };
    let (never, always) = (fitted(&knobs(0.0)), fitted(&knobs(1.0)));
    let text = "put on a jazz record";
    assert_eq!(
        (never.predict(text).label, never.predict(text).abstained),
        ("play", false)
    );
    assert_eq!(
        (always.predict(text).label, always.predict(text).abstained),
        ("none", true)
    );
    assert_eq!(
        always.predict(text).confidence,
        never.predict(text).confidence
    );
    assert_eq!(
        never.predict("Ωψξ").label,
        "none",
        "nothing known is none at any threshold"
    );
    let without = fitted(&Knobs {
        none_threshold: 1.0,
        ..Knobs::default()
    });
    assert_eq!(without.predict(text).label, "play");
}

#[test]
fn class_balance_lifts_the_rare_label() {
    let mut rows = rows(40);
    rows.retain(|(text, label)| label != "book" || text.ends_with(" 1") || text.ends_with(" 2"));
    let margin = |class_balance| {
        let model = fit(
            &rows,
            &Knobs {
                class_balance,
                ..Knobs::default()
            },
            1,
        )
        .expect("fits");
        model.predict("reserve seats").margins[0]
    };
    assert!(margin(1.0) > margin(0.0));
}

#[test]
fn used_memory_does_not_change_an_answer() {
    let model = fitted(&Knobs::default());
    let mut scratch = PredictScratch::default();
    for text in ["play jazz", "", "a table, two seats", "Ωψξ"] {
        assert_eq!(model.predict_with(text, &mut scratch), model.predict(text));
    }
}

/// Any bytes with a right checksum, so that the decoder behind it is met.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = Sha256::digest(&body);
    body.extend_from_slice(&checksum);
    body
}

#[test]
fn changed_and_cut_bytes_are_refused() {
    let bytes = fit(&[("a b", "x"), ("c d", "y")], &Knobs::default(), 1)
        .expect("fits")
        .to_bytes();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(Model::from_bytes(&changed).is_err(), "byte {place} changed");
        assert!(
            Model::from_bytes(&bytes[..place]).is_err(),
            "cut at {place}"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(Model::from_bytes(&longer).is_err());
    let body = &bytes[..bytes.len() - 32];
    for end in 5..body.len() {
        assert!(
            Model::from_bytes(&sealed(body[..end].to_vec())).is_err(),
            "cut at {end} and sealed again"
        );
    }
    assert_eq!(
        Model::from_bytes(b"").expect_err("empty"),
        DecodeError::NotAModel
    );
    assert_eq!(
        Model::from_bytes(b"PLLX\x02").expect_err("version"),
        DecodeError::Version(2)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// A model that is read is written as the same bytes, whatever was done to it; so there is one form only. And it answers without panic.
    #[test]
    fn what_is_read_is_what_would_be_written(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let bytes = fit(&[("a b", "x"), ("c d", "y"), ("a d", "z")], &Knobs::default(), 1).expect("fits").to_bytes();
        let mut body = bytes[..bytes.len() - 32].to_vec();
        for (place, byte) in edits {
            let place = place.index(body.len());
            body[place] = byte;
        }
        let changed = sealed(body);
        if let Ok(model) = Model::from_bytes(&changed) {
            prop_assert_eq!(model.to_bytes(), changed);
            model.predict("a b c");
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut body = b"PLLX\x01".to_vec();
        body.extend(tail);
        prop_assert!(Model::from_bytes(&body).is_err());
        prop_assert!(Model::from_bytes(&sealed(body)).is_err());
    }

    #[test]
    fn any_text_and_label_fits_and_answers(rows in prop::collection::vec((".{0,12}", "[a-c]"), 2..12), text in ".{0,40}") {
        if let Ok(model) = fit(&rows, &Knobs::default(), 1) {
            check(&model, &text);
            let read = Model::from_bytes(&model.to_bytes()).expect("reads back");
            prop_assert_eq!(read.predict(&text), model.predict(&text));
        }
    }
}
