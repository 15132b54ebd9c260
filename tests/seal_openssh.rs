//! Seals against OpenSSH: what we accept, `ssh-keygen -Y verify` accepts, and
//! the other way round but for the few places where we are stricter by intent.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use proofline::id::Digest;
use proofline::seal::allowed_signers::{self, AllowedSigner};
use proofline::seal::dsse::{self, Envelope};
use proofline::seal::keys::{self, KeyKind, KeygenError};
use proofline::seal::sign::SignError;
use proofline::seal::sshsig::{self, SealError, SshSig};
use proofline::seal::{Namespace, PublicKey, SealSigner};
use proptest::prelude::*;
use tempfile::TempDir;

const NAMESPACE: Namespace = Namespace::Promotion;
const MESSAGE: &[u8] = b"{\"a\": 1}\nand a second line\0with a zero\n";

/// Whether the test can run; says so where it can't.
fn openssh() -> bool {
    let there = Command::new("ssh-keygen").arg("-?").output().is_ok();
    if !there {
        println!("skipped: ssh-keygen is not installed");
    }
    there
}

/// A folder with a key pair, an allowed_signers file for it, and a good seal.
struct Bench {
    dir: TempDir,
    signer: SealSigner,
    armored: String,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("key");
        keys::generate(&path, "test").unwrap();
        Self::with_key(dir, &path)
    }

    fn p256() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("key");
        keygen(&["-q", "-t", "ecdsa", "-b", "256", "-N", "", "-f"], &path);
        Self::with_key(dir, &path)
    }

    fn with_key(dir: TempDir, path: &Path) -> Self {
        let signer = SealSigner::from_file(path).unwrap();
        let armored = signer.sign(NAMESPACE, MESSAGE).unwrap();
        let bench = Self {
            dir,
            signer,
            armored,
        };
        bench.allow(bench.key());
        bench
    }

    fn key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn allow(&self, key: &PublicKey) {
        let signer =
            AllowedSigner::new(["someone"], key.clone(), Namespace::ALL.map(|n| n.as_str()));
        let text = allowed_signers::render(&[signer]).unwrap();
        std::fs::write(self.path("allowed"), text).unwrap();
    }

    fn ours(&self, armored: &[u8], message: &[u8], namespace: Namespace) -> Result<(), SealError> {
        sshsig::verify(armored, message, namespace, &[self.key().clone()]).map(|_| ())
    }

    fn theirs(&self, armored: &[u8], message: &[u8], namespace: Namespace) -> bool {
        self.theirs_with(&[], armored, message, namespace)
    }

    fn theirs_with(
        &self,
        extra: &[&str],
        armored: &[u8],
        message: &[u8],
        namespace: Namespace,
    ) -> bool {
        let seal = self.path("seal");
        std::fs::write(&seal, armored).unwrap();
        let mut child = Command::new("ssh-keygen")
            .args([
                "-Y",
                "verify",
                "-I",
                "someone",
                "-n",
                namespace.as_str(),
                "-f",
            ])
            .arg(self.path("allowed"))
            .arg("-s")
            .arg(&seal)
            .args(extra)
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It may refuse before it reads.
        let _ = child.stdin.take().unwrap().write_all(message);
        child.wait().unwrap().success()
    }
}

fn keygen(args: &[&str], path: &Path) {
    let done = Command::new("ssh-keygen")
        .args(args)
        .arg(path)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The armor of a changed blob, made without the code under test.
fn rearmor(blob: &[u8]) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(blob);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(70)
        .map(|l| std::str::from_utf8(l).unwrap())
        .collect();
    format!(
        "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
        lines.join("\n")
    )
}

