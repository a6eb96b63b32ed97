//! Learning curves of a run, as a picture that grows with it.

use std::path::{Path, PathBuf};

use genrec::pipeline::{Event, Observer, Stage};
use serde::{Deserialize, Serialize};

use crate::{
    BoxError,
    figures::{self, Curve, Panel, Point},
    read_json,
    report::write_json,
};

/// More points of the loss than these are put together two by two.
const MOST: usize = 400;

/// What has been seen of a run, by step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Points {
    /// Steps that a point of the loss is the mean of.
    steps_a_point: u64,
    /// Last step of a point, and the mean loss over its steps.
    loss: Vec<(u64, f64)>,
    /// Step of a validation, and its NDCG@10.
    validation: Vec<(u64, f64)>,
}

impl Points {
    /// Forgets what came after a step: an interrupted run goes on from its last checkpoint.
    fn cut(&mut self, step: u64) {
        self.loss.retain(|point| point.0 < step);
        self.validation.retain(|point| point.0 < step);
    }

    fn halve(&mut self) {
        let together = |pair: &[(u64, f64)]| {
            let mean = pair.iter().map(|point| point.1).sum::<f64>() / pair.len() as f64;
            pair.last().map(|last| (last.0, mean))
        };
        self.loss = self.loss.chunks(2).filter_map(together).collect();
        self.steps_a_point *= 2;
    }

    fn panels(&self) -> [Panel; 2] {
        let curve = |name: &str, points: &[(u64, f64)]| {
            let points = points.iter().map(|&(step, y)| Point { x: step as f64, y, interval: None }).collect();
            Curve { name: name.to_owned(), points }
        };
        let best = self.validation.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best });
        let last = self.loss.last().map_or(0, |point| point.0);
        let panel = |title: &str, measure: &str, decimals, curves| {
            let (title, measure, setting) = (title.to_owned(), measure.to_owned(), "step".to_owned());
            Panel { title, measure, setting, range: Some((0.0, last as f64)), decimals, curves }
        };
        let best: Vec<(u64, f64)> = best.into_iter().collect();
        [
            panel("Training", "mean loss (nats a code)", 1, vec![curve("training loss", &self.loss)]),
            panel(
                "Validation",
                "NDCG@10",
                3,
                vec![curve("validation", &self.validation), curve("weights that are kept", &best)],
            ),
        ]
    }
}

/// Watches a run and draws its loss and its validations by step: `curves.svg` anew at each validation, `curves.png` at the end of
/// training, beside `curves.json`, from which an interrupted run goes on.
#[derive(Debug)]
pub struct Curves {
    dir: PathBuf,
    points: Points,
    /// Whether the first step has come.
    begun: bool,
    sum: f64,
    steps: u64,
    error: Option<BoxError>,
}

impl Curves {
    /// Of the run in a directory; with `resume` they go on where those that lie there end.
    pub fn new(dir: &Path, resume: bool) -> Self {
        let numbers = dir.join("curves.json");
        let found = (resume && numbers.exists()).then(|| read_json(&numbers).map(serde_json::from_value));
        let points = match found {
            Some(Ok(Ok(points))) => points,
            // They are a picture, and not worth a run that cannot go on.
            _ => Points { steps_a_point: 1, ..Points::default() },
        };
        Self { dir: dir.to_path_buf(), points, begun: false, sum: 0.0, steps: 0, error: None }
    }

    /// Where the pictures are; `None` where there was nothing to draw.
    ///
    /// # Errors
    /// The first error of writing one.
    pub fn finish(self) -> Result<Option<PathBuf>, BoxError> {
        let picture = self.picture();
        self.error.map_or(Ok(picture.exists().then_some(picture)), Err)
    }

    fn picture(&self) -> PathBuf {
        self.dir.join("curves.svg")
    }

    fn step(&mut self, step: u64, loss: f64) {
        if !std::mem::replace(&mut self.begun, true) {
            self.points.cut(step);
        }
        self.sum += loss;
        self.steps += 1;
        if self.steps >= self.points.steps_a_point {
            self.points.loss.push((step, self.sum / self.steps as f64));
            (self.sum, self.steps) = (0.0, 0);
            if self.points.loss.len() > MOST {
                self.points.halve();
            }
        }
    }

    fn draw(&self) -> Result<(), BoxError> {
        let name = self.dir.file_name().unwrap_or(self.dir.as_os_str()).to_string_lossy();
        figures::lines(&self.picture(), &format!("{name}: learning curves"), &self.points.panels())?;
        write_json(&self.dir.join("curves.json"), &self.points)
    }

    fn note(&mut self, outcome: Result<(), BoxError>) {
        if let (Err(error), None) = (outcome, &self.error) {
            self.error = Some(error);
        }
    }
}

impl Observer for Curves {
    fn on_event(&mut self, event: &Event<'_>) {
        match event {
            Event::TrainStep(step) => self.step(step.step, f64::from(step.loss)),
            Event::Validation(validation) => {
                self.points.validation.push((validation.step, validation.metric));
                let drawn = self.draw();
                self.note(drawn);
            }
            Event::Finished { stage: Stage::Train, .. } if self.begun => {
                let drawn = self.draw().and_then(|()| figures::png(&self.picture()));
                self.note(drawn);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_long_run_has_no_more_points_than_can_be_drawn() {
        let mut curves = Curves::new(Path::new("nowhere"), false);
        (1..=10_000).for_each(|step| curves.step(step, step as f64));
        let points = &curves.points;
        assert_eq!(points.steps_a_point, 32);
        assert!(points.loss.len() <= MOST && points.loss.len() > MOST / 2 - 1, "{}", points.loss.len());
        assert_eq!(points.loss[0], (32, 16.5));
    }

    #[test]
    fn a_run_that_was_interrupted_goes_on_with_its_curves() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Curves::new(dir.path(), false);
        (1..=10).for_each(|step| first.step(step, 1.0 / step as f64));
        first.points.validation = vec![(4, 0.1), (8, 0.3)];
        first.draw().unwrap();
        let svg = std::fs::read_to_string(first.finish().unwrap().unwrap()).unwrap();
        for text in ["learning curves", "mean loss (nats a code)", "NDCG@10", "step", "weights that are kept"] {
            assert!(svg.contains(text), "{text}");
        }
        // The last checkpoint was at step 6.
        let mut second = Curves::new(dir.path(), true);
        second.step(7, 0.5);
        assert_eq!(second.points.loss.len(), 7);
        assert_eq!((second.points.loss[6], second.points.validation.as_slice()), ((7, 0.5), &[(4, 0.1)][..]));
        assert_eq!(Curves::new(dir.path(), false).points.loss, []);
    }
}
