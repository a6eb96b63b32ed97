//! `recommend` gives what the run gives, or what the run refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::{Arc, OnceLock};

use candle_core::Device;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder,
};
use datafusion::arrow::datatypes::{Float32Type, Int32Type};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{col, lit};
use genrec::data::SyntheticConfig;
use genrec::index::ItemId;
use genrec::pipeline::{self, Event, TigerConfig};
use genrec::{History, Recommender};
use genrec_datafusion::{Error, Recommend};
use sid_quantize::ResidualKMeansConfig;
use support::session;

/// A run that was trained for a moment, opened from its directory.
fn run() -> &'static (Recommender, Recommend) {
    static RUN: OnceLock<(Recommender, Recommend)> = OnceLock::new();
    RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let shop = SyntheticConfig::default().with_users(60).generate().unwrap();
        let quantizer = ResidualKMeansConfig::default().with_codebook_sizes([16, 16, 16]);
        let mut config = TigerConfig::quickstart().with_quantizer(quantizer.into());
        config.train.epochs = Some(1);
        let quiet = &mut |_: &Event<'_>| {};
        pipeline::run(&shop.dataset, &config, dir.path(), &Device::Cpu, None, false, quiet).unwrap();
        let plain = Recommender::load(dir.path(), &Device::Cpu).unwrap();
        (plain, Recommend::open(dir.path(), &Device::Cpu).unwrap())
    })
}

/// Histories of 1 to 7 items.
fn histories(rows: usize) -> Vec<Vec<ItemId>> {
    (0..rows as u32).map(|row| (0..=row % 7).map(|at| ItemId((row * 5 + at * 11) % 40)).collect()).collect()
}

fn names(items: &[ItemId]) -> Vec<String> {
    items.iter().map(|&item| run().0.catalogue().get(item).unwrap().id.clone()).collect()
}

fn text(histories: &[Vec<ItemId>]) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for items in histories {
        names(items).into_iter().for_each(|name| lists.values().append_value(name));
        lists.append(true);
    }
    Arc::new(lists.finish())
}

fn found(array: &dyn Array, row: usize) -> Vec<(String, f32)> {
    let list = array.as_list::<i32>().value(row);
    let list = list.as_struct();
    let scores = list.column(1).as_primitive::<Float32Type>().values().to_vec();
    list.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).zip(scores).collect()
}

fn plain(histories: &[Vec<ItemId>], k: usize) -> Vec<Vec<(String, f32)>> {
    let histories: Vec<_> = histories.iter().map(|items| History { user: None, items }).collect();
    let lists = run().0.recommend(&histories, k).unwrap();
    lists.into_iter().map(|list| list.into_iter().map(|item| (item.id, item.score)).collect()).collect()
}

#[tokio::test]
async fn every_row_gets_what_the_run_recommends() {
    let histories = histories(200);
    let expected = plain(&histories, 5);
    for partitions in [1, 3] {
        let ctx = session(partitions);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200));
        let batch = RecordBatch::try_from_iter([("id", ids), ("history", text(&histories))]).unwrap();
        let mut parts = vec![Vec::new(); partitions];
        (0..200)
            .step_by(23)
            .enumerate()
            .for_each(|(at, row)| parts[at % partitions].push(batch.slice(row, 23.min(200 - row))));
        let users = ctx.read_table(Arc::new(MemTable::try_new(batch.schema(), parts).unwrap())).unwrap();
        let query = users.select([col("id"), run().1.call(col("history"), lit(5_i64)).alias("items")]).unwrap();
        let mut rows = 0;
        for batch in query.collect().await.unwrap() {
            assert_eq!(batch.column(1).data_type(), &Recommend::data_type());
            for (row, id) in
                batch.column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>().values().iter().enumerate()
            {
                assert_eq!(found(batch.column(1), row), expected[*id as usize]);
                rows += 1;
            }
        }
        assert_eq!(rows, 200);
    }
}

#[tokio::test]
async fn sql_reads_text_and_integers_and_any_number_of_items() {
    let mut ctx = session(1);
    run().1.register(&mut ctx).unwrap();
    let name = names(&[ItemId(3)]).remove(0);
    let everything = run().0.catalogue().len();
    for (k, items) in [(0, 0), (3, 3), (100_000, everything)] {
        let sql = format!("SELECT recommend(make_array('{name}'), {k})");
        let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        let found = found(batches[0].column(0), 0);
        assert_eq!(found, plain(&[vec![ItemId(3)]], k).remove(0));
        assert_eq!(found.len(), items);
    }
    for sql in ["recommend(NULL, 3)", "recommend(make_array('x'), NULL)"] {
        let batches = ctx.sql(&format!("SELECT {sql}")).await.unwrap().collect().await.unwrap();
        assert!(batches[0].column(0).is_null(0), "{sql}");
    }
    // Numbers stand for the ids that are written so.
    let numbers = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(3), Some(5)])]);
    let items: Option<Vec<_>> = [3, 5].iter().map(|id: &i32| run().0.catalogue().find(&id.to_string())).collect();
    let got = run().1.recommend(&numbers, &Int64Array::from(vec![4]), None);
    match items {
        Some(items) => assert_eq!(found(&got.unwrap(), 0), plain(&[items], 4).remove(0)),
        None => assert!(matches!(got, Err(Error::History { row: 0, .. }))),
    }
}