#[test]
fn good_and_bad_seals_are_judged_alike() {
    if !openssh() {
        return;
    }
    for bench in [Bench::new(), Bench::p256()] {
        let armored = bench.armored.as_bytes();
        let other = Bench::new();
        assert_eq!(bench.ours(armored, MESSAGE, NAMESPACE), Ok(()));
        assert!(bench.theirs(armored, MESSAGE, NAMESPACE));
        assert_eq!(
            SshSig::from_armor(armored).unwrap().to_armor(),
            bench.armored
        );

        let refused = |got: Result<(), SealError>| got.expect_err("it must be refused");
        let error = refused(bench.ours(armored, b"another", NAMESPACE));
        assert!(matches!(error, SealError::Bad { .. }), "{error}");
        assert!(!bench.theirs(armored, b"another", NAMESPACE));

        let error = refused(bench.ours(armored, MESSAGE, Namespace::Approval));
        assert!(matches!(error, SealError::WrongNamespace { .. }), "{error}");
        assert!(!bench.theirs(armored, MESSAGE, Namespace::Approval));

        let error = refused(other.ours(armored, MESSAGE, NAMESPACE));
        assert!(matches!(error, SealError::WrongKey { .. }), "{error}");
        assert!(!other.theirs(armored, MESSAGE, NAMESPACE));

        for length in 0..armored.len() {
            let cut = &armored[..length];
            let ours = bench.ours(cut, MESSAGE, NAMESPACE).is_ok();
            // Without its last end of line an armor is still whole.
            assert_eq!(ours, length + 1 == armored.len(), "cut at {length}");
            if length % 16 == 0 || length + 40 > armored.len() {
                assert_eq!(
                    ours,
                    bench.theirs(cut, MESSAGE, NAMESPACE),
                    "cut at {length}"
                );
            }
        }
        let crlf = bench.armored.replace('\n', "\r\n");
        assert_eq!(
            bench.ours(crlf.as_bytes(), MESSAGE, NAMESPACE).is_ok(),
            bench.theirs(crlf.as_bytes(), MESSAGE, NAMESPACE)
        );
        // Stricter by intent: nothing may follow the armor.
        let followed = format!("{}x", bench.armored);
        assert!(bench.ours(followed.as_bytes(), MESSAGE, NAMESPACE).is_err());
    }
}

#[test]
fn sha256_seals_verify_too() {
    if !openssh() {
        return;
    }
    let bench = Bench::new();
    let message = bench.path("message");
    std::fs::write(&message, MESSAGE).unwrap();
    let done = Command::new("ssh-keygen")
        .args([
            "-Y",
            "sign",
            "-O",
            "hashalg=sha256",
            "-n",
            NAMESPACE.as_str(),
            "-f",
        ])
        .arg(bench.signer.path())
        .arg(&message)
        .output()
        .unwrap();
    if !done.status.success() {
        println!("skipped: this ssh-keygen has no -O hashalg");
        return;
    }
    let armored = std::fs::read(bench.path("message.sig")).unwrap();
    assert!(bench.theirs(&armored, MESSAGE, NAMESPACE));
    assert_eq!(bench.ours(&armored, MESSAGE, NAMESPACE), Ok(()));
    assert!(bench.ours(&armored, b"x", NAMESPACE).is_err());
}

/// Blobs with one field replaced; each refused for its own reason.
#[test]
fn each_field_is_read_strictly() {
    if !openssh() {
        return;
    }
    let bench = Bench::new();
    let blob = SshSig::from_armor(bench.armored.as_bytes())
        .unwrap()
        .as_blob()
        .to_owned();
    let mut fields = Vec::new();
    let mut rest = &blob[10..];
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        fields.push(rest[4..4 + length].to_vec());
        rest = &rest[4 + length..];
    }
    assert_eq!(
        fields.len(),
        5,
        "key, namespace, reserved, hash, what was made"
    );
    let build = |head: &[u8], fields: &[Vec<u8>]| {
        let mut blob = head.to_vec();
        fields.iter().for_each(|field| put(&mut blob, field));
        blob
    };
    let replace = |index: usize, bytes: &[u8]| {
        let mut fields = fields.clone();
        fields[index] = bytes.to_vec();
        build(b"SSHSIG\0\0\0\x01", &fields)
    };
    assert_eq!(build(b"SSHSIG\0\0\0\x01", &fields), blob);
    let mut rsa = Vec::new();
    for field in [b"ssh-rsa".as_slice(), &[1, 0, 1], &[0x55; 256]] {
        put(&mut rsa, field);
    }
    let mut other_algorithm = Vec::new();
    put(&mut other_algorithm, b"ecdsa-sha2-nistp256");
    put(&mut other_algorithm, &[0; 64]);
    let more = |bytes: &[u8]| [bytes, b"x"].concat();
    for (blob, reason) in [
        (build(b"SSHSIH\0\0\0\x01", &fields), "SSHSIG"),
        (build(b"SSHSIG\0\0\0\x02", &fields), "version 2"),
        (build(b"SSHSIG\0\0\0\0", &fields), "version 0"),
        (replace(0, &rsa), "RUSTSEC"),
        (replace(0, &more(&fields[0])), "key data"),
        (replace(1, b""), "namespace is empty"),
        (replace(1, b"\xff"), "namespace is not text"),
        (replace(2, b"later"), "reserved"),
        (replace(3, b"md5"), "hash `md5`"),
        (
            replace(4, &other_algorithm),
            "made as `ecdsa-sha2-nistp256`",
        ),
        (replace(4, &more(&fields[4])), "left over"),
        (more(&blob), "left over"),
        (vec![], "cut short"),
    ] {
        let error = SshSig::from_blob(&blob).expect_err(reason);
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        // Of these, OpenSSH passes over the reserved field and a version that never was.
        if !["reserved", "version 0"].contains(&reason) {
            assert!(
                !bench.theirs(rearmor(&blob).as_bytes(), MESSAGE, NAMESPACE),
                "{reason}"
            );
        }
    }
}

