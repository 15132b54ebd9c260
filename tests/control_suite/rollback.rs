//! Rolling back: where it goes, and what never comes back by itself.

use serde_json::json;

use crate::support::{Repo, SIGNATURE, can_seal, reasons};

fn back(repo: &Repo, to: &[&str]) -> crate::support::Ran {
    let mut args = vec!["rollback", SIGNATURE, "--reason", "it annoys people"];
    args.extend(to);
    repo.run(&args)
}

#[test]
fn back_and_back_again_and_forward() {
    if !can_seal() {
        return;
    }
    let repo = Repo::direct();
    let nothing = back(&repo, &[]).expect(1);
    assert!(
        reasons(&nothing).contains("nothing was ever promoted"),
        "{nothing}"
    );

    let (defaults, a, b) = (
        repo.program("defaults"),
        repo.program("a"),
        repo.program("b"),
    );
    repo.night("night-1", &defaults, &a);
    repo.promote("night-1").expect(0);
    repo.night("night-2", &a, &b);
    repo.promote("night-2").expect(0);

    let first = back(&repo, &[]).expect(0);
    assert_eq!(first["statement"]["kind"], "rollback");
    assert_eq!(first["statement"]["to"], a.to_string());
    assert_eq!(first["statement"]["counter"], 3);
    let log = repo.git(&["log", "-1", "--format=%B", "proofline/control"]);
    assert!(
        log.starts_with("rollback SelectTool.v1: ") && log.contains("it annoys people"),
        "{log}"
    );
    repo.show(&[]).expect(0);
    repo.show(&["2"]).expect(0);

    // Again: on to what was before that, never to what was rolled back.
    let second = back(&repo, &[]).expect(0);
    assert_eq!(second["statement"]["to"], defaults.to_string());
    let before = repo.state();
    let third = back(&repo, &[]).expect(1);
    assert!(
        reasons(&third).contains("everything that was in force before"),
        "{third}"
    );
    for (to, why) in [
        (b.to_string(), "rolled back by statement 3"),
        (a.to_string(), "rolled back by statement 4"),
        (defaults.to_string(), "is in force"),
        ("2".to_owned(), "rolled back by statement 3"),
        ("9".to_owned(), "no statement 9"),
        (
            proofline::id::Digest::of(b"x").to_string(),
            "was never in force",
        ),
    ] {
        let refused = back(&repo, &["--to", &to]).expect(1);
        assert!(reasons(&refused).contains(why), "{to}: {refused}");
    }
    assert_eq!(back(&repo, &["--to", "latest"]).code, 2);
    assert_eq!(repo.run(&["rollback", SIGNATURE, "--reason", " "]).code, 2);
    assert_eq!(repo.state(), before);

    // What a person took back, a night may only propose.
    repo.night("night-3", &defaults, &a);
    let proposed = repo.promote("night-3").expect(0);
    assert_eq!(proposed["outcome"], "proposed");
    assert!(
        proposed["marks"][0]
            .as_str()
            .is_some_and(|mark| mark.contains("rolled back by statement 4")),
        "{proposed}"
    );
    for line in proposed["commands"].as_array().expect("commands") {
        assert!(
            repo.shell(line.as_str().expect("a command"))
                .status
                .success()
        );
    }
    repo.show(&[]).expect(0);
    // Promoted again on new evidence, it may be named; and 0 is what was there before everything.
    let c = repo.program("c");
    repo.night("night-4", &a, &c);
    repo.promote("night-4").expect(0);
    let named = back(&repo, &["--to", &a.to_string()]).expect(0);
    assert_eq!(named["statement"]["to"], a.to_string());
    let named = back(&repo, &["--to", "0"]).expect(0);
    assert_eq!(named["statement"]["to"], defaults.to_string());
    let list = repo.run(&["promotions", "list", SIGNATURE]).expect(0);
    assert_eq!(list["promotions"].as_array().map(Vec::len), Some(8));
    for counter in 1..=8 {
        repo.show(&[&counter.to_string()]).expect(0);
    }
}

#[test]
fn the_first_promotion_goes_back_to_the_defaults() {
    if !can_seal() {
        return;
    }
    let repo = Repo::direct();
    let (defaults, a) = (repo.program("defaults"), repo.program("a"));
    repo.night("night-1", &defaults, &a);
    repo.promote("night-1").expect(0);
    let proposed = back(&repo, &["--propose"]).expect(0);
    assert_eq!(
        (&proposed["outcome"], &proposed["statement"]["kind"]),
        (&json!("proposed"), &json!("rollback"))
    );
    let done = back(&repo, &[]).expect(0);
    assert_eq!(done["statement"]["to"], defaults.to_string());
    // The run that promoted it does not bring it back when it is resumed.
    let late = repo.promote("night-1").expect(1);
    assert!(reasons(&late).contains("rolled back to"), "{late}");
}
