//! How probabilities are shaped before sampling.

use serde::{Deserialize, Serialize};

use crate::error::{DecodeError, Result};

/// A setting for all levels of a Semantic ID or for each: `0.7`, or `[1.5, 1.0, 0.3]` in JSON. Levels past the end of the
/// list take its last value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel<T> {
    /// One value everywhere.
    All(T),
    /// One value for each level, the coarsest first.
    Each(Vec<T>),
}

impl<T: Copy> PerLevel<T> {
    /// The value of a level; `None` of an empty list.
    pub fn at(&self, level: usize) -> Option<T> {
        match self {
            Self::All(value) => Some(*value),
            Self::Each(values) => values.get(level).or_else(|| values.last()).copied(),
        }
    }

    fn all(&self, accepts: impl Fn(T) -> bool) -> bool {
        match self {
            Self::All(value) => accepts(*value),
            Self::Each(values) => !values.is_empty() && values.iter().all(|&value| accepts(value)),
        }
    }
}

impl<T> From<T> for PerLevel<T> {
    fn from(value: T) -> Self {
        Self::All(value)
    }
}

impl<T> From<Vec<T>> for PerLevel<T> {
    fn from(values: Vec<T>) -> Self {
        Self::Each(values)
    }
}

/// Temperature, top-k and top-p, in this order, each for all levels or per level.
///
/// The probabilities are those of the allowed tokens alone, made to sum to one. At temperature `T` they become proportional
/// to `p^(1/T)`: below 1 the probable ones gain, above 1 the others, and at 0 the most probable is certain. A high
/// temperature at the first level and a low one below draws from many categories and takes the best of each (TIGER,
/// arXiv 2305.05065, section 4.3 and table 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Shape {
    /// Zero or above. Default: 1, the model's own probabilities.
    pub temperature: PerLevel<f32>,
    /// Keeps so many of the most probable tokens. Default: all.
    pub top_k: Option<PerLevel<usize>>,
    /// Keeps the fewest of the most probable tokens that have this share together (nucleus sampling, Holtzman et al.,
    /// arXiv 1904.09751). Above 0, at most 1. Default: all.
    pub top_p: Option<PerLevel<f32>>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { temperature: PerLevel::All(1.0), top_k: None, top_p: None }
    }
}

impl Shape {
    /// Checks the bounds of all settings.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] names the first that is outside.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field, value: &dyn std::fmt::Debug, bound| {
            Err(DecodeError::Shape { field, value: format!("{value:?}"), bound })
        };
        if !self.temperature.all(|t| t.is_finite() && t >= 0.0) {
            return wrong("temperature", &self.temperature, "finite and at least 0, one value or one a level");
        }
        if let Some(top_k) = &self.top_k
            && !top_k.all(|k| k > 0)
        {
            return wrong("top_k", top_k, "at least 1, one value or one a level");
        }
        if let Some(top_p) = &self.top_p
            && !top_p.all(|p| p > 0.0 && p <= 1.0)
        {
            return wrong("top_p", top_p, "above 0 and at most 1, one value or one a level");
        }
        Ok(())
    }

    /// Turns log-probabilities of the allowed tokens into shaped ones that sum to one; the most probable come first, of
    /// equal ones the lowest token, and what is cut off is left out.
    pub(crate) fn apply(&self, level: usize, options: &[(u32, f32)]) -> Vec<(u32, f64)> {
        let temperature = f64::from(self.temperature.at(level).unwrap_or(1.0));
        let mut shaped: Vec<(u32, f64)> =
            options.iter().map(|&(token, log_prob)| (token, f64::from(log_prob))).collect();
        shaped.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if temperature == 0.0 {
            shaped.truncate(1);
        } else {
            let best = shaped.first().map_or(0.0, |first| first.1);
            shaped.iter_mut().for_each(|option| option.1 = (option.1 - best) / temperature);
        }
        if let Some(k) = self.top_k.as_ref().and_then(|k| k.at(level)) {
            shaped.truncate(k);
        }
        normalise(&mut shaped);
        if let Some(p) = self.top_p.as_ref().and_then(|p| p.at(level)) {
            let mut sum = 0.0;
            let kept = shaped.iter().take_while(|(_, log_prob)| {
                let wanted = sum < f64::from(p);
                sum += log_prob.exp();
                wanted
            });
            let kept = kept.count().max(1);
            shaped.truncate(kept);
            normalise(&mut shaped);
        }
        shaped
    }
}

