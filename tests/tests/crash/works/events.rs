//! Curves are written for TensorBoard.

use std::{fs, path::Path};

use genrec::train::tensorboard::TensorBoard;

use super::{BoxError, Work};

pub(crate) const EVENTS: Work = Work {
    // Named after the second and the process; the events hold the time.
    alias: |file| if file.starts_with("events/") { "events/file" } else { file },
    is_timed: |file| file.starts_with("events/"),
    ..Work::new("events", draw, is_done)
};

const STEPS: u64 = 300;

fn draw(root: &Path) -> Result<(), BoxError> {
    let mut curves = TensorBoard::create(root.join("events"))?;
    for step in 1..=STEPS {
        curves.scalars(step, &[("train/loss", 1.0 / step as f64)]);
        if step.is_multiple_of(50) {
            curves.flush();
        }
    }
    Ok(curves.finish()?)
}

/// Every file begins with whole events, and a reader stops where they end; some file has all of them.
fn is_done(root: &Path) -> bool {
    let Ok(files) = fs::read_dir(root.join("events")) else { return false };
    files.map(|file| whole_events(&fs::read(file.unwrap().path()).unwrap())).max() == Some(STEPS as usize + 1)
}

/// How many whole events a file begins with.
fn whole_events(bytes: &[u8]) -> usize {
    let (mut rest, mut events) = (bytes, 0);
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let record = 4 + u64::from_le_bytes(*length) as usize + 4;
        let Some(next) = after.get(record..) else { break };
        (rest, events) = (next, events + 1);
    }
    events
}
