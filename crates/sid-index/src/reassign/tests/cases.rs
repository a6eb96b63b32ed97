//! Cases made by hand: who keeps, who moves where, and what is refused.

use std::error::Error;

use ndarray::array;

use super::*;

fn repair(reassign: Reassign, layout: &SidLayout, codes: &Array2<u32>, costs: &Array2<f32>) -> Reassigned {
    reassign.repair(layout, codes.view(), &mut table(costs)).unwrap()
}

#[test]
fn the_nearest_or_the_earlier_keeps_and_ties_go_to_the_lower() {
    let (layout, codes) = (layout(&[4]), array![[1], [1], [1]]);
    let costs = array![[5.0, 4.0, 6.0, 9.0], [5.0, 2.0, 3.0, 3.0], [5.0, 2.0, 3.0, 3.0]];
    assert_eq!(repair(Reassign::default(), &layout, &codes, &costs).codes, array![[0], [1], [2]]);
    let first_fit = Reassign::default().with_method(ReassignMethod::FirstFit);
    assert_eq!(repair(first_fit, &layout, &codes, &costs).codes, array![[1], [2], [3]]);
    // Two keep, the third moves.
    assert_eq!(repair(Reassign::new(2), &layout, &codes, &costs).codes, array![[0], [1], [1]]);
    let equal = Array2::from_elem((3, 4), 1.0);
    let signed = array![[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-0.0, -0.0, -0.0, -0.0]];
    for costs in [equal, signed] {
        assert_eq!(repair(Reassign::default(), &layout, &codes, &costs).codes, array![[1], [0], [2]]);
    }
}

/// Three items below a code with room for two: the third gets another first code and a second one anew.
#[test]
fn what_overflows_a_level_gets_its_deeper_codes_anew() {
    let (layout, codes) = (layout(&[2, 2]), array![[0, 1], [0, 1], [0, 1]]);
    let mut asked = Vec::new();
    let mut costs = |prefix: &[u32], rows: &[u32]| {
        asked.push((prefix.to_vec(), rows.to_vec()));
        let cost = |(i, code)| match (prefix, rows[i], code) {
            ([], 1, 0) => 3.0,
            ([1], 1, 0) => 1.0,
            ([0], 0, 1) => 1.0,
            _ => 2.0,
        };
        Ok::<_, Infallible>(Array2::from_shape_fn((rows.len(), 2), cost))
    };
    let repaired = Reassign::default().repair(&layout, codes.view(), &mut costs).unwrap();
    assert_eq!(repaired.codes, array![[0, 1], [1, 0], [0, 0]]);
    assert_eq!(repaired.report, ReassignReport { moved: vec![1, 1], left: 0 });
    assert_eq!(asked, [(vec![], vec![0, 1, 2]), (vec![0], vec![0, 2]), (vec![1], vec![1])]);
}

#[test]
fn costs_are_asked_once_for_a_prefix_and_only_where_items_contend() {
    let layout = layout(&[2, 3]);
    let codes = array![[1, 2], [0, 1], [1, 0], [1, 2], [0, 0]];
    for (method, expected) in METHODS.into_iter().zip([vec![0, 3], vec![3], vec![0, 3]]) {
        let mut asked = Vec::new();
        let mut costs = |prefix: &[u32], rows: &[u32]| {
            asked.push((prefix.to_vec(), rows.to_vec()));
            Ok::<_, Infallible>(Array2::from_shape_fn((rows.len(), 3), |(i, code)| (rows[i] as usize + code) as f32))
        };
        let repaired = Reassign::default().with_method(method).repair(&layout, codes.view(), &mut costs).unwrap();
        assert_eq!(repaired.codes.row(3).to_vec(), [1, 1]);
        assert_eq!(repaired.report.moved, [0, 1]);
        assert_eq!(asked, [(vec![1], expected)]);
    }
}

#[test]
fn items_that_may_go_nowhere_are_left_with_their_codes() {
    let codes = array![[0, 0], [0, 0], [0, 0]];
    let mut costs = |prefix: &[u32], rows: &[u32]| {
        let cost = |(i, code)| if prefix.is_empty() || (rows[i], code) == (2, 1) { 1.0 } else { f32::INFINITY };
        Ok::<_, Infallible>(Array2::from_shape_fn((rows.len(), 2), cost))
    };
    // At the first level item 2 moves; below its new code 1 it has a place, items 0 and 1 have none but their own.
    let repaired = Reassign::default().repair(&layout(&[2, 2]), codes.view(), &mut costs).unwrap();
    assert_eq!(repaired.codes, array![[0, 0], [0, 0], [1, 1]]);
    assert_eq!(repaired.report, ReassignReport { moved: vec![1, 0], left: 1 });
    // An item that moved above and finds nothing below has its first codes again.
    let mut costs = |prefix: &[u32], rows: &[u32]| {
        let barred = |(i, _)| if prefix == [1] && rows[i] == 2 { f32::INFINITY } else { 0.0 };
        Ok::<_, Infallible>(Array2::from_shape_fn((rows.len(), 2), barred))
    };
    for method in [ReassignMethod::Greedy, ReassignMethod::FirstFit] {
        let reassign = Reassign::default().with_method(method);
        let repaired = reassign.repair(&layout(&[2, 2]), codes.view(), &mut costs).unwrap();
        assert_eq!((repaired.codes.row(2).to_vec(), repaired.report.left), (vec![0, 0], 1));
    }
}