/// Every bit of every byte, in process: no other blob passes.
#[test]
fn no_flipped_bit_passes() {
    if !openssh() {
        return;
    }
    for bench in [Bench::new(), Bench::p256()] {
        let blob = SshSig::from_armor(bench.armored.as_bytes())
            .unwrap()
            .as_blob()
            .to_owned();
        let trusted = [bench.key().clone()];
        for index in 0..blob.len() {
            // Arithmetic is slow without optimisation: of the innermost bytes two bits each.
            let bits: &[u8] = if index + 70 > blob.len() {
                &[1, 128]
            } else {
                &[1, 2, 4, 8, 16, 32, 64, 128]
            };
            for bit in bits {
                let mut flipped = blob.clone();
                flipped[index] ^= bit;
                let verdict = SshSig::from_blob(&flipped)
                    .and_then(|seal| seal.verify(MESSAGE, NAMESPACE, &trusted).map(|_| ()));
                assert!(verdict.is_err(), "byte {index} bit {bit}");
            }
        }
    }
}

#[test]
fn flipped_bytes_are_judged_alike() {
    if !openssh() {
        return;
    }
    let benches = [Bench::new(), Bench::p256()];
    let mut runner = runner(300);
    runner
        .run(
            &(
                0..2_usize,
                any::<prop::sample::Index>(),
                1..=255_u8,
                any::<bool>(),
            ),
            |(which, at, change, inside)| {
                let bench = &benches[which];
                if inside {
                    let mut blob = SshSig::from_armor(bench.armored.as_bytes())
                        .unwrap()
                        .as_blob()
                        .to_owned();
                    let at = at.index(blob.len());
                    blob[at] ^= change;
                    let armored = rearmor(&blob);
                    let ours = bench.ours(armored.as_bytes(), MESSAGE, NAMESPACE).is_ok();
                    let theirs = bench.theirs(armored.as_bytes(), MESSAGE, NAMESPACE);
                    // Stricter by intent: OpenSSH takes version 0, which is not sealed and never was.
                    let version_0 = blob[6..10] == [0; 4];
                    prop_assert!(!ours && theirs == version_0, "byte {} ^ {}", at, change);
                } else {
                    let mut armored = bench.armored.clone().into_bytes();
                    let at = at.index(armored.len());
                    armored[at] ^= change;
                    let ours = bench.ours(&armored, MESSAGE, NAMESPACE).is_ok();
                    let theirs = bench.theirs(&armored, MESSAGE, NAMESPACE);
                    // Stricter by intent: after the armor, where OpenSSH takes anything.
                    let after = at + 1 == armored.len();
                    prop_assert!(
                        ours == theirs || (after && theirs),
                        "byte {} ^ {}",
                        at,
                        change
                    );
                    // What passes is another space in the armor, never another seal.
                    prop_assert!(!ours || armored[at].is_ascii_whitespace() || armored[at] == 0x0b);
                }
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn random_messages_round_trip_and_changed_ones_are_refused_alike() {
    if !openssh() {
        return;
    }
    let bench = Bench::new();
    runner(40)
        .run(
            &(
                prop::collection::vec(any::<u8>(), 0..300),
                any::<prop::sample::Index>(),
                0..6_usize,
            ),
            |(message, at, namespace)| {
                let namespace = Namespace::ALL[namespace];
                let armored = bench.signer.sign(namespace, &message).unwrap();
                prop_assert_eq!(bench.ours(armored.as_bytes(), &message, namespace), Ok(()));
                prop_assert!(bench.theirs(armored.as_bytes(), &message, namespace));
                let mut changed = message.clone();
                if changed.is_empty() {
                    changed.push(0);
                } else {
                    let at = at.index(changed.len());
                    changed[at] ^= 1;
                }
                prop_assert!(bench.ours(armored.as_bytes(), &changed, namespace).is_err());
                prop_assert!(!bench.theirs(armored.as_bytes(), &changed, namespace));
                Ok(())
            },
        )
        .unwrap();
}

proptest! {
    #![proptest_config(config(2_000))]
    #[test]
    fn parsers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,120}") {
        let _ = SshSig::from_blob(&bytes);
        let _ = SshSig::from_blob(&[b"SSHSIG\0\0\0\x01", &bytes[..]].concat());
        let _ = SshSig::from_armor(&bytes);
        let _ = Envelope::parse(&bytes);
        let _ = text.parse::<PublicKey>();
        let _ = format!("ssh-ed25519 {text}").parse::<PublicKey>();
        let _ = allowed_signers::parse(&text);
        let _ = allowed_signers::parse(&format!("me namespaces=\"{text}\" ssh-ed25519 AAAA"));
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn runner(cases: u32) -> proptest::test_runner::TestRunner {
    proptest::test_runner::TestRunner::new(config(cases))
}

// ---- hardware keys, played by ordinary ones --------------------------------

fn put(out: &mut Vec<u8>, field: &[u8]) {
    out.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
    out.extend_from_slice(field);
}

fn made<K: ssh_key::SigningKey>(key: &K, bytes: &[u8]) -> ssh_key::Signature {
    key.try_sign(bytes).unwrap()
}

/// What a FIDO key would answer (OpenSSH's PROTOCOL.u2f), computed with a private key in this test.
fn hardware_seal(private: &ssh_key::PrivateKey, flags: u8) -> (PublicKey, Vec<u8>) {
    let application = "ssh:";
    let (kind, public) = match private.public_key().key_data() {
        ssh_key::public::KeyData::Ed25519(key) => (
            KeyKind::SkEd25519,
            ssh_key::public::KeyData::SkEd25519((*key).into()),
        ),
        ssh_key::public::KeyData::Ecdsa(ssh_key::public::EcdsaPublicKey::NistP256(key)) => (
            KeyKind::SkEcdsaP256,
            ssh_key::public::KeyData::SkEcdsaSha2NistP256((*key).into()),
        ),
        other => panic!("{other:?}"),
    };
    let public = ssh_key::PublicKey::from(public);
    let counter = 7_u32.to_be_bytes();
    let inner = ssh_key::SshSig::signed_data(NAMESPACE.as_str(), ssh_key::HashAlg::Sha512, MESSAGE)
        .unwrap();
    let mut covered = Digest::of(application.as_bytes()).as_bytes().to_vec();
    covered.push(flags);
    covered.extend_from_slice(&counter);
    covered.extend_from_slice(Digest::of(&inner).as_bytes());

    let mut innermost = Vec::new();
    put(&mut innermost, kind.as_str().as_bytes());
    put(&mut innermost, made(private, &covered).as_bytes());
    innermost.push(flags);
    innermost.extend_from_slice(&counter);

    let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
    put(&mut blob, &public.to_bytes().unwrap());
    put(&mut blob, NAMESPACE.as_str().as_bytes());
    put(&mut blob, b"");
    put(&mut blob, b"sha512");
    put(&mut blob, &innermost);
    (public.to_openssh().unwrap().parse().unwrap(), blob)
}

#[test]
fn hardware_keys_verify_when_touched() {
    if !openssh() {
        return;
    }
    for bench in [Bench::new(), Bench::p256()] {
        let private = std::fs::read_to_string(bench.signer.path()).unwrap();
        let private = ssh_key::PrivateKey::from_openssh(private).unwrap();
        let (key, blob) = hardware_seal(&private, 0x01);
        assert!(key.kind().is_hardware());
        bench.allow(&key);
        let trusted = [key.clone()];
        let armored = rearmor(&blob);
        let verdict = sshsig::verify(armored.as_bytes(), MESSAGE, NAMESPACE, &trusted);
        assert_eq!(verdict, Ok(&key));
        assert!(bench.theirs(armored.as_bytes(), MESSAGE, NAMESPACE));
        assert!(sshsig::verify(armored.as_bytes(), b"x", NAMESPACE, &trusted).is_err());
        // The same point as an ordinary key is another key.
        assert!(matches!(
            bench.ours(armored.as_bytes(), MESSAGE, NAMESPACE),
            Err(SealError::WrongKey { .. })
        ));

        // Flags and counter are covered.
        for at in blob.len() - 5..blob.len() {
            let mut flipped = blob.clone();
            flipped[at] ^= 4;
            let armored = rearmor(&flipped);
            assert!(sshsig::verify(armored.as_bytes(), MESSAGE, NAMESPACE, &trusted).is_err());
            assert!(!bench.theirs(armored.as_bytes(), MESSAGE, NAMESPACE));
        }

        // Stricter by intent: nobody touched it.
        let (_, untouched) = hardware_seal(&private, 0x04);
        let verdict = sshsig::verify(rearmor(&untouched).as_bytes(), MESSAGE, NAMESPACE, &trusted);
        assert!(
            matches!(verdict, Err(SealError::NotTouched { .. })),
            "{verdict:?}"
        );
    }
}

// ---- keys --------------------------------------------------------------------

#[test]
fn a_pair_is_made_once_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    if !openssh() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new/key");
    let first = keys::ensure(&path, "proofline runner").unwrap();
    assert!(first.created);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let line = std::fs::read_to_string(dir.path().join("new/key.pub")).unwrap();
    let (key, comment) = PublicKey::parse_line(&line).unwrap();
    assert_eq!(
        (&key, comment.as_deref()),
        (&first.key, Some("proofline runner"))
    );

    let listed = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(&path)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.split(' ').nth(1), Some(key.fingerprint().as_str()));

    let before = std::fs::read(&path).unwrap();
    let again = keys::ensure(&path, "other").unwrap();
    assert_eq!((again.created, &again.key), (false, &first.key));
    std::fs::remove_file(dir.path().join("new/key.pub")).unwrap();
    assert_eq!(keys::ensure(&path, "other").unwrap(), again);
    assert!(matches!(
        keys::generate(&path, "x"),
        Err(KeygenError::Exists { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let raced = dir.path().join("raced");
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| keys::ensure(&raced, "x").unwrap()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|m| m.created).count(), 1);
    assert!(made.iter().all(|m| m.key == made[0].key));
}

#[test]
fn public_keys_are_read_strictly() {
    // Test vectors from ssh-key's and OpenSSH's own suites.
    let good = [
        (
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
            KeyKind::Ed25519,
        ),
        (
            "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo=",
            KeyKind::SkEd25519,
        ),
        (
            "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBIELQJ2DgvaX1yQlKFokfWM2suuaCFI2qp0eJodHyg6O4ifxc3XpRKd1OS8dNYQtE/YjdXSrA+AOnMF5ns2Nkx4AAAAEc3NoOg==",
            KeyKind::SkEcdsaP256,
        ),
    ];
    for (line, kind) in good {
        let (key, comment) = PublicKey::parse_line(&format!("{line} a comment \r\n")).unwrap();
        assert_eq!(key.kind(), kind);
        assert_eq!(comment.as_deref(), Some("a comment"));
        assert_eq!(key.to_string(), line);
        assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{line}\""));
        assert_eq!(
            serde_json::from_str::<PublicKey>(&format!("\"{line} x\"")).unwrap(),
            key
        );
    }
    let ed25519 = good[0].0;
    let twice = format!("{ed25519}\n{ed25519}\n");
    let renamed = ed25519.replace("ssh-ed25519 ", "ecdsa-sha2-nistp256 ");
    let padded = format!("{ed25519}=");
    let zero = {
        use base64::Engine as _;
        let mut blob = Vec::new();
        put(&mut blob, b"ssh-ed25519");
        put(&mut blob, &[0; 32]);
        format!(
            "ssh-ed25519 {}",
            base64::engine::general_purpose::STANDARD.encode(blob)
        )
    };
    for (line, reason) in [
        ("", "algorithm"),
        (twice.as_str(), "more than one line"),
        (renamed.as_str(), "different algorithms"),
        (padded.as_str(), "base64"),
        (&ed25519[..60], "length"),
        (zero.as_str(), "weak"),
        ("ssh-ed25519", "cut short"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", ".pub"),
        ("ssh-rsa AAAA", "RUSTSEC-2023-0071"),
        ("ssh-dss AAAA", "obsolete"),
        ("ecdsa-sha2-nistp384 AAAA", "nistp256"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
    ] {
        let error = line.parse::<PublicKey>().expect_err(line);
        assert!(error.to_string().contains(reason), "{line}: {error}");
    }
}

// ---- sealing -----------------------------------------------------------------

#[test]
fn failures_to_seal_say_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    if !openssh() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let missing = SealSigner::from_file(&path("missing")).unwrap_err();
    assert!(matches!(missing, SignError::NoKey { .. }), "{missing}");

    // With a passphrase and nobody to ask: refused at once, not after the time limit.
    keygen(
        &["-q", "-t", "ed25519", "-N", "secret", "-f"],
        &path("locked"),
    );
    let signer = SealSigner::from_file(&path("locked")).unwrap();
    let error = signer.sign(NAMESPACE, MESSAGE).unwrap_err();
    assert!(matches!(error, SignError::Passphrase { .. }), "{error}");
    assert!(error.to_string().contains("ssh-add"));

    keys::generate(&path("a"), "a").unwrap();
    keys::generate(&path("b"), "b").unwrap();
    std::fs::set_permissions(path("a"), PermissionsExt::from_mode(0o644)).unwrap();
    let error = SealSigner::from_file(&path("a"))
        .unwrap()
        .sign(NAMESPACE, MESSAGE)
        .unwrap_err();
    assert!(matches!(error, SignError::Permissions { .. }), "{error}");
    std::fs::set_permissions(path("a"), PermissionsExt::from_mode(0o600)).unwrap();

    std::fs::copy(path("a.pub"), path("alone.pub")).unwrap();
    let error = SealSigner::from_file(&path("alone.pub"))
        .unwrap()
        .sign(NAMESPACE, MESSAGE)
        .unwrap_err();
    assert!(matches!(error, SignError::NoPrivateHalf { .. }), "{error}");

    // A .pub file beside another's private key: caught before the seal leaves.
    let signer = SealSigner::new(keys::read_public(&path("b.pub")).unwrap(), &path("a"));
    let error = signer.sign(NAMESPACE, MESSAGE).unwrap_err();
    assert!(
        matches!(
            error,
            SignError::Unverified {
                source: SealError::WrongKey { .. },
                ..
            }
        ),
        "{error}"
    );

    // Without a .pub file OpenSSH is asked.
    std::fs::remove_file(path("b.pub")).unwrap();
    let signer = SealSigner::from_file(&path("b"))
        .unwrap()
        .time_limit(Duration::from_secs(20));
    assert!(signer.sign(NAMESPACE, b"").is_ok());
}

/// Runs in a process of its own (see below), with an agent that holds `agent.pub`'s private half.
#[test]
#[ignore = "started by an_agent_seals"]
fn within_an_agent() {
    let path = std::env::var_os("PROOFLINE_TEST_PUB").expect("the path of a .pub file");
    let signer = SealSigner::from_file(Path::new(&path)).unwrap();
    let armored = signer.sign(NAMESPACE, MESSAGE).unwrap();
    let trusted = [signer.public_key().clone()];
    assert!(sshsig::verify(armored.as_bytes(), MESSAGE, NAMESPACE, &trusted).is_ok());

    use proofline::seal::commit::{CommitSigner, SigningConfig};
    let literal = std::fs::read_to_string(&path).unwrap();
    for prefix in ["key::", ""] {
        let signer = CommitSigner::from_config(&SigningConfig {
            format: Some("ssh".into()),
            signing_key: Some(format!("{prefix}{}", literal.trim())),
            ..Default::default()
        });
        let armored = signer.unwrap().sign(b"tree x\n\nmessage\n").unwrap();
        let seal = SshSig::from_armor(armored.as_bytes()).unwrap();
        assert_eq!((seal.namespace(), seal.key()), ("git", &trusted[0]));
    }
}

#[test]
fn an_agent_seals() {
    if !openssh() {
        return;
    }
    let dir = tempfile::Builder::new()
        .prefix("pl")
        .tempdir_in("/tmp")
        .unwrap();
    let socket = dir.path().join("s");
    let key = dir.path().join("agent");
    keys::generate(&key, "agent").unwrap();
    let Ok(mut agent) = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
    else {
        println!("skipped: ssh-agent is not installed");
        return;
    };
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg(&key)
        .env("SSH_AUTH_SOCK", &socket)
        .status();
    std::fs::remove_file(&key).unwrap();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "within_an_agent",
            "--ignored",
            "--test-threads=1",
        ])
        .env("SSH_AUTH_SOCK", &socket)
        .env("PROOFLINE_TEST_PUB", dir.path().join("agent.pub"))
        .output();
    let _ = agent.kill();
    let _ = agent.wait();
    assert!(added.unwrap().success());
    let ran = ran.unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stdout)
    );
    assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"));
}

