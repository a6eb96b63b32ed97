//! What a training run is made of.

use std::time::Duration;

use genrec_kernels::optim::{AdafactorConfig, OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Result, TrainError};

/// A recurring point of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Every {
    /// After every so many whole epochs.
    Epochs(u32),
    /// After every so many steps, wherever they fall in an epoch.
    Steps(u64),
}

/// A training run's settings.
///
/// The defaults are those of TIGER (Rajput et al., arXiv 2305.05065, section 4): learning rate 0.01 for the first 10,000
/// steps and by the inverse square root of the step after them, 200,000 steps. The paper names no optimiser; its
/// learning rate is the customary one of Adafactor with parameter scaling, which is the default therefore.
///
/// ```
/// use genrec_train::{Every, TrainConfig};
///
/// let config = TrainConfig::default().with_epochs(Some(20)).with_patience(Some(3)).with_validate_every(Every::Epochs(1));
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// Optimiser and its hyper-parameters; Adafactor by default.
    pub optimizer: OptimizerConfig,
    /// Base learning rate, which the schedule scales, above 0; 0.01 by default.
    pub learning_rate: f64,
    /// Change of the learning rate over steps; [`Schedule::tiger`] by default.
    pub schedule: Schedule,
    /// Bound on the Euclidean norm of all gradients together, above 0; none by default.
    pub clip_norm: Option<f64>,
    /// Epochs after which the run ends; none by default.
    pub epochs: Option<u32>,
    /// Steps after which the run ends; 200,000 by default.
    pub max_steps: Option<u64>,
    /// Wall-clock time after which the run ends, counted over all resumed parts and including validations; none by
    /// default. Where such a run ends depends on the machine and its load, so it cannot be reproduced.
    pub max_duration: Option<Duration>,
    /// Share of the run, its end, over which the learning rate falls linearly towards 0, besides what the schedule does; from
    /// 0 to 1, 0 by default. The run's length is the steps that `epochs` and `max_steps` allow, and the time that
    /// `max_duration` and [`Callback::deadline`](crate::Callback::deadline) do: whichever of the two asks for the lower rate.
    pub cooldown: f64,
    /// When to validate; after every epoch by default. The run's last step is validated besides, when `epochs`,
    /// `max_steps`, `max_duration`, a deadline or the cooldown after the patience ends the run.
    pub validate_every: Every,
    /// Validations in a row without improvement after which the run ends, at least 1; none by default. Where there is a
    /// cooldown below 1 it comes first: the run then goes on over the share of its length that the cooldown has, whatever validations say,
    /// unless something else ends it before. A patience that runs out within the cooldown of another limit changes nothing.
    pub patience: Option<u32>,
    /// By how much a metric must exceed the last one that counted as an improvement to reset the patience, at least 0;
    /// 0 by default. The best weights are kept by the metric alone.
    pub min_delta: f64,
    /// Steps between checkpoints of the run, besides those at every validation and at the end of every epoch; 1,000 by
    /// default, 0 for none in between.
    pub checkpoint_every_steps: u64,
    /// Where the random numbers of dropout start; 0 by default.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            optimizer: OptimizerConfig::Adafactor(AdafactorConfig::default()),
            learning_rate: 0.01,
            schedule: Schedule::tiger(),
            clip_norm: None,
            epochs: None,
            max_steps: Some(200_000),
            max_duration: None,
            cooldown: 0.0,
            validate_every: Every::Epochs(1),
            patience: None,
            min_delta: 0.0,
            checkpoint_every_steps: 1000,
            seed: 0,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $setter:ident, $field:ident: $type:ty;)*) => {
        impl TrainConfig {
            $($(#[$doc])*
            #[must_use]
            pub fn $setter(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            })*
        }
    };
}

setters! {
    /// Sets the optimiser.
    with_optimizer, optimizer: OptimizerConfig;
    /// Sets the base learning rate.
    with_learning_rate, learning_rate: f64;
    /// Sets the schedule of the learning rate.
    with_schedule, schedule: Schedule;
    /// Sets the bound on the gradients' norm, or removes it.
    with_clip_norm, clip_norm: Option<f64>;
    /// Sets the number of epochs, or removes the limit.
    with_epochs, epochs: Option<u32>;
    /// Sets the number of steps, or removes the limit.
    with_max_steps, max_steps: Option<u64>;
    /// Sets the wall-clock limit, or removes it.
    with_max_duration, max_duration: Option<Duration>;
    /// Sets the share of the run, in steps or in time, over which the learning rate falls.
    with_cooldown, cooldown: f64;
    /// Sets when to validate.
    with_validate_every, validate_every: Every;
    /// Sets the patience, or removes early stopping.
    with_patience, patience: Option<u32>;
    /// Sets what counts as an improvement.
    with_min_delta, min_delta: f64;
    /// Sets the steps between checkpoints.
    with_checkpoint_every_steps, checkpoint_every_steps: u64;
    /// Sets the seed.
    with_seed, seed: u64;
}

