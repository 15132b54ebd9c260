//! A small seeded generator: xoshiro256** seeded by splitmix64.
//!
//! It is written out here, not taken from a crate, because splits, search
//! orders and Monte Carlo p-values end up in digests: a crate may change its
//! streams between versions, this file may not (the test below holds its first
//! outputs). It is for sampling, never for keys or salts.
//!
//! Sources: D. Blackman and S. Vigna, "Scrambled linear pseudorandom number
//! generators", ACM Transactions on Mathematical Software 47(4), 2021, and
//! their public-domain reference code `xoshiro256starstar.c` and `splitmix64.c`
//! (prng.di.unimi.it); D. Lemire, "Fast random integer generation in an
//! interval", ACM Transactions on Modeling and Computer Simulation 29(1), 2019.

/// A deterministic stream of random numbers. Cloning it repeats the stream from
/// here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The stream of `seed`. Every seed is good, 0 included: splitmix64 spreads
    /// it over the 256 bits of state and can't produce the all-zero state from
    /// which xoshiro would never leave.
    pub fn new(seed: u64) -> Self {
        let mut spread = seed;
        Self {
            state: std::array::from_fn(|_| splitmix64(&mut spread)),
        }
    }

    /// The stream number `stream` of `seed`: independent streams for parts of
    /// one job, so that one part drawing more numbers doesn't shift the others.
    pub fn stream(seed: u64, stream: u64) -> Self {
        let mut spread = stream;
        Self::new(seed ^ splitmix64(&mut spread))
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let s2 = s2 ^ s0;
        let s3 = s3 ^ s1;
        self.state = [s0 ^ s3, s1 ^ s2, s2 ^ (s1 << 17), s3.rotate_left(45)];
        result
    }

    /// A whole number in `0..n`, every one equally likely (Lemire's
    /// multiplication with rejection, so no modulo bias).
    ///
    /// # Panics
    /// When `n` is 0: there is nothing to draw from.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "Rng::below needs a non-empty range");
        let rejected_below = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= rejected_below {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number in `[0, 1)`: a multiple of 2⁻⁵³, every multiple equally likely.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// `true` with the given probability (0 or less: never; 1 or more: always).
    /// One number is drawn in any case.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Puts the items into a random order, all orders equally likely
    /// (Fisher–Yates, Durstenfeld's form, from the last item down).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// One step of splitmix64: advances `state` and returns 64 well-mixed bits.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        let mut state = 1_234_567;
        let first: Vec<u64> = (0..5).map(|_| splitmix64(&mut state)).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(first, published);
    }

    #[test]
    fn xoshiro256starstar_gives_the_reference_sequence() {
        // The vector that the authors' C code prints for the state 1, 2, 3, 4
        // (also in the tests of rand_xoshiro).
        let mut rng = Rng {
            state: [1, 2, 3, 4],
        };
        let first: Vec<u64> = (0..6).map(|_| rng.next_u64()).collect();
        let reference = [
            11_520,
            0,
            1_509_978_240,
            1_215_971_899_390_074_240,
            1_216_172_134_540_287_360,
            607_988_272_756_665_600,
        ];
        assert_eq!(first, reference);
    }

    #[test]
    fn below_is_uniform_and_stays_below() {
        // Six cells, 60,000 draws: chi-square with 5 degrees of freedom, 99.99
        // % quantile 25.7.
        let mut rng = Rng::new(7);
        let mut counts = [0_f64; 6];
        for _ in 0..60_000 {
            counts[rng.below(6) as usize] += 1.0;
        }
        let chi_square: f64 = counts
            .iter()
            .map(|count| (count - 10_000.0).powi(2) / 10_000.0)
            .sum();
        assert!(
            chi_square < 25.7,
            "chi-square {chi_square}, counts {counts:?}"
        );
        // Without the rejection this would show: 2⁶⁴ words on three quarters as
        // many numbers give every multiple of three two words, the others one.
        let large = 3 << 62;
        let mut multiples = 0;
        for _ in 0..9_000 {
            let drawn = rng.below(large);
            assert!(drawn < large);
            multiples += u32::from(drawn.is_multiple_of(3));
        }
        assert!(
            (2_800..3_200).contains(&multiples),
            "{multiples} of 9,000 are multiples of three"
        );
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn unit_covers_its_interval_evenly() {
        let mut rng = Rng::new(0);
        let draws: Vec<f64> = (0..40_000).map(|_| rng.unit()).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        assert!(
            (mean - 0.5).abs() < 4.0 * (1.0_f64 / 12.0 / 40_000.0).sqrt(),
            "mean {mean}"
        );
    }

    #[test]
    fn shuffle_reaches_all_orders_equally() {
        let mut rng = Rng::new(3);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            rng.shuffle(&mut items);
            *counts.entry(items).or_insert(0_f64) += 1.0;
        }
        assert_eq!(counts.len(), 24);
        // 23 degrees of freedom, 99.99 % quantile 55.5.
        let chi_square: f64 = counts
            .values()
            .map(|count| (count - 1_000.0).powi(2) / 1_000.0)
            .sum();
        assert!(chi_square < 55.5, "chi-square {chi_square}");
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        assert_eq!(Rng::stream(5, 1), Rng::stream(5, 1));
        assert_ne!(Rng::stream(5, 1), Rng::stream(5, 2));
        assert_ne!(Rng::stream(5, 1), Rng::stream(6, 1));
    }
}
