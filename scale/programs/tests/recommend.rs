//! One process and a cluster recommend what the run itself recommends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "what the processes said, when the test fails")]

#[path = "cluster/processes.rs"]
mod processes;

use std::fmt::Write;
use std::time::Instant;

use candle_core::Device;
use genrec::artifacts::RunDir;
use genrec::data::{Item, SyntheticConfig};
use genrec::pipeline::{self, Event, TigerConfig};
use genrec::quantize::ResidualKMeansConfig;
use genrec_scale::patience::PAUSE;
use genrec_scale::recommend::{Job, histories_to_parquet};
use genrec_scale::session::Place;
use genrec_scale::{block_on, sink};
use processes::Cluster;

/// More than a batch.
const USERS: usize = 1100;

#[test]
fn every_user_gets_what_the_run_recommends() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let shop = SyntheticConfig::default().with_users(300).generate().unwrap();
    let quantizer = ResidualKMeansConfig::default().with_codebook_sizes([16, 16, 16]);
    let mut config = TigerConfig::quickstart().with_quantizer(quantizer.into());
    config.train.epochs = Some(1);
    let quiet = &mut |_: &Event<'_>| {};
    let outcome = pipeline::run(&shop.dataset, &config, &dir.join("run"), &Device::Cpu, None, false, quiet).unwrap();

    let catalogue = outcome.recommender.catalogue();
    // One user has no item but the two that are left out.
    let mut lines = format!("short {0} {0}\n", catalogue.items()[0].id);
    for user in 0..USERS {
        let ids = (0..4 + user % 7).map(|at| catalogue.items()[(user * 7 + at * 3) % catalogue.len()].id.as_str());
        writeln!(lines, "{user} {}", ids.collect::<Vec<_>>().join(" ")).unwrap();
    }
    std::fs::write(dir.join("sequences.txt"), lines).unwrap();
    assert_eq!(histories_to_parquet(&dir.join("sequences.txt"), 2, &dir.join("histories.parquet")).unwrap(), USERS);

    let job = |out: &str, cluster, user| Job {
        run: dir.join("run"),
        input: dir.join("histories.parquet"),
        out: dir.join(out),
        k: 5,
        id: "id".to_owned(),
        history: "history".to_owned(),
        user,
        check: true,
        place: Place { memory: 256, cluster, partitions: Some(4) },
    };
    assert_eq!(block_on(job("one", None, None).run()).unwrap(), USERS);
    assert_eq!(block_on(job("named", None, Some("id".to_owned())).run()).unwrap(), USERS);
    let options = ["--run".to_owned(), dir.join("run").display().to_string()];
    let cluster = Cluster::start(dir, &options, 2);
    assert_eq!(block_on(job("cluster", Some(cluster.url.clone()), Some("id".to_owned())).run()).unwrap(), USERS);

    // A small file is shared out too, if it has more rows than a batch.
    let results: usize = (0..2).map(|executor| cluster.results(executor).len()).sum();
    assert!(results >= 4, "{results} tasks");

    // The tables say what made them.
    let run = RunDir::new(dir.join("run")).fingerprint().unwrap();
    let run: String = run.iter().map(|byte| format!("{byte:02x}")).collect();
    for out in ["one", "cluster"] {
        let table = dir.join(out).join("recommendations");
        sink::check_label(&table, "genrec.run", &run).unwrap();
        assert!(sink::check_label(&table, "genrec.run", "another").is_err());
    }

    // The executors have the run of before this item, and the client's is that of after.
    let mut recommender = outcome.recommender;
    recommender.add_item(Item::new("late").with_title("late")).unwrap();
    recommender.save_catalogue(dir.join("run")).unwrap();
    let begun = Instant::now();
    let error = block_on(job("other", Some(cluster.url.clone()), None).run()).unwrap_err();
    assert!(error.to_string().starts_with("an executor has another run"), "{error}");
    // Two attempts more would have begun after a pause each.
    assert!(begun.elapsed() < 2 * PAUSE, "a refusal is final");
    assert!(!dir.join("other").join("recommendations").exists());
}