impl TrainConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`TrainError::Config`] and [`TrainError::Optimizer`] name the first field that is out of range,
    /// [`TrainError::Unbounded`] says that nothing ends the run; a callback's deadline does not count.
    pub fn validate(&self) -> Result<()> {
        self.optimizer.validate().map_err(|source| TrainError::Optimizer { source })?;
        self.schedule.validate().map_err(|source| TrainError::Optimizer { source })?;
        let check = |field, ok: bool, value: String, bound| {
            if ok { Ok(()) } else { Err(TrainError::Config { field, value, bound }) }
        };
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let lr = self.learning_rate;
        check("learning_rate", positive(lr), lr.to_string(), "above 0 and finite")?;
        if let Some(norm) = self.clip_norm {
            check("clip_norm", positive(norm), norm.to_string(), "above 0 and finite")?;
        }
        check("epochs", self.epochs != Some(0), "0".to_owned(), "at least 1, or absent")?;
        check("max_steps", self.max_steps != Some(0), "0".to_owned(), "at least 1, or absent")?;
        let every = !matches!(self.validate_every, Every::Epochs(0) | Every::Steps(0));
        check("validate_every", every, "0".to_owned(), "at least 1 epoch or step")?;
        check("patience", self.patience != Some(0), "0".to_owned(), "at least 1 validation, or absent")?;
        let cooldown = self.cooldown;
        check("cooldown", (0.0..=1.0).contains(&cooldown), cooldown.to_string(), "from 0 to 1")?;
        let delta = self.min_delta;
        check("min_delta", delta >= 0.0 && delta.is_finite(), delta.to_string(), "at least 0 and finite")?;
        if self.epochs.is_none() && self.max_steps.is_none() && self.max_duration.is_none() {
            return Err(TrainError::Unbounded);
        }
        Ok(())
    }

    /// Steps after which a run ends whose epochs have that many batches, if its configuration says so.
    pub(crate) fn steps(&self, batches: impl Fn(u32) -> usize) -> Option<u64> {
        let limit = self.max_steps.unwrap_or(u64::MAX);
        let mut steps = 0u64;
        for epoch in 0..self.epochs.unwrap_or(0) {
            steps = steps.saturating_add(batches(epoch) as u64);
            if steps >= limit {
                break;
            }
        }
        let by_epochs = self.epochs.map(|_| steps);
        [by_epochs, self.max_steps].into_iter().flatten().min()
    }

    /// What the learning rate is multiplied by after `done` of `limit`, in steps or in seconds, besides the schedule.
    pub(crate) fn cooldown_factor(&self, done: f64, limit: Option<f64>) -> f64 {
        let Some(limit) = limit else { return 1.0 };
        let left = (limit - done).max(0.0);
        let cooldown = self.cooldown * limit;
        if left < cooldown { left / cooldown } else { 1.0 }
    }

    /// Steps of a run whose cooldown begins after so many of them; `None` where no part of the run comes before it, or none is it.
    pub(crate) fn steps_cooling_since(&self, begin: u64) -> Option<u64> {
        let cooldown = self.cooldown;
        (cooldown > 0.0 && cooldown < 1.0).then(|| (begin as f64 / (1.0 - cooldown)).ceil() as u64)
    }

    /// What decides the result of a run, as JSON: every field but those that may change between a run's parts.
    pub(crate) fn fingerprint(&self) -> Result<Value> {
        let mut value = serde_json::to_value(self)
            .map_err(|error| TrainError::State { source: candle_core::Error::wrap(error) })?;
        if let Some(fields) = value.as_object_mut() {
            fields.remove("max_duration");
            fields.remove("checkpoint_every_steps");
        }
        Ok(value)
    }
}

