//! `semantic_id` gives what the plain encoder gives, or says what is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Device;
use datafusion::arrow::array::{Array, AsArray, ListArray};
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::col;
use datafusion::prelude::SessionContext;
use genrec_datafusion::{Error, SemanticId};
use ndarray::s;
use sid_quantize::Quantizer;
use support::{coarse, codes_of, embeddings, fixed, quantizers, session, table};

#[tokio::test]
async fn every_quantiser_gives_the_codes_of_the_plain_encoder() {
    let rows = embeddings(1000);
    let ids: Vec<i64> = (0..1000).collect();
    for quantizer in quantizers() {
        let expected = quantizer.encode_array(rows.view(), 1024).unwrap();
        let dir = tempfile::tempdir().unwrap();
        quantizer.save(dir.path()).unwrap();
        let semantic_id = SemanticId::open(dir.path(), &Device::Cpu).unwrap();
        for partitions in [1, 3] {
            let ctx = session(partitions);
            let items = table(&ctx, &ids, rows.view(), partitions).unwrap();
            let found = items.select([col("id"), semantic_id.call(col("x")).alias("sid")]).unwrap();
            let mut seen = 0;
            for batch in found.collect().await.unwrap() {
                assert_eq!(batch.column(1).data_type(), &semantic_id.data_type());
                for (row, id) in batch.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
                    assert_eq!(codes_of(batch.column(1), row), expected.row(*id as usize).to_vec(), "{quantizer:?}");
                    seen += 1;
                }
            }
            assert_eq!(seen, 1000);
        }
    }
}

