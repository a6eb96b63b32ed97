//! Jobs on a cluster that are begun anew, and those that would fail again.

use std::time::Duration;

use datafusion::error::DataFusionError;

use crate::BoxError;

/// How often a job on a cluster is begun before its error is final.
const ATTEMPTS: usize = 3;

/// How long it waits before that.
pub const PAUSE: Duration = Duration::from_secs(5);

/// What is said where an operator may not have the memory that it needs, by DataFusion and of its error by an executor.
const EXHAUSTED: [&str; 2] = ["Resources exhausted", "ResourcesExhausted("];

/// What executors refuse, by words of it, and the remedy where the words do not have it: an error comes from an executor as the text of its
/// fields.
const REFUSED: [(&str, &str); 9] = [
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
    (EXHAUSTED[0], "an executor needs more memory: start all with a larger `--memory`"),
    (EXHAUSTED[1], "an executor needs more memory: start all with a larger `--memory`"),
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
        return work().await.map_err(|error| match EXHAUSTED.iter().any(|words| error.to_string().contains(words)) {
            true => format!("the query needs more memory; raise `--memory`: {error}").into(),
            false => error,
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of an executor as the client of a job gets it.
    fn of_executor(error: &DataFusionError) -> BoxError {
        DataFusionError::Execution(format!("Job failed: runtime execution error: {error:?}")).into()
    }

    #[test]
    fn what_an_executor_refuses_is_final_and_has_a_remedy() {
        let memory = of_executor(&DataFusionError::ResourcesExhausted("Failed to allocate".to_owned()));
        assert!(!lost(&memory));
        assert!(explained(memory).to_string().starts_with("an executor needs more memory"));
        let (asked, here) = ("a".to_owned(), "b".to_owned());
        let other = of_executor(&genrec_datafusion::Error::OtherRun { asked, here }.into());
        assert!(!lost(&other));
        assert!(explained(other).to_string().starts_with("an executor has another run"));
    }

    #[test]
    fn what_a_machine_may_be_the_reason_for_is_tried_again() {
        assert!(lost(&of_executor(&DataFusionError::Execution("connection refused".to_owned()))));
        assert!(!lost(&"3 rows have no `sid`".into()), "this program's own words are final");
    }

    #[test]
    fn an_attempt_on_one_machine_is_the_only_one() {
        let mut attempts = 0;
        let failing = async || {
            attempts += 1;
            Err::<(), BoxError>(DataFusionError::ResourcesExhausted("Failed to allocate".to_owned()).into())
        };
        let error = crate::block_on(retried(false, failing)).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("raise `--memory`")));
        assert_eq!(attempts, 1);
    }
}
