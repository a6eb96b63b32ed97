//! Suffixes are those of a plain loop, and what was given stays.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use datafusion::logical_expr::col;
use datafusion::prelude::DataFrame;
use genrec_datafusion::{SemanticId, Suffixes};
use ndarray::Array2;
use sid_index::{CollisionPolicy, ItemId, SidIndex, SidLayout};
use sid_quantize::Quantizer;
use support::{coarse, embeddings, session, sids, table};

const ITEMS: usize = 600;

/// Ids in no order.
fn ids(rows: usize) -> Vec<i64> {
    (0..rows as i64).map(|row| row * 7919 % 10_007 - 3000).collect()
}

/// Numbers items in the order of their ids, after those that are there.
fn oracle(ids: &[i64], codes: &Array2<u32>, given: &[(i64, Vec<u32>, u32)]) -> Vec<(i64, Vec<u32>, u32)> {
    let mut next: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
    for (_, codes, suffix) in given {
        let next = next.entry(codes.clone()).or_default();
        *next = (*next).max(suffix + 1);
    }
    let known: BTreeSet<i64> = given.iter().map(|(id, ..)| *id).collect();
    let mut items: Vec<_> = ids.iter().zip(codes.rows()).filter(|(id, _)| !known.contains(id)).collect();
    items.sort_by_key(|(id, _)| **id);
    items
        .into_iter()
        .map(|(id, codes)| {
            let next = next.entry(codes.to_vec()).or_default();
            *next += 1;
            (*id, codes.to_vec(), *next - 1)
        })
        .collect()
}

fn unique(sids: &[(i64, Vec<u32>, u32)]) -> bool {
    sids.iter().map(|(_, codes, suffix)| (codes, suffix)).collect::<BTreeSet<_>>().len() == sids.len()
}

#[tokio::test]
async fn suffixes_are_those_of_a_loop() {
    let (quantizer, rows, ids) = (coarse(), embeddings(ITEMS), ids(ITEMS));
    let expected = oracle(&ids, &quantizer.encode_array(rows.view(), 64).unwrap(), &[]);
    assert!(unique(&expected));
    let semantic_id = SemanticId::from_quantizer(quantizer).unwrap();
    for partitions in [1, 4] {
        let ctx = session(partitions);
        let items = table(&ctx, &ids, rows.view(), partitions).unwrap();
        let encoded = items.select([col("id"), semantic_id.call(col("x")).alias("sid")]).unwrap();
        assert_eq!(sids(Suffixes::default().of(encoded).unwrap()).await, expected);
    }
}

#[tokio::test]
async fn suffixes_are_those_of_an_index() {
    let (quantizer, rows) = (coarse(), embeddings(ITEMS));
    let layout = SidLayout::new(quantizer.codebook_sizes().to_vec()).unwrap().with_suffix(1024);
    let codes = quantizer.encode_array(rows.view(), 64).unwrap();
    let index = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap();
    let semantic_id = SemanticId::from_quantizer(quantizer).unwrap();
    let items = table(&session(2), &(0..ITEMS as i64).collect::<Vec<_>>(), rows.view(), 2).unwrap();
    let encoded = items.select([col("id"), semantic_id.call(col("x")).alias("sid")]).unwrap();
    for (id, codes, suffix) in sids(Suffixes::default().of(encoded).unwrap()).await {
        let sid = index.sid(ItemId(id as u32)).unwrap();
        assert_eq!(sid.codes(), [codes, vec![suffix]].concat());
    }
}

#[tokio::test]
async fn later_items_change_nothing_that_was_given() {
    let (quantizer, rows, ids) = (coarse(), embeddings(ITEMS), ids(ITEMS));
    let codes = quantizer.encode_array(rows.view(), 64).unwrap();
    let semantic_id = SemanticId::from_quantizer(quantizer).unwrap();
    let suffixes = Suffixes::default();
    for partitions in [1, 3] {
        for hash_join in [true, false] {
            let ctx = session(partitions);
            ctx.state_ref().write().config_mut().options_mut().optimizer.prefer_hash_join = hash_join;
            let encode = |items: DataFrame| items.select([col("id"), semantic_id.call(col("x")).alias("sid")]).unwrap();
            let items = |n: usize| table(&ctx, &ids[..n], rows.slice(ndarray::s![..n, ..]), partitions).unwrap();
            let first = suffixes.of(encode(items(400))).unwrap().cache().await.unwrap();
            let given = sids(first.clone()).await;
            let new = suffixes.unseen(items(ITEMS), first.clone()).unwrap();
            assert_eq!(new.clone().count().await.unwrap(), ITEMS - 400);
            let new = suffixes.after(encode(new), first.clone()).unwrap();
            let columns: Vec<_> = new.schema().fields().iter().map(|field| field.name().clone()).collect();
            assert_eq!(columns, ["id", "sid", "suffix"]);
            let new = sids(new).await;
            assert_eq!(new, oracle(&ids, &codes, &given));
            assert_eq!(sids(first).await, given);
            assert!(unique(&[given, new].concat()));
        }
    }
}

#[tokio::test]
async fn columns_have_the_names_one_gives_them() {
    let semantic_id = SemanticId::from_quantizer(coarse()).unwrap();
    let ctx = session(2);
    let items = table(&ctx, &ids(100), embeddings(100).view(), 2).unwrap();
    let encoded = items.select([col("id").alias("Item Id"), semantic_id.call(col("x")).alias("Codes")]).unwrap();
    let suffixes = Suffixes::default().with_id("Item Id").with_sid("Codes").with_suffix("N");
    let all = suffixes.of(encoded.clone()).unwrap().cache().await.unwrap();
    assert_eq!(suffixes.unseen(encoded.clone(), all.clone()).unwrap().count().await.unwrap(), 0);
    assert_eq!(suffixes.after(encoded, all).unwrap().count().await.unwrap(), 100);
}

#[tokio::test]
async fn without_a_semantic_id_there_is_no_suffix() {
    let ctx = session(1);
    let semantic_id = SemanticId::from_quantizer(coarse()).unwrap();
    let items = ctx.sql("SELECT value AS id, NULL AS x FROM range(3)").await.unwrap();
    let encoded = items.select([col("id"), semantic_id.call(col("x")).alias("sid")]).unwrap();
    let all = Suffixes::default().of(encoded).unwrap();
    assert_eq!(all.filter(col("suffix").is_null()).unwrap().count().await.unwrap(), 3);
}