#[tokio::test]
async fn sql_groups_sorts_and_looks_into_semantic_ids() {
    let quantizer = coarse();
    let rows = embeddings(300);
    let mut expected: BTreeMap<Vec<u32>, i64> = BTreeMap::new();
    for codes in quantizer.encode_array(rows.view(), 64).unwrap().rows() {
        *expected.entry(codes.to_vec()).or_default() += 1;
    }
    let mut ctx = session(2);
    SemanticId::from_quantizer(quantizer).unwrap().register(&mut ctx).unwrap();
    let items = table(&ctx, &(0..300).collect::<Vec<_>>(), rows.view(), 2).unwrap();
    ctx.register_table("items", items.into_view()).unwrap();
    let sql = "SELECT semantic_id(x) AS sid, count(*) AS n FROM items GROUP BY sid ORDER BY sid";
    let mut found = Vec::new();
    for batch in ctx.sql(sql).await.unwrap().collect().await.unwrap() {
        let counts = batch.column(1).as_primitive::<Int64Type>().clone();
        found.extend((0..batch.num_rows()).map(|row| (codes_of(batch.column(0), row), counts.value(row))));
    }
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn null_in_null_out_and_the_other_rows_are_as_ever() {
    let quantizer = coarse();
    let rows = embeddings(4);
    let expected = quantizer.encode_array(rows.view(), 64).unwrap();
    let with_null =
        |row: usize| (row != 1).then(|| rows.row(row).iter().map(|&value| Some(f64::from(value))).collect::<Vec<_>>());
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>((0..4).map(with_null));
    let codes = SemanticId::from_quantizer(quantizer).unwrap().encode(&lists).unwrap();
    assert_eq!(codes.len(), 4);
    for row in [0, 2, 3] {
        assert_eq!(codes_of(&codes, row), expected.row(row).to_vec());
    }
    assert!(codes.is_null(1));
    assert_eq!(codes.null_count(), 1);
}

#[tokio::test]
async fn null_literals_and_numbers_of_other_types_are_taken() {
    let mut ctx = SessionContext::new();
    SemanticId::from_quantizer(coarse()).unwrap().register(&mut ctx).unwrap();
    for (sql, null) in [("NULL", true), ("make_array(1, 2, 3, 4, 5, 6, 7, 8)", false)] {
        let found = ctx.sql(&format!("SELECT semantic_id({sql})")).await.unwrap().collect().await.unwrap();
        assert_eq!(found[0].column(0).is_null(0), null, "{sql}");
    }
}

/// The error of this crate that a query failed with.
fn ours(error: &DataFusionError) -> &Error {
    match error.find_root() {
        DataFusionError::External(source) => source.downcast_ref::<Error>().unwrap(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_encoded_fails_the_query_and_is_named() {
    let semantic_id = SemanticId::from_quantizer(coarse()).unwrap();
    let mut rows = embeddings(50);
    rows[[7, 3]] = f32::NAN;
    let ids: Vec<i64> = (0..50).collect();
    let ctx = session(1);
    let query = |rows| table(&ctx, &ids, rows, 1).unwrap().select([semantic_id.call(col("x"))]).unwrap();
    let error = query(rows.view()).collect().await.unwrap_err();
    assert!(matches!(ours(&error), Error::NotFinite { row: 7, column: 3 }), "{error}");
    assert!(error.to_string().contains("row 7"), "{error}");

    let error = query(rows.slice(s![.., ..5])).collect().await.unwrap_err();
    assert!(matches!(ours(&error), Error::EmbeddingWidth { row: 0, got: 5, expected: 8 }), "{error}");
}

#[tokio::test]
async fn a_wrong_call_is_refused_before_it_runs() {
    let mut ctx = SessionContext::new();
    SemanticId::from_quantizer(coarse()).unwrap().register(&mut ctx).unwrap();
    for (sql, what) in [
        ("semantic_id('text')", "Utf8"),
        ("semantic_id(1.5)", "Float64"),
        ("semantic_id(NULL, 'a', 'b')", "3 arguments"),
    ] {
        let planned = ctx.sql(&format!("SELECT {sql}")).await;
        let error = match planned {
            Ok(query) => query.create_physical_plan().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(what), "{sql}: {error}");
    }
}

#[tokio::test]
async fn codes_of_another_quantiser_are_refused() {
    let (first, second) = (SemanticId::from_quantizer(coarse()).unwrap(), quantizers().remove(1));
    let second = SemanticId::from_quantizer(second).unwrap();
    assert_ne!(first.fingerprint(), second.fingerprint());
    let mut ctx = session(1);
    second.register(&mut ctx).unwrap();
    let rows = embeddings(10);
    let items = table(&ctx, &(0..10).collect::<Vec<_>>(), rows.view(), 1).unwrap();
    ctx.register_table("items", items.into_view()).unwrap();
    let ask = |semantic_id: &SemanticId| {
        format!("SELECT semantic_id(x, '{}') FROM items", semantic_id.fingerprint().unwrap())
    };
    assert_eq!(ctx.sql(&ask(&second)).await.unwrap().count().await.unwrap(), 10);
    // By a literal, by a column, by nothing at all.
    let column = "SELECT semantic_id(x, CASE WHEN id = 7 THEN 'another' ELSE 'FINGERPRINT' END) FROM items"
        .replace("FINGERPRINT", second.fingerprint().unwrap());
    for asked in [ask(&first), column, "SELECT semantic_id(x, NULL) FROM items".to_owned()] {
        let error = ctx.sql(&asked).await.unwrap().collect().await.unwrap_err();
        assert!(matches!(ours(&error), Error::OtherQuantizer { .. }), "{asked}: {error}");
    }
}

#[tokio::test]
async fn a_declared_function_plans_and_does_not_compute() {
    let real = SemanticId::from_quantizer(coarse()).unwrap();
    let declared = SemanticId::declared(2);
    assert_eq!(declared.data_type(), real.data_type());
    assert_eq!((declared.levels(), declared.fingerprint()), (2, None));
    let error = declared.encode(&fixed(embeddings(3).view())).unwrap_err();
    assert!(matches!(error, Error::Declared { function: "semantic_id", .. }), "{error}");
    let mut ctx = session(1);
    declared.register(&mut ctx).unwrap();
    assert!(ctx.udf("semantic_id").is_ok());
    let planned = ctx.sql("SELECT semantic_id(make_array(1.0, 2.0))[1]").await.unwrap();
    assert!(planned.create_physical_plan().await.is_ok());
}

#[test]
fn what_is_no_quantiser_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = SemanticId::open(dir.path().join("none"), &Device::Cpu).unwrap_err();
    assert!(matches!(&error, Error::Quantizer { path, .. } if path.ends_with("none")), "{error}");
    let shared = Arc::new(SemanticId::from_quantizer(coarse()).unwrap());
    assert!(format!("{shared:?}").len() < 200);
}