/// The first field in which two fingerprints differ, with both values as JSON.
pub(crate) fn first_difference(saved: &Value, given: &Value) -> Option<(String, String, String)> {
    fn walk(path: &str, saved: &Value, given: &Value) -> Option<(String, String, String)> {
        let (Value::Object(a), Value::Object(b)) = (saved, given) else {
            return (saved != given).then(|| (path.to_owned(), saved.to_string(), given.to_string()));
        };
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            walk(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
        })
    }
    walk("", saved, given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(config: &TrainConfig) -> &'static str {
        match config.validate() {
            Err(TrainError::Config { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_field_is_checked() {
        let ok = TrainConfig::default();
        assert!(ok.validate().is_ok());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(field_of(&ok.clone().with_learning_rate(bad)), "learning_rate");
            assert_eq!(field_of(&ok.clone().with_clip_norm(Some(bad))), "clip_norm");
        }
        assert_eq!(field_of(&ok.clone().with_epochs(Some(0))), "epochs");
        assert_eq!(field_of(&ok.clone().with_max_steps(Some(0))), "max_steps");
        assert_eq!(field_of(&ok.clone().with_validate_every(Every::Steps(0))), "validate_every");
        assert_eq!(field_of(&ok.clone().with_validate_every(Every::Epochs(0))), "validate_every");
        assert_eq!(field_of(&ok.clone().with_patience(Some(0))), "patience");
        assert_eq!(field_of(&ok.clone().with_min_delta(-1e-9)), "min_delta");
        assert_eq!(field_of(&ok.clone().with_cooldown(1.1)), "cooldown");
        assert_eq!(field_of(&ok.clone().with_cooldown(f64::NAN)), "cooldown");
        assert!(matches!(ok.clone().with_max_steps(None).validate(), Err(TrainError::Unbounded)));
        let rising = Schedule::Linear { warmup_steps: 0, total_steps: 9, final_factor: -5.0 };
        assert!(matches!(ok.clone().with_schedule(rising).validate(), Err(TrainError::Optimizer { .. })));
        let mut adafactor = AdafactorConfig::default();
        adafactor.clip_threshold = 0.0;
        let bad = ok.with_optimizer(OptimizerConfig::Adafactor(adafactor));
        assert!(matches!(bad.validate(), Err(TrainError::Optimizer { .. })));
    }

    #[test]
    fn the_cooldown_is_the_end_of_the_run() {
        let config = TrainConfig::default().with_cooldown(0.2);
        let batches = |epoch: u32| 10 + epoch as usize;
        assert_eq!(config.steps(batches), Some(200_000));
        assert_eq!(config.clone().with_epochs(Some(3)).steps(batches), Some(33));
        assert_eq!(config.clone().with_epochs(Some(u32::MAX)).with_max_steps(Some(40)).steps(batches), Some(40));
        assert_eq!(config.clone().with_max_steps(None).steps(batches), None);
        assert_eq!(config.cooldown_factor(1e9, None), 1.0);
        let factors = [0.0, 80.0, 90.0, 95.0, 100.0, 200.0].map(|at| config.cooldown_factor(at, Some(100.0)));
        assert_eq!(factors, [1.0, 1.0, 0.5, 0.25, 0.0, 0.0]);
        assert_eq!(config.steps_cooling_since(80), Some(100));
        for whole in [0.0, 1.0] {
            assert_eq!(config.clone().with_cooldown(whole).steps_cooling_since(80), None);
        }
        assert_eq!(config.with_cooldown(0.0).cooldown_factor(99.0, Some(100.0)), 1.0);
    }

    #[test]
    fn survives_json_and_refuses_unknown_fields() {
        let config = TrainConfig::default()
            .with_max_duration(Some(Duration::from_secs(90)))
            .with_validate_every(Every::Steps(7))
            .with_learning_rate(0.1 + 0.2);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&json).unwrap(), config);
        assert_eq!(serde_json::from_str::<TrainConfig>("{}").unwrap(), TrainConfig::default());
        assert!(serde_json::from_str::<TrainConfig>(r#"{"learning_rat": 1.0}"#).is_err());
    }

    #[test]
    fn a_difference_is_found_by_its_path() {
        let config = TrainConfig::default();
        let saved = config.fingerprint().unwrap();
        let difference = |other: TrainConfig| first_difference(&saved, &other.fingerprint().unwrap());
        assert_eq!(difference(config.clone()), None);
        let free = config.clone().with_max_duration(Some(Duration::from_secs(1))).with_checkpoint_every_steps(3);
        assert_eq!(difference(free), None);
        let seed = difference(config.clone().with_seed(5));
        assert_eq!(seed, Some(("seed".to_owned(), "0".to_owned(), "5".to_owned())));
        let decay = AdafactorConfig::default().with_weight_decay(0.5);
        let path = difference(config.with_optimizer(OptimizerConfig::Adafactor(decay))).map(|(path, ..)| path);
        assert_eq!(path.as_deref(), Some("optimizer.weight_decay"));
    }
}
