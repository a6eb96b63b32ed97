//! A cluster gives the Semantic IDs that one process gives, also when one of its executors is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "what the processes said, when the test fails")]

#[path = "cluster/processes.rs"]
mod processes;

use std::path::Path;
use std::time::Duration;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, UInt32Type};
use datafusion::prelude::SessionContext;
use genrec_scale::fit::{Method, Sample};
use genrec_scale::generate::Table;
use genrec_scale::quantize::Job;
use genrec_scale::session::{Place, parquet};
use genrec_scale::{block_on, plain};
use processes::Cluster;

const ROWS: usize = 200_000;

/// An id, its codes, its suffix.
type Sid = (i64, Vec<u32>, u32);

fn job(dir: &Path, out: &str, cluster: Option<String>) -> Job {
    Job {
        quantizer: dir.join("quantizer"),
        input: dir.join("embeddings"),
        out: dir.join(out),
        id: "id".to_owned(),
        embedding: "embedding".to_owned(),
        given: Vec::new(),
        place: Place { memory: 256, partitions: cluster.as_ref().map(|_| 8), cluster },
    }
}

fn rows(batch: &RecordBatch) -> Vec<Sid> {
    let ids = batch.column(0).as_primitive::<Int64Type>().values();
    let codes = batch.column(1).as_fixed_size_list();
    let suffixes = batch.column(2).as_primitive::<UInt32Type>().values();
    let codes = (0..batch.num_rows()).map(|row| codes.value(row).as_primitive::<UInt32Type>().values().to_vec());
    ids.iter().zip(codes).zip(suffixes).map(|((&id, codes), &suffix)| (id, codes, suffix)).collect()
}

/// What a job has written, by id.
fn written(out: &Path) -> Vec<Sid> {
    let mut all: Vec<Sid> = block_on(async {
        let table = parquet(&SessionContext::new(), &out.join("sids")).await?;
        Ok(table.collect().await?.iter().flat_map(rows).collect())
    })
    .unwrap();
    all.sort();
    all
}

fn run(job: &Job) -> usize {
    let patient = async { tokio::time::timeout(Duration::from_secs(100), job.run()).await? };
    let outcome = block_on(patient).unwrap();
    assert_eq!((outcome.rows, outcome.sids, outcome.distinct), (ROWS, ROWS, ROWS));
    outcome.cells
}

#[test]
fn a_cluster_gives_what_one_process_gives_and_survives_an_executor() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    Table { rows: ROWS, width: 32, files: 8, seed: 1, out: dir.join("embeddings") }.write().unwrap();
    let sample = Sample {
        input: dir.join("embeddings"),
        embedding: None,
        rows: 4000,
        method: Method::ResidualKMeans,
        codebooks: vec![64, 64, 64],
        seed: 0,
        epochs: Some(3),
    };
    sample.fit().unwrap().save(dir.join("quantizer")).unwrap();

    let cells = run(&job(dir, "one", None));
    assert!(cells < ROWS, "some items must share their codes");
    let one = written(&dir.join("one"));
    let mut plainly = Vec::new();
    plain::encode(&dir.join("quantizer"), &dir.join("embeddings"), None, |codes| {
        plainly.extend(codes.rows().into_iter().map(|row| row.to_vec()));
    })
    .unwrap();
    assert!(
        one.iter().map(|(id, codes, _)| (*id, codes)).eq((0..).zip(&plainly)),
        "codes are not those of the encoder"
    );

    let options = ["--quantizer".to_owned(), dir.join("quantizer").display().to_string()];
    let mut cluster = Cluster::start(dir, &options, 2);
    assert_eq!(run(&job(dir, "cluster", Some(cluster.url.clone()))), cells);
    assert!(written(&dir.join("cluster")) == one, "the cluster gives other Semantic IDs");
    assert!((0..2).all(|executor| !cluster.results(executor).is_empty()), "an executor had nothing to do");

    // The second executor dies as soon as it has a part of the result, which then is lost with it: while the rows are encoded, and while
    // they are checked, which takes stages back that others are at.
    for (out, from) in [("survived", "."), ("checked", "unchecked")] {
        let job = job(dir, out, Some(cluster.url.clone()));
        let (mut before, mut killed) = (None, false);
        std::thread::scope(|scope| {
            let work = scope.spawn(|| run(&job));
            while !work.is_finished() {
                if !killed && job.out.join(from).exists() {
                    let before = before.get_or_insert_with(|| cluster.results(1));
                    if cluster.results(1).difference(before).next().is_some() {
                        cluster.executors[1].kill();
                        killed = !work.is_finished();
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(work.join().unwrap(), cells);
        });
        assert!(killed, "{out}: the job was over before its executor was killed");
        assert!(written(&dir.join(out)) == one, "{out}: Semantic IDs changed with the loss of an executor");
        cluster.restart(1);
    }

    assert!(cluster.executors[0].terminate().success(), "an executor that is told to end has no error");
    cluster.scheduler.kill();
    assert!(
        !cluster.executors[1].ended().success(),
        "an executor without a scheduler would keep results that nobody asks for"
    );
}
