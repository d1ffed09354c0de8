//! Medians, spreads and the one conversion of counts.

/// A count as a figure. Beyond 2^53 the last digits are lost, which no figure here comes near.
#[allow(clippy::as_conversions, reason = "there is no lossless conversion, and figures need none")]
pub(crate) const fn figure(count: u64) -> f64 {
    count as f64
}

/// What a number of rounds gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of `values`; `None` where there are none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let spread = |values: &[f64]| Spread::of(values).map(|s| (s.median, s.min, s.max));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[2.0]), Some((2.0, 2.0, 2.0)));
        assert_eq!(spread(&[9.0, 1.0, 5.0]), Some((5.0, 1.0, 9.0)));
        assert_eq!(spread(&[4.0, 1.0, 100.0, 2.0]), Some((3.0, 1.0, 100.0)));
    }
}