#[test]
fn nulls_and_users_and_different_k_keep_to_their_rows() {
    let all = histories(6);
    let many = Int64Array::from(vec![Some(2), None, Some(4), Some(2), Some(0), Some(4)]);
    let got = run().1.recommend(&text(&all), &many, None).unwrap();
    for (row, history) in all.iter().enumerate() {
        assert_eq!(got.is_null(row), many.is_null(row));
        if many.is_valid(row) {
            let k = many.value(row) as usize;
            let expected = plain(std::slice::from_ref(history), k).remove(0);
            let close = |(a, b): (&(String, f32), &(String, f32))| a.0 == b.0 && (a.1 - b.1).abs() < 1e-4;
            let found = found(&got, row);
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(close), "{found:?} {expected:?}");
        }
    }
    let users = StringArray::from(vec![Some("a"), None, Some("b"), None, None, Some("a")]);
    assert_eq!(run().1.recommend(&text(&all), &many, Some(&users)).unwrap().len(), 6);
}

#[tokio::test]
async fn what_the_run_refuses_fails_the_query() {
    let many = |k: i64, rows: usize| Int64Array::from(vec![k; rows]);
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.values().append_value(names(&[ItemId(0)]).remove(0));
    lists.append(true);
    lists.values().append_value("no such item");
    lists.append(true);
    let error = run().1.recommend(&lists.finish(), &many(3, 2), None).unwrap_err();
    assert!(
        matches!(&error, Error::History { row: 1, source } if matches!(**source, genrec::Error::UnknownItem { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("no such item"));

    let empty = [histories(1), vec![Vec::new()]].concat();
    let error = run().1.recommend(&text(&empty), &many(3, 2), None).unwrap_err();
    assert!(matches!(error, Error::EmptyHistory { row: 1, .. }), "{error}");

    lists.values().append_null();
    lists.append(true);
    assert!(matches!(run().1.recommend(&lists.finish(), &many(3, 1), None), Err(Error::NullItem { row: 0 })));
    assert!(matches!(
        run().1.recommend(&text(&histories(2)), &many(-1, 2), None),
        Err(Error::NegativeK { row: 0, k: -1 })
    ));
    assert!(matches!(
        Recommend::declared().recommend(&text(&histories(2)), &many(1, 2), None),
        Err(Error::Declared { .. })
    ));
    assert!(matches!(Recommend::open("/no/such/run", &Device::Cpu), Err(Error::Run { .. })));
    assert!(matches!(Recommend::declared_of("/no/such/run"), Err(Error::Run { .. })));

    let mut ctx = session(1);
    run().1.register(&mut ctx).unwrap();
    for (sql, what) in [
        ("recommend('a', 3)", "Utf8"),
        ("recommend(make_array('a'), 'b')", "Utf8"),
        ("recommend(make_array('a'))", "1 arguments"),
    ] {
        let error = match ctx.sql(&format!("SELECT {sql}")).await {
            Ok(query) => query.create_physical_plan().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(what), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_query_for_another_run_is_refused() {
    let mine = run().1.fingerprint().unwrap();
    let mut ctx = session(1);
    run().1.register(&mut ctx).unwrap();
    let name = names(&[ItemId(3)]).remove(0);
    let ask = |fingerprint: &str| format!("SELECT recommend(make_array('{name}'), 2, NULL, {fingerprint})");
    let answer = ctx.sql(&ask(&format!("'{mine}'"))).await.unwrap().collect().await.unwrap();
    assert_eq!(found(answer[0].column(0), 0), plain(&[vec![ItemId(3)]], 2).remove(0));
    for other in ["'another'", "NULL"] {
        let error = ctx.sql(&ask(other)).await.unwrap().collect().await.unwrap_err();
        assert!(error.to_string().contains("the query asks for the run"), "{other}: {error}");
    }
    // Each row may ask for a run of its own.
    for (rows, refused) in [(format!("('{mine}'), ('{mine}')"), false), (format!("('{mine}'), ('another')"), true)] {
        let sql = format!("SELECT recommend(make_array('{name}'), 2, NULL, asked) FROM (VALUES {rows}) AS runs(asked)");
        let answer = ctx.sql(&sql).await.unwrap().collect().await;
        assert_eq!(answer.is_err(), refused, "{rows}");
        let lists = answer.unwrap_or_default();
        let lists = lists.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| found(batch.column(0), row)));
        assert_eq!(lists.count(), if refused { 0 } else { 2 });
    }
    // One whose fingerprint is not known answers no query that asks for one.
    let unknown = Recommend::from_recommender(Recommender::clone(&run().0));
    assert_eq!(unknown.fingerprint(), None);
    unknown.register(&mut ctx).unwrap();
    let error = ctx.sql(&ask(&format!("'{mine}'"))).await.unwrap().collect().await.unwrap_err();
    assert!(error.to_string().contains("one without a fingerprint"), "{error}");
}