/// Subtracts the logarithm of the sum.
fn normalise(options: &mut [(u32, f64)]) {
    let best = options.first().map_or(0.0, |first| first.1);
    let sum: f64 = options.iter().map(|option| (option.1 - best).exp()).sum();
    let log_sum = best + sum.ln();
    options.iter_mut().for_each(|option| option.1 -= log_sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probabilities(shape: &Shape, level: usize) -> Vec<(u32, f64)> {
        let options: Vec<(u32, f32)> = [(4, 0.1_f32), (9, 0.4), (2, 0.2), (7, 0.1)].map(|(t, p)| (t, p.ln())).to_vec();
        shape.apply(level, &options).into_iter().map(|(token, log_prob)| (token, log_prob.exp())).collect()
    }

    fn close(found: &[(u32, f64)], expected: &[(u32, f64)]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        let same = |(a, b): (&(u32, f64), &(u32, f64))| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6;
        assert!(found.iter().zip(expected).all(same), "{found:?} {expected:?}");
    }

    #[test]
    fn each_setting_does_what_its_name_says() {
        close(&probabilities(&Shape::default(), 0), &[(9, 0.5), (2, 0.25), (4, 0.125), (7, 0.125)]);
        let shape = Shape { top_k: Some(2.into()), ..Shape::default() };
        close(&probabilities(&shape, 3), &[(9, 2.0 / 3.0), (2, 1.0 / 3.0)]);
        let shape = Shape { top_p: Some(0.51.into()), ..Shape::default() };
        close(&probabilities(&shape, 3), &[(9, 2.0 / 3.0), (2, 1.0 / 3.0)]);
        let shape = Shape { top_p: Some(1e-9.into()), ..Shape::default() };
        close(&probabilities(&shape, 0), &[(9, 1.0)]);
        let shape = Shape { temperature: vec![0.0, 0.5, 1e30].into(), ..Shape::default() };
        close(&probabilities(&shape, 0), &[(9, 1.0)]);
        close(&probabilities(&shape, 1), &[(9, 16.0 / 22.0), (2, 4.0 / 22.0), (4, 1.0 / 22.0), (7, 1.0 / 22.0)]);
        for level in [2, 3, 9] {
            close(&probabilities(&shape, level), &[(9, 0.25), (2, 0.25), (4, 0.25), (7, 0.25)]);
        }
    }

    #[test]
    fn settings_out_of_bounds_are_named() {
        let refuses = |shape: Shape, name: &str| {
            let error = shape.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        for temperature in [-0.1, f32::NAN, f32::INFINITY] {
            refuses(Shape { temperature: temperature.into(), ..Shape::default() }, "temperature");
        }
        refuses(Shape { temperature: vec![].into(), ..Shape::default() }, "temperature");
        refuses(Shape { top_k: Some(vec![3, 0].into()), ..Shape::default() }, "top_k");
        refuses(Shape { top_p: Some(0.0.into()), ..Shape::default() }, "top_p");
        refuses(Shape { top_p: Some(1.1.into()), ..Shape::default() }, "top_p");
        let shape: Shape = serde_json::from_str(r#"{"temperature": [1.5, 0.2], "top_k": 7}"#).unwrap();
        assert_eq!((shape.temperature.at(4), shape.top_k.unwrap().at(0)), (Some(0.2), Some(7)));
    }
}
