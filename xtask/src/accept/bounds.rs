//! Figures held against what is demanded of them.

/// What is past its bound, collected while figures are read.
#[derive(Debug, Default)]
pub struct Bounds(pub Vec<String>);

impl Bounds {
    /// `value` must be at least `bound`.
    pub fn at_least(&mut self, what: &str, value: f64, bound: f64) {
        // A value that is no number is missed as well.
        if value < bound || value.is_nan() {
            self.0.push(format!("{what} {value:.2} < {bound}"));
        }
    }

    /// `value` must be at most `bound`.
    pub fn at_most(&mut self, what: &str, value: f64, bound: f64) {
        if value > bound || value.is_nan() {
            self.0.push(format!("{what} {value:.2} > {bound}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_met_at_the_bound_and_missed_past_it() {
        let mut bounds = Bounds::default();
        bounds.at_least("a", 0.5, 0.5);
        bounds.at_most("b", 2.5, 2.5);
        assert!(bounds.0.is_empty());
        bounds.at_least("a", 0.499, 0.5);
        bounds.at_most("b", 2.501, 2.5);
        bounds.at_most("c", f64::NAN, 1.0);
        assert_eq!(bounds.0.len(), 3);
    }
}
