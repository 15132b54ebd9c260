//! Logarithm and exponential made of `+ - * /` alone.
//!
//! The platform's `ln` and `exp` may differ in the last bit from one machine to another; IEEE 754 fixes the four basic operations (and the
//! square root) to the bit. So everything that touches a model or a score goes through the two functions here. They are accurate to a few
//! units in the last place, which is more than a classifier needs; what matters is that they answer the same everywhere.

/// ln 2, rounded to f64.
const LN_2: f64 = std::f64::consts::LN_2;

/// Natural logarithm of a positive, finite, normal number.
///
/// `x = m · 2^e` with `m` in [√½, √2), then `ln m = 2 artanh((m − 1)/(m + 1))` by its power series (|t| ≤ 0.172, so 11 terms reach 1e-17).
pub(super) fn ln(x: f64) -> f64 {
    debug_assert!(
        x.is_normal() && x > 0.0,
        "ln is only asked for positive normal numbers"
    );
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let mut series = 0.0;
    for odd in (0..11).rev() {
        series = series * square + 1.0 / f64::from(2 * odd + 1);
    }
    2.0 * t * series + f64::from(exponent) * LN_2
}

/// `e^x` for `x ≤ 0`; below −700 it is 0.
///
/// `x = n ln 2 + r` with |r| ≤ ½ ln 2, the Taylor series of `e^r` to the 13th power, and an exact power of two.
pub(super) fn exp_of_nonpositive(x: f64) -> f64 {
    debug_assert!(x <= 0.0, "exp is only asked for differences to a maximum");
    if x < -700.0 {
        return 0.0;
    }
    let n = (x / LN_2 - 0.5) as i64; // rounds to nearest: the quotient is not positive and the cast truncates towards zero
    let r = x - n as f64 * LN_2;
    let mut series = 1.0;
    for k in (1..=13).rev() {
        series = 1.0 + series * r / f64::from(k);
    }
    series * f64::from_bits(((1023 + n) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_agree_with_the_platform_to_many_digits() {
        for step in 1..4000 {
            let x = f64::from(step) * 0.37;
            assert!(
                (ln(x) - x.ln()).abs() < 1e-14 * (1.0 + x.ln().abs()),
                "ln {x}"
            );
            assert!(
                (ln(1.0 / x) + x.ln()).abs() < 1e-14 * (1.0 + x.ln().abs()),
                "ln 1/{x}"
            );
            let y = -x / 4.0;
            assert!(
                (exp_of_nonpositive(y) - y.exp()).abs() <= 1e-13 * y.exp(),
                "exp {y}"
            );
        }
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(exp_of_nonpositive(0.0), 1.0);
        assert_eq!(exp_of_nonpositive(-1e9), 0.0);
        assert_eq!(exp_of_nonpositive(f64::NEG_INFINITY), 0.0);
    }

    /// Pinned bits: a machine that computes otherwise would make other models.
    #[test]
    fn the_bits_are_pinned() {
        assert_eq!(ln(10.0).to_bits(), LN_10_BITS);
        assert_eq!(exp_of_nonpositive(-1.5).to_bits(), EXP_MINUS_1_5_BITS);
    }
    const LN_10_BITS: u64 = 0x4002_6bb1_bbb5_5515;
    const EXP_MINUS_1_5_BITS: u64 = 0x3fcc_8f87_724b_5c1d;
}