// ---- envelopes -----------------------------------------------------------------

#[test]
fn envelopes_round_trip_and_hold_against_tampering() {
    if !openssh() {
        return;
    }
    let (a, b) = (Bench::new(), Bench::p256());
    let trusted = [a.key().clone(), b.key().clone()];
    let payload = b"{\"_type\":\"https://in-toto.io/Statement/v1\"}";
    let envelope = Envelope::seal(payload, &[&a.signer, &b.signer, &a.signer], NAMESPACE).unwrap();
    assert_eq!(envelope.seals().len(), 2, "one seal per key");
    let line = envelope.to_json_line();
    assert_eq!(Envelope::parse(line.as_bytes()).unwrap(), envelope);
    assert_eq!(envelope.payload(), payload);
    let verified = envelope.verify(&trusted, NAMESPACE);
    assert_eq!(
        (verified.keys.as_slice(), verified.refused.len()),
        (&trusted[..], 0)
    );
    let verified = envelope.verify(&trusted[1..], NAMESPACE);
    assert_eq!(verified.keys, trusted[1..]);
    assert!(matches!(verified.refused[0].1, SealError::WrongKey { .. }));
    assert!(
        envelope
            .verify(&trusted, Namespace::Approval)
            .keys
            .is_empty()
    );
    assert!(envelope.verify(&[], NAMESPACE).keys.is_empty());

    // By hand, with OpenSSH alone.
    let encoding = dsse::pre_authentication_encoding(dsse::PAYLOAD_TYPE, payload);
    let wire: serde_json::Value = serde_json::from_str(&line).unwrap();
    let sig = wire["signatures"][0]["sig"].as_str().unwrap();
    let armored = format!("-----BEGIN SSH SIGNATURE-----\n{sig}\n-----END SSH SIGNATURE-----\n");
    assert!(a.theirs(armored.as_bytes(), &encoding, NAMESPACE));

    // A flipped byte anywhere: refused, or the same envelope with other spaces; or one seal fewer.
    runner(400)
        .run(
            &(any::<prop::sample::Index>(), 1..=255_u8),
            |(at, change)| {
                let mut bytes = line.clone().into_bytes();
                let at = at.index(bytes.len());
                bytes[at] ^= change;
                if let Ok(parsed) = Envelope::parse(&bytes) {
                    let keys = parsed.verify(&trusted, NAMESPACE).keys;
                    prop_assert!(
                        keys.len() < 2 || parsed == envelope,
                        "byte {} ^ {}",
                        at,
                        change
                    );
                    prop_assert!(keys.is_empty() || parsed.payload() == payload);
                }
                Ok(())
            },
        )
        .unwrap();

    // A seal moved to another payload says nothing about it.
    let other = Envelope::seal(b"{}", &[&a.signer], NAMESPACE)
        .unwrap()
        .to_json_line();
    let mut other: serde_json::Value = serde_json::from_str(&other).unwrap();
    other["signatures"] = wire["signatures"].clone();
    let moved = Envelope::parse(other.to_string().as_bytes()).unwrap();
    assert!(moved.verify(&trusted, NAMESPACE).keys.is_empty());
}

