//! Graded scores as whole numbers, so that a tie is a tie.
//!
//! `0.1 + 0.2` and `0.3` differ in their last bit, three thirds may or may not
//! sum to one, and the order of a sum changes it. A test that counts "at least
//! as large as observed", and a ranking with tie-breaks, would turn such dust
//! into verdicts. Whole numbers add exactly in any order, on any machine.

/// How many quanta make 1. A multiple of every whole number up to 16 and of
/// 10⁶, so that scores with up to six decimals, and fractions of up to 16
/// parts, are whole; small enough that the sum over a billion rows fits `i64`.
pub(super) const ONE: i64 = 27_027_000_000;

/// A number in `[-1, 1]` in quanta, to the nearest.
pub(super) fn quanta(value: f64) -> i64 {
    debug_assert!(
        (-1.0..=1.0).contains(&value),
        "{value} is no score and no difference of scores"
    );
    (value * ONE as f64).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dust_disappears_and_fractions_are_whole() {
        assert_eq!(quanta(0.1 + 0.2 - 0.3), 0);
        assert_eq!(quanta(0.7 - 0.35), quanta(0.35));
        for parts in 1..=16 {
            let part = quanta(1.0 / f64::from(parts));
            assert_eq!(part * i64::from(parts), ONE, "{parts} parts");
        }
        assert_eq!(quanta(0.000_001) * 1_000_000, ONE);
        assert_eq!(quanta(-1.0), -ONE);
    }
}
