//! Student's t distribution, for intervals of a mean of few values.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// The probability that $|t| \le \sqrt{\nu} \tan\theta$ at `freedom` $\nu \ge 1$ degrees of freedom, for $\theta$
/// between 0 and $\pi/2$: Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4, which are
/// exact for whole $\nu$.
fn within(theta: f64, freedom: usize) -> f64 {
    let (sin, cos) = theta.sin_cos();
    let odd = freedom % 2 == 1;
    if odd && freedom == 1 {
        return FRAC_2_PI * theta;
    }
    // The series 1 + (1/2) cos^2 + (1/2)(3/4) cos^4 .., or cos + (2/3) cos^3 + (2/3)(4/5) cos^5 ..
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = term;
    let mut divisor = if odd { 3 } else { 2 };
    while divisor <= freedom - 2 && term > 1e-18 * sum {
        term *= cos * cos * (divisor - 1) as f64 / divisor as f64;
        sum += term;
        divisor += 2;
    }
    if odd { FRAC_2_PI * (theta + sin * sum) } else { sin * sum }
}

/// The $t$ above 0 for which $|t'| \le t$ has the probability `level` at `freedom` degrees of freedom.
///
/// `level` lies between 0 and 1, both excluded, and `freedom` is at least 1.
pub(crate) fn two_sided_quantile(level: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    // Halves the interval until there is no number in between.
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return (freedom as f64).sqrt() * high.tan();
        }
        if within(middle, freedom) < level { low = middle } else { high = middle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // Abramowitz and Stegun, table 26.10, two-sided.
        let table = [
            (0.95, [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)]),
            (0.9, [(1, 6.314), (2, 2.920), (3, 2.353), (4, 2.132), (9, 1.833), (30, 1.697), (120, 1.658)]),
        ];
        for (level, quantiles) in table {
            for (freedom, expected) in quantiles {
                let found = two_sided_quantile(level, freedom);
                assert!((found - expected).abs() < 5.1e-4, "{level} at {freedom}: {found}");
            }
        }
    }

    #[test]
    fn one_and_two_degrees_have_closed_forms_and_many_are_normal() {
        for level in [1e-9, 0.3, 0.95, 0.999_999] {
            let two = level * (2.0f64 / (1.0 - level * level)).sqrt();
            assert!((two_sided_quantile(level, 2) / two - 1.0).abs() < 1e-9);
            let one = (FRAC_PI_2 * level).tan();
            assert!((two_sided_quantile(level, 1) / one - 1.0).abs() < 1e-9);
        }
        assert!((two_sided_quantile(0.95, 1_000_000) - 1.959_966).abs() < 1e-5);
    }

    #[test]
    fn levels_next_to_0_and_1_end() {
        for freedom in [1, 2, 3, 50] {
            assert!(two_sided_quantile(f64::MIN_POSITIVE, freedom) >= 0.0);
            assert!(two_sided_quantile(1.0 - f64::EPSILON / 2.0, freedom).is_finite());
        }
    }
}