#[test]
fn envelopes_are_read_strictly() {
    if !openssh() {
        return;
    }
    let bench = Bench::new();
    let line = Envelope::seal(b"{}", &[&bench.signer], NAMESPACE)
        .unwrap()
        .to_json_line();
    let wire: serde_json::Value = serde_json::from_str(&line).unwrap();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut wire = wire.clone();
        change(&mut wire);
        wire.to_string()
    };
    assert!(Envelope::parse(format!(" {line}\n").as_bytes()).is_ok());
    let seal = wire["signatures"][0].clone();
    for (text, reason) in [
        (format!("{line}{line}"), "trailing"),
        (format!("[{}]", line.trim()), "invalid type"),
        (
            line.replacen('{', "{\"payload\":\"e30=\",", 1),
            "duplicate field",
        ),
        (changed(&|w| w["extra"] = 1.into()), "unknown field"),
        (
            changed(&|w| w["signatures"][0]["extra"] = 1.into()),
            "unknown field",
        ),
        (
            changed(&|w| w["payload"] = "e30".into()),
            "payload is not canonical",
        ),
        (
            changed(&|w| w["payload"] = "e31=".into()),
            "payload is not canonical",
        ),
        (
            changed(&|w| w["payloadType"] = "text/plain".into()),
            "payloadType",
        ),
        (
            changed(&|w| w["signatures"] = serde_json::json!([])),
            "has 0 seals",
        ),
        (
            changed(&|w| w["signatures"] = vec![seal.clone(); 65].into()),
            "has 65 seals",
        ),
        (
            changed(&|w| w["signatures"] = vec![seal.clone(); 2].into()),
            "same key",
        ),
        (
            changed(&|w| w["signatures"][0]["keyid"] = "SHA256:x".into()),
            "fingerprint",
        ),
        (
            changed(&|w| w["signatures"][0]["sig"] = "AAAA".into()),
            "cut short",
        ),
        (String::new(), "EOF"),
    ] {
        let error = Envelope::parse(text.as_bytes()).expect_err(&text);
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
}