#[test]
fn a_suffix_bounds_the_capacity() {
    let layout = layout(&[3]).with_suffix(2);
    let codes = array![[0], [0], [0]];
    let repaired = repair(Reassign::new(9), &layout, &codes, &Array2::zeros((3, 3)));
    assert_eq!(repaired.codes, array![[0], [0], [1]]);
    SidIndex::from_codes(layout.clone(), repaired.codes.view(), CollisionPolicy::Suffix).unwrap();

    // Code 0 has one suffix left, below the one in use.
    let mut index = SidIndex::from_sids(layout, &[0, 1, 1, 0], CollisionPolicy::Suffix).unwrap();
    let costs = array![[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]];
    let added = Reassign::new(2).repair_added(&index, array![[0], [0]].view(), &mut table(&costs)).unwrap();
    assert_eq!(added.codes, array![[0], [1]]);
    index.extend(added.codes.view()).unwrap();
}

#[test]
fn extreme_costs_and_strengths_place_every_item() {
    let codes = Array2::zeros((4, 1));
    let extremes = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 0.0, 1e-45, -1.0];
    for (epsilon, iterations) in [(f64::MIN_POSITIVE, 1), (5e-324, 7), (f64::MAX, 3), (1.0, 50)] {
        let method = ReassignMethod::Sinkhorn { epsilon, iterations };
        for shift in 0..6 {
            let costs = Array2::from_shape_fn((4, 6), |(i, code)| extremes[(i * code + shift) % 6]);
            let repaired = repair(Reassign::default().with_method(method), &layout(&[6]), &codes, &costs);
            assert_eq!((repaired.report.left, counts(&repaired.codes).len()), (0, 4));
        }
    }
}

#[test]
fn no_item_is_no_work() {
    let none = Array2::zeros((0, 2));
    let repaired = Reassign::default().repair(&layout(&[2, 2]), none.view(), &mut never).unwrap();
    assert_eq!((repaired.codes.dim(), repaired.report.left), ((0, 2), 0));
}

#[derive(Debug, thiserror::Error)]
#[error("no embedding of row {0}")]
struct NoRow(u32);

#[test]
fn every_misfit_is_refused() {
    let (two, codes) = (layout(&[2, 2]), array![[1, 0], [1, 0]]);
    let refused = |reassign: Reassign| reassign.repair(&two, codes.view(), &mut never).unwrap_err();
    assert!(matches!(refused(Reassign::new(0)), IndexError::NoCapacity));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let method = ReassignMethod::Sinkhorn { epsilon: bad, iterations: 1 };
        let error = refused(Reassign::default().with_method(method));
        assert!(matches!(error, IndexError::Epsilon { epsilon } if epsilon.to_bits() == bad.to_bits()));
    }
    let method = ReassignMethod::Sinkhorn { epsilon: 1.0, iterations: 0 };
    assert!(matches!(refused(Reassign::default().with_method(method)), IndexError::NoIterations));

    let given = |codes: Array2<u32>| Reassign::default().repair(&two, codes.view(), &mut never).unwrap_err();
    assert!(matches!(given(array![[1]]), IndexError::Levels { expected: 2, got: 1 }));
    assert!(matches!(
        given(array![[1, 1], [0, 2]]),
        IndexError::CodeOutOfRange { item: ItemId(1), position: 1, code: 2, size: 2 }
    ));

    let index = SidIndex::from_codes(two.clone(), array![[0, 0]].view(), CollisionPolicy::Share).unwrap();
    let added = |matrix: Array2<f32>| {
        let mut costs = |_: &[u32], _: &[u32]| Ok::<_, Infallible>(matrix.clone());
        Reassign::default().repair_added(&index, codes.view(), &mut costs).unwrap_err()
    };
    let shape = added(array![[0.0, 1.0]]);
    assert!(
        matches!(&shape, IndexError::CostShape { prefix, expected: (2, 2), got: (1, 2) } if prefix == &[1]),
        "{shape}"
    );
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let error = added(array![[0.0, 1.0], [f32::INFINITY, bad]]);
        assert!(
            matches!(&error, IndexError::Cost { item: ItemId(2), prefix, code: 1, cost }
                if prefix == &[1] && cost.to_bits() == bad.to_bits()),
            "{error}"
        );
    }
    let mut fails = |_: &[u32], rows: &[u32]| Err::<Array2<f32>, _>(NoRow(rows[0]));
    let error = Reassign::default().repair(&two, codes.view(), &mut fails).unwrap_err();
    assert!(matches!(&error, IndexError::Costs { prefix, items: 2, .. } if prefix == &[1]));
    assert!(error.source().is_some_and(|source| source.downcast_ref::<NoRow>().is_some_and(|no| no.0 == 0)));
}

#[test]
fn json_round_trip_and_refusals() {
    let configured = Reassign::new(4).with_method(ReassignMethod::sinkhorn());
    let json = serde_json::to_string(&configured).unwrap();
    assert_eq!(json, r#"{"method":{"type":"sinkhorn","epsilon":0.003,"iterations":50},"capacity":4}"#);
    for (json, expected) in [
        (json.as_str(), configured),
        (r#"{"method":{"type":"sinkhorn"},"capacity":4}"#, configured),
        (r#"{"method":{"type":"first_fit"}}"#, Reassign::default().with_method(ReassignMethod::FirstFit)),
        ("{}", Reassign::default()),
    ] {
        assert_eq!(serde_json::from_str::<Reassign>(json).unwrap(), expected);
    }
    for bad in [r#"{"capacities":4}"#, r#"{"method":{"type":"sinkhorn","eps":1}}"#, r#"{"method":{"type":"other"}}"#] {
        assert!(serde_json::from_str::<Reassign>(bad).is_err(), "{bad}");
    }
}
