#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use prost::Message;

use super::{
    event::{Datum, Event, Session, Value, What},
    writer::masked,
    *,
};

/// The records of a file, as a reader takes them apart.
fn events(path: &Path) -> Vec<Event> {
    let bytes = std::fs::read(path).unwrap();
    let (mut rest, mut events) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_at(8);
        assert_eq!(after[..4], masked(length));
        let (data, after) = after[4..].split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(after[..4], masked(data));
        events.push(Event::decode(data).unwrap());
        rest = &after[4..];
    }
    events
}

fn values(events: &[Event]) -> Vec<(i64, &Value)> {
    let summaries = events.iter().filter_map(|event| match &event.what {
        Some(What::Summary(summary)) => Some((event.step, summary)),
        _ => None,
    });
    summaries.flat_map(|(step, summary)| summary.values.iter().map(move |value| (step, value))).collect()
}

fn curve(events: &[Event], tag: &str) -> Vec<(i64, f32)> {
    let scalar = |value: &Value| match value.datum {
        Some(Datum::Scalar(value)) => value,
        _ => panic!("{tag} is no scalar"),
    };
    values(events)
        .into_iter()
        .filter(|(_, value)| value.tag == tag)
        .map(|(step, value)| (step, scalar(value)))
        .collect()
}

fn step(step: u64, loss: f32) -> StepReport {
    StepReport {
        step,
        epoch: 1,
        epoch_step: step as usize,
        epoch_steps: 100,
        loss,
        lr: 0.5,
        grad_norm: 2.0,
        examples: 8 * step,
        seconds: 2.0 * step as f64,
    }
}

/// A checksum of the specification (RFC 3720, appendix B.4: 32 bytes of zeros) and, masked, a record's that TensorFlow wrote: of
/// the length 24.
#[test]
fn checksums_are_tensorflows() {
    assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(masked(&24_u64.to_le_bytes()), [0xa3, 0x7f, 0x4b, 0x22]);
}

#[test]
fn a_run_becomes_curves() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::create(dir.path().join("a/b")).unwrap().with_every(2).with_metric("ndcg@10");
    let path = board.writer.path().to_owned();
    for (number, loss) in (7..).zip([4.0, 3.0, 2.0, 1.0]) {
        assert!(board.on_step(&step(number, loss)).is_continue());
    }
    let epoch = EpochReport { epoch: 1, step: 10, mean_loss: 2.5, seconds: 20.0 };
    assert!(board.on_epoch(&epoch).is_continue());
    let validation = ValidationReport { step: 10, epoch: 1, metric: 0.25, best: true, train_loss: 2.5, seconds: 21.0 };
    assert!(board.on_validation(&validation).is_continue());
    board.text("settings", 0, "**k** 3");
    board.finish().unwrap();

    let events = events(&path);
    assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".to_owned())));
    assert_eq!((events[1].step, &events[1].what), (7, &Some(What::Session(Session { status: Session::START }))));
    assert!(events.iter().all(|event| event.wall_time > 1.7e9));
    assert_eq!(curve(&events, "train/loss"), [(8, 3.5), (10, 1.5)]);
    assert_eq!(curve(&events, "train/learning_rate"), [(8, 0.5), (10, 0.5)]);
    assert_eq!(curve(&events, "train/gradient_norm"), [(8, 2.0), (10, 2.0)]);
    assert_eq!(curve(&events, "train/examples_per_second"), [(8, 4.0), (10, 4.0)]);
    assert_eq!(curve(&events, "epoch/loss"), [(10, 2.5)]);
    assert_eq!(curve(&events, "validation/ndcg@10"), [(10, 0.25)]);
    let Some(Datum::Tensor(text)) = &values(&events).last().unwrap().1.datum else { panic!("no text") };
    assert_eq!(text.strings, [b"**k** 3"]);
}

#[test]
fn counts_become_a_histogram_with_a_bucket_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(dir.path()).unwrap();
    writer.counts("codes", 5, &[0, 3, 0, 1]).unwrap();
    writer.counts("nothing", 5, &[0, 0]).unwrap();
    writer.counts("nothing", 5, &[]).unwrap();
    writer.flush().unwrap();
    let events = events(writer.path());
    let values = values(&events);
    assert_eq!(values.len(), 1);
    let (5, Value { tag, datum: Some(Datum::Histogram(histogram)), .. }) = values[0] else { panic!("{values:?}") };
    assert_eq!(tag, "codes");
    assert_eq!((histogram.min, histogram.max, histogram.num), (1.0, 3.0, 4.0));
    assert_eq!((histogram.sum, histogram.sum_squares), (6.0, 12.0));
    assert_eq!(histogram.limits, [0.5, 1.5, 2.5, 3.5]);
    assert_eq!(histogram.counts, [0.0, 3.0, 0.0, 1.0]);
}

#[test]
fn writers_of_one_second_do_not_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let paths: std::collections::BTreeSet<_> =
        (0..3).map(|_| EventWriter::create(dir.path()).unwrap().path().to_owned()).collect();
    assert_eq!(paths.len(), 3);
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(EventWriter::create(dir.path().join("file")), Err(TrainError::Io { .. })));
}

/// A device that is always full stands for the disk.
#[cfg(target_os = "linux")]
#[test]
fn a_run_goes_on_without_its_curves_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::create(dir.path()).unwrap().with_every(1);
    board.writer.fill();
    for number in 1..=3 {
        assert!(board.on_step(&step(number, 1.0)).is_continue());
    }
    let checkpoint = CheckpointReport { path: dir.path().to_owned(), step: 3, best: false };
    assert!(board.on_checkpoint(&checkpoint).is_continue());
    assert!(board.on_step(&step(4, 1.0)).is_continue());
    let error = board.finish().unwrap_err();
    assert!(matches!(&error, TrainError::Io { action: "write", .. }), "{error}");
}