// ---- allowed_signers -------------------------------------------------------------

#[test]
fn allowed_signers_mean_the_same_to_openssh() {
    if !openssh() {
        return;
    }
    let bench = Bench::new();
    let key = bench.key();
    let armored = bench.armored.as_bytes();
    let own = NAMESPACE.as_str();
    for (line, at) in [
        (format!("someone {key}"), "20261121093000"),
        (format!("other {key}"), "20261121093000"),
        (format!("other,someone {key} comment"), "20261121093000"),
        (
            format!("someone namespaces=\"{own}\" {key}"),
            "20261121093000",
        ),
        (
            format!("someone namespaces=\"git\" {key}"),
            "20261121093000",
        ),
        (
            format!("someone namespaces=\"git,{own}\",valid-after=\"20260101Z\" {key}"),
            "20261121093000",
        ),
        (
            format!("someone valid-after=\"20270101Z\" {key}"),
            "20261121093000",
        ),
        (
            format!("someone valid-after=\"20261121093000Z\" {key}"),
            "20261121093000",
        ),
        (
            format!("someone valid-after=\"20261121093001Z\" {key}"),
            "20261121093000",
        ),
        (
            format!("someone valid-before=\"202611210930Z\" {key}"),
            "20261121093000",
        ),
        (
            format!("someone valid-before=\"20261121092959Z\" {key}"),
            "20261121093000",
        ),
    ] {
        let parsed = allowed_signers::parse(&format!("# comment\n\n{line}\n")).expect(&line);
        let time: jiff::Timestamp = "2026-11-21T09:30:00Z".parse().unwrap();
        let ours = parsed[0].allows("someone", own, time) && parsed[0].key == *key;
        // What we render means the same as what we read.
        for text in [
            format!("{line}\n"),
            allowed_signers::render(&parsed).unwrap(),
        ] {
            std::fs::write(bench.path("allowed"), &text).unwrap();
            let option = format!("-Overify-time={at}Z");
            assert_eq!(
                bench.theirs_with(&[&option], armored, MESSAGE, NAMESPACE),
                ours,
                "{text}"
            );
        }
    }
    for (line, reason) in [
        (format!("someone cert-authority {key}"), "cert-authority"),
        (
            format!("someone cert-authority,namespaces=\"git\" {key}"),
            "cert-authority",
        ),
        (format!("* {key}"), "pattern"),
        (format!("!someone,other {key}"), "pattern"),
        (format!("someone, {key}"), "empty principal"),
        (format!("\"some one\" {key}"), ""),
        (format!("someone namespaces=\"*\" {key}"), "pattern"),
        (
            format!("someone namespaces=\"a\",namespaces=\"b\" {key}"),
            "twice",
        ),
        (format!("someone namespaces=git {key}"), "unknown option"),
        (format!("someone namespaces=\"a\", {key}"), "comma"),
        (format!("someone namespaces=\"a {key}"), ""),
        (format!("someone valid-after=\"20260101\" {key}"), "UTC"),
        (
            format!("someone valid-after=\"20261301Z\" {key}"),
            "not a time",
        ),
        (
            format!("someone valid-after=\"2026010Z\" {key}"),
            "not a time",
        ),
        (
            format!("someone valid-after=\"20260102Z\",valid-before=\"20260101Z\" {key}"),
            "later",
        ),
        (
            format!("someone no-touch-required=\"\" {key}"),
            "unknown option",
        ),
        (
            format!("someone {}", key.to_string().replace("ed25519", "rsa")),
            "RSA",
        ),
        ("someone".to_owned(), "no key"),
    ] {
        let error = allowed_signers::parse(&format!("# first\n{line}\n")).expect_err(&line);
        assert_eq!(error.line, 2);
        assert!(error.reason.contains(reason), "{line}: {error}");
    }
    for bad in ["a,b", "a b", "a\nb", "*", "", "a\"b"] {
        let signer = AllowedSigner::new([bad], key.clone(), ["git"]);
        assert!(allowed_signers::render(&[signer]).is_err(), "{bad:?}");
    }
}
