//! Jobs on a cluster that are begun anew, and those that would fail again.

use std::time::Duration;

use datafusion::error::DataFusionError;

use crate::BoxError;

/// How often a job on a cluster is begun before its error is final.
const ATTEMPTS: usize = 3;

/// How long it waits before that.
pub const PAUSE: Duration = Duration::from_secs(5);

/// What executors refuse, by words of it, and the remedy where the words do not have it: an error comes from an executor as the text of its
/// fields.
const REFUSED: [(&str, &str); 7] = [
    ("OtherQuantizer {", "an executor has another quantiser; start all with the `--quantizer` of this job"),
    (
        "OtherRun {",
        "an executor has another run, or loaded it before items were added; start all anew with the `--run` of this job",
    ),
    ("Declared {", "an executor has no quantiser or no run; start it with `--quantizer` or `--run`"),
    (
        "column types must match schema types",
        "the scheduler reckons with another number of codes; start it with the `--levels` of this quantiser",
    ),
    ("of the batch: ", ""),
    ("the query asks for the ", ""),
    ("is only declared", ""),
];

/// Said by the client of a job that the scheduler has ended.
const ENDED: &str = "failed: Cancelled";

/// Does some work, and on a cluster (`again`) up to twice anew when the job was ended because an executor was lost, or results of one
/// cannot be reached.
///
/// # Errors
/// Those of the last attempt, with the remedy.
pub async fn retried<T>(again: bool, mut work: impl AsyncFnMut() -> Result<T, BoxError>) -> Result<T, BoxError> {
    if !again {
        return work().await;
    }
    for attempt in 1..ATTEMPTS {
        match work().await {
            Err(error) if lost(&error) => tracing::warn!(attempt, %error, "the job failed and is begun anew"),
            done => return done.map_err(explained),
        }
        // The scheduler may not have noticed yet that an executor is gone.
        tokio::time::sleep(PAUSE).await;
    }
    work().await.map_err(explained)
}

fn refused(error: &BoxError) -> Option<&'static str> {
    let text = error.to_string();
    REFUSED.iter().find(|(words, _)| text.contains(words)).map(|&(_, remedy)| remedy)
}

/// Whether an error may be that of a machine: all but what this program says of rows or files, and what executors refuse.
fn lost(error: &BoxError) -> bool {
    error.is::<DataFusionError>() && refused(error).is_none()
}

/// The same error, after its remedy.
fn explained(error: BoxError) -> BoxError {
    match refused(&error) {
        Some(remedy) if !remedy.is_empty() => format!("{remedy}: {error}").into(),
        None if error.to_string().contains(ENDED) => format!(
            "the scheduler ended the job, as an executor was lost or there is none; its log says which: {error}"
        )
        .into(),
        _ => error,
    }
}
