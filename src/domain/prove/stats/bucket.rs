//! Which arm serves this key: salted bucketing for a canary that splits
//! traffic.
//!
//! A key (a user, a conversation, a request) must see one arm throughout a
//! canary, different canaries must cut the keys differently, and a verifier
//! must be able to recompute every assignment. So the arm is a pure function of
//! a digest over a sealed salt and the key.

use super::OutOfRange;

/// Who serves a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arm {
    /// The artifact in force.
    Control,
    /// The artifact on trial.
    Candidate,
}

/// The share of keys that the candidate serves, in basis points (hundredths of
/// a percent) from 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rollout(u32);

impl Rollout {
    /// A rollout of so many basis points; refused above 10,000.
    pub fn from_basis_points(basis_points: u32) -> Result<Self, OutOfRange> {
        if basis_points <= 10_000 {
            Ok(Self(basis_points))
        } else {
            Err(OutOfRange {
                what: "rollout in basis points",
                value: f64::from(basis_points),
                accepted: "[0, 10000]",
            })
        }
    }

    /// A rollout of so many whole percent; refused above 100.
    pub fn from_percent(percent: u32) -> Result<Self, OutOfRange> {
        if percent <= 100 {
            Ok(Self(percent * 100))
        } else {
            Err(OutOfRange {
                what: "rollout in percent",
                value: f64::from(percent),
                accepted: "[0, 100]",
            })
        }
    }

    /// The rollout in basis points.
    pub fn basis_points(self) -> u32 {
        self.0
    }
}

/// The bytes to digest for a key: the salt's length in bytes as a big-endian
/// u64, the salt, the key. The length keeps (salt "a", key "bc") and (salt
/// "ab", key "c") apart.
pub fn preimage(salt: &[u8], key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + salt.len() + key.len());
    bytes.extend_from_slice(&(salt.len() as u64).to_be_bytes());
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(key);
    bytes
}

/// The arm of a key, from the SHA-256 digest of its [`preimage`].
///
/// The first eight bytes, big-endian, are a point on `[0, 2⁶⁴)`; the candidate
/// serves the points under `rollout · 2⁶⁴`. No modulo, so no bias beyond 2⁻⁶⁴,
/// and a larger rollout keeps every key that a smaller one gave to the
/// candidate.
pub fn arm(digest: &[u8; 32], rollout: Rollout) -> Arm {
    let point = u64::from_be_bytes(
        *digest
            .first_chunk()
            .expect("a digest of 32 bytes has 8 first bytes"),
    );
    if u128::from(point) * 10_000 < u128::from(rollout.0) << 64 {
        Arm::Candidate
    } else {
        Arm::Control
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::*;

    fn random_digest(rng: &mut Rng) -> [u8; 32] {
        let mut digest = [0; 32];
        for part in digest.chunks_mut(8) {
            part.copy_from_slice(&rng.next_u64().to_be_bytes());
        }
        digest
    }

    fn basis_points(basis_points: u32) -> Rollout {
        Rollout::from_basis_points(basis_points).unwrap()
    }

    #[test]
    fn the_edges_of_the_range_fall_where_they_should() {
        let lowest = [0; 32];
        let highest = [255; 32];
        assert_eq!(arm(&lowest, basis_points(0)), Arm::Control);
        assert_eq!(arm(&lowest, basis_points(1)), Arm::Candidate);
        assert_eq!(arm(&highest, basis_points(9_999)), Arm::Control);
        assert_eq!(arm(&highest, basis_points(10_000)), Arm::Candidate);
        // Half of 2⁶⁴ is the first point that a rollout of 50 % leaves to the
        // control.
        let mut half = [0; 32];
        half[0] = 0x80;
        assert_eq!(arm(&half, Rollout::from_percent(50).unwrap()), Arm::Control);
        half = [255; 32];
        half[0] = 0x7f;
        assert_eq!(
            arm(&half, Rollout::from_percent(50).unwrap()),
            Arm::Candidate
        );
    }

    #[test]
    fn only_the_first_eight_bytes_matter() {
        let mut rng = Rng::new(1);
        for _ in 0..500 {
            let digest = random_digest(&mut rng);
            let mut other = random_digest(&mut rng);
            other[..8].copy_from_slice(&digest[..8]);
            let rollout = basis_points(rng.below(10_001) as u32);
            assert_eq!(arm(&digest, rollout), arm(&other, rollout));
        }
    }

    #[test]
    fn the_candidate_gets_its_share() {
        let mut rng = Rng::new(12);
        for share in [1, 100, 1_000, 5_000, 9_000] {
            let keys = 40_000;
            let served = (0..keys)
                .filter(|_| arm(&random_digest(&mut rng), basis_points(share)) == Arm::Candidate)
                .count();
            let expected = f64::from(share) / 10_000.0;
            let sigma = (expected * (1.0 - expected) * f64::from(keys)).sqrt();
            let off = served as f64 - expected * f64::from(keys);
            assert!(
                off.abs() <= 4.0 * sigma,
                "{served} of {keys} at {share} basis points"
            );
        }
    }

    #[test]
    fn a_key_never_leaves_the_candidate_when_the_rollout_grows() {
        let mut rng = Rng::new(5);
        let (mut small, mut large) = (0, 0);
        for _ in 0..20_000 {
            let digest = random_digest(&mut rng);
            let at_ten = arm(&digest, Rollout::from_percent(10).unwrap());
            let at_fifty = arm(&digest, Rollout::from_percent(50).unwrap());
            assert!(at_ten <= at_fifty, "moved back to the control");
            small += u32::from(at_ten == Arm::Candidate);
            large += u32::from(at_fifty == Arm::Candidate);
        }
        assert!(
            small > 1_800 && large > 9_700,
            "{small} and {large} of 20,000"
        );
    }

    #[test]
    fn the_preimage_keeps_salt_and_key_apart() {
        assert_eq!(
            preimage(b"ab", b"c"),
            [0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', b'c']
        );
        assert_ne!(preimage(b"ab", b"c"), preimage(b"a", b"bc"));
        assert_ne!(preimage(b"", b"c"), preimage(b"c", b""));
    }

    #[test]
    fn a_rollout_above_everything_is_refused() {
        assert!(Rollout::from_basis_points(10_001).is_err());
        assert!(Rollout::from_percent(101).is_err());
        assert_eq!(Rollout::from_percent(25).unwrap(), basis_points(2_500));
        assert_eq!(basis_points(2_500).basis_points(), 2_500);
    }
}
