//! Commit signatures against git, ssh-keygen, gpg and gpgsm.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use proofline::seal::PublicKey;
use proofline::seal::allowed_signers::{self, AllowedSigner};
use proofline::seal::commit::{
    self, CommitFormat, CommitSignError, CommitSigner, ConfigError, GitVerifyError, ObjectFormat,
    SignedCommit, SigningConfig,
};
use proofline::seal::keys;
use proofline::seal::sshsig::SealError;
use tempfile::TempDir;

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("skipped: {program} is not installed");
    }
    there
}

/// A repository with nobody's configuration but its own.
struct Repo {
    home: TempDir,
}

impl Repo {
    fn new(format: ObjectFormat) -> Self {
        let home = tempfile::Builder::new()
            .prefix("pl")
            .tempdir_in("/tmp")
            .unwrap();
        let repo = Self { home };
        let name = match format {
            ObjectFormat::Sha1 => "sha1",
            ObjectFormat::Sha256 => "sha256",
        };
        std::fs::create_dir(repo.dir()).unwrap();
        repo.git(&[
            "init",
            "-q",
            "-b",
            "main",
            &format!("--object-format={name}"),
        ]);
        repo.git(&["config", "user.name", "A Tester"]);
        repo.git(&["config", "user.email", "a@example.com"]);
        repo
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("repo")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap());
        command
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        command
            .env("GIT_AUTHOR_DATE", "2026-11-21T09:30:00Z")
            .env("GIT_COMMITTER_DATE", "2026-11-21T09:30:00Z");
        command.env("GNUPGHOME", self.gnupg());
        command.current_dir(self.dir());
        command
    }

    fn try_git(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command("git")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    fn git_with(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let done = self.try_git(args, input);
        assert!(
            done.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        done.stdout
    }

    fn git(&self, args: &[&str]) -> String {
        String::from_utf8(self.git_with(args, b""))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn raw(&self, commit: &str) -> Vec<u8> {
        self.git_with(&["cat-file", "commit", commit], b"")
    }

    /// Write a commit object, as it is.
    fn write(&self, raw: &[u8]) -> String {
        let id = self.git_with(&["hash-object", "-t", "commit", "-w", "--stdin"], raw);
        String::from_utf8(id).unwrap().trim().to_owned()
    }

    fn git_verifies(&self, commit: &str) -> bool {
        self.try_git(&["verify-commit", commit], b"")
            .status
            .success()
    }

    fn ssh_key(&self, name: &str) -> (PathBuf, PublicKey) {
        let path = self.home.path().join(name);
        let key = keys::generate(&path, name).unwrap();
        (path, key)
    }

    fn trust(&self, key: &PublicKey) {
        let path = self.home.path().join("allowed");
        let signer = AllowedSigner::new(["a@example.com"], key.clone(), ["git"]);
        std::fs::write(&path, allowed_signers::render(&[signer]).unwrap()).unwrap();
        self.git(&[
            "config",
            "gpg.ssh.allowedSignersFile",
            path.to_str().unwrap(),
        ]);
    }

    fn gnupg(&self) -> PathBuf {
        self.home.path().join("g")
    }

    /// A wrapper that runs a GnuPG program in this test's home, whoever starts it.
    fn wrapper(&self, program: &str) -> PathBuf {
        let home = self.gnupg();
        std::fs::create_dir_all(&home).unwrap();
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
        let path = self.home.path().join(format!("my {program}"));
        std::fs::write(
            &path,
            format!(
                "#!/bin/sh\nGNUPGHOME='{}' exec {program} \"$@\"\n",
                home.display()
            ),
        )
        .unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    fn run(&self, program: &str, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        let mut child = self
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let _ = child.stdin.take().unwrap().write_all(input);
        let done = child.wait_with_output().unwrap();
        if !done.status.success() {
            println!(
                "{program} {args:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        done.status.success().then_some(done.stdout)
    }
}

impl Drop for Repo {
    fn drop(&mut self) {
        // Only the agents of this test's own GnuPG home.
        if self.gnupg().exists() {
            let _ = self.command("gpgconf").args(["--kill", "all"]).output();
        }
    }
}

/// Put a signature into a commit, as git does.
fn with_header(payload: &[u8], format: ObjectFormat, armored: &str) -> Vec<u8> {
    let at = payload.windows(2).position(|w| w == b"\n\n").unwrap() + 1;
    let mut raw = payload[..at].to_vec();
    let value = armored.trim_end().replace('\n', "\n ");
    raw.extend_from_slice(format!("{} {value}\n", format.header()).as_bytes());
    raw.extend_from_slice(&payload[at..]);
    raw
}

fn parse(raw: &[u8], format: ObjectFormat) -> SignedCommit {
    SignedCommit::parse(raw, format)
        .unwrap()
        .expect("it is signed")
}

const FORMATS: [ObjectFormat; 2] = [ObjectFormat::Sha1, ObjectFormat::Sha256];

#[test]
fn commits_signed_by_git_verify_here() {
    if !has("git") {
        return;
    }
    for format in FORMATS {
        let repo = Repo::new(format);
        let (path, key) = repo.ssh_key("key");
        let (_, other) = repo.ssh_key("other");
        repo.trust(&key);
        repo.git(&["config", "gpg.format", "ssh"]);
        repo.git(&["config", "user.signingKey", path.to_str().unwrap()]);
        let message =
            "a subject\n\nA body with\n\na gap and\ngpgsig a line that only looks like a header\n";
        repo.git(&["commit", "-q", "-S", "--allow-empty", "-m", message]);
        let head = repo.git(&["rev-parse", "HEAD"]);
        assert!(repo.git_verifies(&head));

        let raw = repo.raw(&head);
        let signed = parse(&raw, format);
        assert_eq!(signed.format, CommitFormat::Ssh);
        assert_eq!(signed.verify_ssh(&[other.clone(), key.clone()]), Ok(&key));
        assert!(matches!(
            signed.verify_ssh(std::slice::from_ref(&other)),
            Err(SealError::WrongKey { .. })
        ));
        assert!(signed.verify_ssh(&[]).is_err());

        // Any other byte, in the headers, the seal or the message: refused by both.
        let step = raw.len() / 60;
        for at in (0..raw.len()).step_by(step) {
            let mut tampered = raw.clone();
            tampered[at] ^= 1;
            let ours = SignedCommit::parse(&tampered, format).is_ok_and(|signed| {
                signed.is_some_and(|s| s.verify_ssh(std::slice::from_ref(&key)).is_ok())
            });
            assert!(!ours, "byte {at}");
            let written = repo.try_git(
                &[
                    "hash-object",
                    "-t",
                    "commit",
                    "-w",
                    "--literally",
                    "--stdin",
                ],
                &tampered,
            );
            if written.status.success() {
                let id = String::from_utf8(written.stdout).unwrap();
                assert!(!repo.git_verifies(id.trim()), "byte {at}");
            }
        }

        // An unsigned one, and one signed for the other object format.
        repo.git(&[
            "commit",
            "-q",
            "--allow-empty",
            "--no-gpg-sign",
            "-m",
            "plain",
        ]);
        assert_eq!(SignedCommit::parse(&repo.raw("HEAD"), format), Ok(None));
        let other_format = if format == ObjectFormat::Sha1 {
            ObjectFormat::Sha256
        } else {
            ObjectFormat::Sha1
        };
        assert_eq!(SignedCommit::parse(&raw, other_format), Ok(None));
    }
}

#[test]
fn merges_with_a_signed_tag_inside_verify_here() {
    if !has("git") {
        return;
    }
    let repo = Repo::new(ObjectFormat::Sha1);
    let (path, key) = repo.ssh_key("key");
    repo.trust(&key);
    repo.git(&["config", "gpg.format", "ssh"]);
    repo.git(&["config", "user.signingKey", path.to_str().unwrap()]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "base"]);
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "side"]);
    repo.git(&["tag", "-s", "-m", "a tag", "v1"]);
    repo.git(&["checkout", "-q", "main"]);
    repo.git(&["merge", "-q", "--no-ff", "-S", "-m", "merge", "v1"]);
    let raw = repo.raw("HEAD");
    assert!(
        String::from_utf8_lossy(&raw).contains("\nmergetag "),
        "git embeds the tag"
    );
    let signed = parse(&raw, ObjectFormat::Sha1);
    assert_eq!(signed.verify_ssh(std::slice::from_ref(&key)), Ok(&key));
    assert!(repo.git_verifies("HEAD"));
}

#[test]
fn commits_signed_here_verify_in_git() {
    if !has("git") {
        return;
    }
    for format in FORMATS {
        let repo = Repo::new(format);
        let (path, key) = repo.ssh_key("key");
        repo.trust(&key);
        repo.git(&["commit", "-q", "--allow-empty", "-m", "plain"]);
        let payload = repo.raw("HEAD");
        let home = Some(repo.home.path().to_owned());
        for signing_key in [path.to_str().unwrap(), "~/key", "~/key.pub"] {
            let signer = CommitSigner::from_config(&SigningConfig {
                format: Some("ssh".into()),
                signing_key: Some(signing_key.into()),
                home: home.clone(),
                ..Default::default()
            });
            let armored = signer.unwrap().sign(&payload).unwrap();
            let raw = with_header(&payload, format, &armored);
            assert!(repo.git_verifies(&repo.write(&raw)));
            let signed = parse(&raw, format);
            assert_eq!(signed.payload, payload);
            assert_eq!(signed.verify_ssh(std::slice::from_ref(&key)), Ok(&key));
        }
        let relative = CommitSigner::from_config(&SigningConfig {
            format: Some("ssh".into()),
            signing_key: Some("../key".into()),
            dir: Some(repo.dir()),
            ssh_program: Some("ssh-keygen".into()),
            ..Default::default()
        });
        assert!(relative.unwrap().sign(&payload).is_ok());
        assert!(CommitSigner::from_ssh_key(&path).sign(&payload).is_ok());
    }
}

#[test]
fn headers_that_can_be_read_twice_are_refused() {
    if !has("git") {
        return;
    }
    let repo = Repo::new(ObjectFormat::Sha1);
    let (path, key) = repo.ssh_key("key");
    repo.git(&["commit", "-q", "--allow-empty", "-m", "plain"]);
    let payload = repo.raw("HEAD");
    let armored = CommitSigner::from_ssh_key(&path).sign(&payload).unwrap();
    let good = with_header(&payload, ObjectFormat::Sha1, &armored);
    let text = String::from_utf8(good.clone()).unwrap();

    // A commit with both headers, each over the same payload, as git writes when it converts.
    let both = with_header(&good, ObjectFormat::Sha256, &armored);
    for format in FORMATS {
        assert_eq!(
            parse(&both, format).verify_ssh(std::slice::from_ref(&key)),
            Ok(&key)
        );
    }
    for (raw, reason) in [
        (with_header(&good, ObjectFormat::Sha1, &armored), "repeated"),
        (
            text.replacen("\n\n", "\ngpgsigx evil\n\n", 1).into_bytes(),
            "unknown header",
        ),
        (
            text.replacen("\n\n", "\ngpgsig\n\n", 1).into_bytes(),
            "without a value",
        ),
        (payload_with(&payload, "gpgsig hello"), "unknown format"),
    ] {
        let error = SignedCommit::parse(&raw, ObjectFormat::Sha1).unwrap_err();
        assert!(error.reason.contains(reason), "{reason}: {error}");
    }
    // A header after the signature is signed too, wherever it stands.
    let after = text.replacen("\n\n", "\nextra header\n\n", 1);
    assert!(
        parse(after.as_bytes(), ObjectFormat::Sha1)
            .verify_ssh(&[key])
            .is_err()
    );
    for cut in 0..good.len() {
        let _ = SignedCommit::parse(&good[..cut], ObjectFormat::Sha1);
    }
}

fn payload_with(payload: &[u8], header: &str) -> Vec<u8> {
    let text = String::from_utf8(payload.to_vec()).unwrap();
    text.replacen("\n\n", &format!("\n{header}\n\n"), 1)
        .into_bytes()
}

#[test]
fn openpgp_commits_go_through_gpg_and_git() {
    if !has("git") || !has("gpg") {
        return;
    }
    let repo = Repo::new(ObjectFormat::Sha1);
    let gpg = repo.wrapper("gpg");
    let made = repo.run(
        "gpg",
        &[
            "--batch",
            "--passphrase",
            "",
            "--quick-generate-key",
            "A Tester <a@example.com>",
            "ed25519",
            "sign",
            "never",
        ],
        b"",
    );
    if made.is_none() {
        println!("skipped: gpg makes no key here");
        return;
    }
    let listed = repo
        .run("gpg", &["--batch", "--with-colons", "-K"], b"")
        .unwrap();
    let listed = String::from_utf8(listed).unwrap();
    let fingerprint = listed
        .lines()
        .find_map(|l| l.strip_prefix("fpr:::::::::"))
        .unwrap()
        .trim_matches(':')
        .to_owned();

    repo.git(&["config", "gpg.program", gpg.to_str().unwrap()]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "plain"]);
    let payload = repo.raw("HEAD");
    let config = SigningConfig {
        committer: Some("A Tester <a@example.com>".into()),
        openpgp_program: Some(gpg.to_str().unwrap().into()),
        ..Default::default()
    };
    let by_id = SigningConfig {
        signing_key: Some(fingerprint.clone()),
        ..config.clone()
    };
    for config in [&config, &by_id] {
        let armored = CommitSigner::from_config(config)
            .unwrap()
            .sign(&payload)
            .unwrap();
        let raw = with_header(&payload, ObjectFormat::Sha1, &armored);
        let commit = repo.write(&raw);
        assert!(repo.git_verifies(&commit));
        assert_eq!(
            parse(&raw, ObjectFormat::Sha1).format,
            CommitFormat::OpenPgp
        );
        assert!(parse(&raw, ObjectFormat::Sha1).verify_ssh(&[]).is_err());
        let verified = commit::verify_with_git(&repo.dir(), &commit).unwrap();
        assert_eq!(verified.fingerprint, fingerprint);
        assert_eq!(verified.primary_fingerprint, fingerprint);
        assert_eq!(verified.signer, "A Tester <a@example.com>");
        assert_eq!(verified.trust.as_deref(), Some("ultimate"));

        let tampered = String::from_utf8(raw).unwrap().replace("plain", "plane");
        let refused = commit::verify_with_git(&repo.dir(), &repo.write(tampered.as_bytes()));
        assert!(
            matches!(refused, Err(GitVerifyError::Refused { .. })),
            "{refused:?}"
        );
    }
    let unsigned = repo.git(&["rev-parse", "HEAD"]);
    assert!(commit::verify_with_git(&repo.dir(), &unsigned).is_err());
    assert!(commit::verify_with_git(&repo.dir(), "HEAD").is_err());

    let nobody = SigningConfig {
        signing_key: Some("nobody@example.org".into()),
        ..config
    };
    let error = CommitSigner::from_config(&nobody)
        .unwrap()
        .sign(&payload)
        .unwrap_err();
    let CommitSignError::Refused { key, output, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(key, "nobody@example.org");
    assert!(output.contains("No secret key"), "{output}");
}

#[test]
fn x509_commits_go_through_gpgsm_and_git() {
    if !has("git") || !has("gpgsm") {
        return;
    }
    let repo = Repo::new(ObjectFormat::Sha1);
    let gpgsm = repo.wrapper("gpgsm");
    let recipe = "Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign\nSerial: random\nName-DN: CN=A Tester\nName-Email: a@example.com\nNot-After: 2060-01-01\n";
    let recipe_file = repo.home.path().join("recipe");
    std::fs::write(&recipe_file, recipe).unwrap();
    let recipe_file = recipe_file.to_str().unwrap();
    let no_passphrase = [
        "--batch",
        "--pinentry-mode",
        "loopback",
        "--passphrase-fd",
        "0",
    ];
    let make = [&no_passphrase[..], &["--armor", "--gen-key", recipe_file]].concat();
    let Some(certificate) = repo.run("gpgsm", &make, b"\n") else {
        println!("skipped: gpgsm makes no key here");
        return;
    };
    repo.run("gpgsm", &["--batch", "--import"], &certificate)
        .unwrap();
    let listed = repo
        .run("gpgsm", &["--batch", "--with-colons", "-K"], b"")
        .unwrap();
    let listed = String::from_utf8(listed).unwrap();
    let fingerprint = listed
        .lines()
        .find_map(|l| l.strip_prefix("fpr:::::::::"))
        .unwrap()
        .split(':')
        .next()
        .unwrap()
        .to_owned();
    std::fs::write(
        repo.gnupg().join("trustlist.txt"),
        format!("{fingerprint} S relax\n"),
    )
    .unwrap();
    std::fs::write(repo.gnupg().join("gpgsm.conf"), "disable-crl-checks\n").unwrap();
    let _ = repo
        .command("gpgconf")
        .args(["--reload", "gpg-agent"])
        .output();

    repo.git(&["config", "gpg.format", "x509"]);
    repo.git(&["config", "gpg.x509.program", gpgsm.to_str().unwrap()]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "plain"]);
    let payload = repo.raw("HEAD");
    let signer = CommitSigner::from_config(&SigningConfig {
        format: Some("x509".into()),
        signing_key: Some(fingerprint.clone()),
        x509_program: Some(gpgsm.to_str().unwrap().into()),
        ..Default::default()
    });
    let armored = signer.unwrap().sign(&payload).unwrap();
    let raw = with_header(&payload, ObjectFormat::Sha1, &armored);
    assert_eq!(parse(&raw, ObjectFormat::Sha1).format, CommitFormat::X509);
    let commit = repo.write(&raw);
    let verified = commit::verify_with_git(&repo.dir(), &commit).unwrap();
    assert_eq!(verified.primary_fingerprint, fingerprint);
    assert!(verified.signer.contains("A Tester"), "{verified:?}");
    let tampered = String::from_utf8(raw).unwrap().replace("plain", "plane");
    assert!(commit::verify_with_git(&repo.dir(), &repo.write(tampered.as_bytes())).is_err());
}

#[test]
fn configurations_that_cannot_sign_say_why() {
    let config = |format: &str, key: Option<&str>, command: Option<&str>| SigningConfig {
        format: Some(format.into()),
        signing_key: key.map(str::to_owned),
        ssh_default_key_command: command.map(str::to_owned),
        ..Default::default()
    };
    for (config, reason) in [
        (config("pgp", None, None), "openpgp, x509 and ssh"),
        (config("ssh", None, None), "user.signingKey"),
        (config("ssh", None, Some("ssh-add -L")), "is not run here"),
        (config("openpgp", None, None), "key id"),
        (
            config("ssh", Some("key::nonsense"), None),
            "not one public key line",
        ),
    ] {
        let error: ConfigError = CommitSigner::from_config(&config).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let missing = CommitSigner::from_ssh_key(Path::new("/nonexistent/key"))
        .sign(b"x")
        .unwrap_err();
    assert!(missing.to_string().contains("no key at"), "{missing}");
}
