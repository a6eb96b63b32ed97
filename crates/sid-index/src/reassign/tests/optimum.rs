//! Total costs beside the least, found by trying every assignment.

use super::*;

/// The total cost when the items, all with code 0 of one level, are given codes of their own.
fn total(costs: &Array2<f32>, method: ReassignMethod) -> f32 {
    let codes = Array2::zeros((costs.nrows(), 1));
    let layout = layout(&[costs.ncols() as u32]);
    let repaired = Reassign::default().with_method(method).repair(&layout, codes.view(), &mut table(costs)).unwrap();
    assert!(counts(&repaired.codes).values().all(|&n| n == 1));
    repaired.codes.iter().enumerate().map(|(item, &code)| costs[[item, code as usize]]).sum()
}

fn least(costs: &Array2<f32>, item: usize, taken: &mut Vec<bool>) -> f32 {
    if item == costs.nrows() {
        return 0.0;
    }
    let mut found = f32::INFINITY;
    for code in 0..costs.ncols() {
        if !taken[code] {
            taken[code] = true;
            found = found.min(costs[[item, code]] + least(costs, item + 1, taken));
            taken[code] = false;
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_total_is_below_the_least(costs in prop::collection::vec(0u32..1000, 25), items in 2usize..6) {
        let costs = Array2::from_shape_fn((items, 5), |(i, code)| costs[i * 5 + code] as f32);
        for method in METHODS {
            prop_assert!(total(&costs, method) >= least(&costs, 0, &mut vec![false; 5]));
        }
    }

    /// Totals that differ by 1 are more than `epsilon` apart, in units of half the range: the plan tells them apart.
    #[test]
    fn two_items_are_transported_at_the_least_cost(costs in prop::collection::vec(0u32..200, 12)) {
        let costs = Array2::from_shape_fn((2, 6), |(i, code)| costs[i * 6 + code] as f32);
        let method = ReassignMethod::Sinkhorn { epsilon: 3e-3, iterations: 200 };
        prop_assert_eq!(total(&costs, method), least(&costs, 0, &mut vec![false; 6]));
    }
}

/// Sums over fixed random costs, the least among them found by exhaustion.
#[test]
fn transport_is_within_two_percent_of_the_least_and_more_rounds_reach_it() {
    let more = ReassignMethod::Sinkhorn { epsilon: 3e-3, iterations: 200 };
    for (items, codes) in [(3, 5), (5, 5), (4, 8), (6, 7)] {
        let (mut optimum, mut greedy, mut published, mut longer) = (0.0, 0.0, 0.0, 0.0);
        for seed in 0..100 {
            let cost =
                |(i, code)| 1.0 + drawn(seed, &[], i as u32, code) + drawn(seed + 1000, &[], i as u32, code) / 16.0;
            let costs = Array2::from_shape_fn((items, codes), cost);
            optimum += least(&costs, 0, &mut vec![false; codes]);
            greedy += total(&costs, ReassignMethod::Greedy);
            published += total(&costs, ReassignMethod::sinkhorn());
            longer += total(&costs, more);
        }
        assert!(greedy >= optimum && greedy > 1.05 * optimum, "{greedy} {optimum}");
        assert!(published >= optimum && published <= 1.02 * optimum, "{published} {optimum}");
        assert!(longer >= optimum && longer <= 1.001 * optimum, "{longer} {optimum}");
    }
}

/// The nearest item keeps the code by `Greedy`, though the other loses more by moving.
#[test]
fn a_plan_lets_the_item_keep_that_has_more_to_lose() {
    let costs = ndarray::array![[0.0, 1.0, 30.0], [0.5, 20.0, 25.0]];
    assert_eq!(total(&costs, ReassignMethod::Greedy), 20.0);
    assert_eq!(total(&costs, ReassignMethod::sinkhorn()), 1.5);
}

/// Either item may keep code 4 at the same total, so the plan gives each a half; rounding alone would give it to none.
#[test]
fn no_place_that_is_wanted_stays_free() {
    let costs = ndarray::array![[51.0, 51.0, 91.0, 51.0, 10.0, 51.0], [65.0, 54.0, 53.0, 53.0, 12.0, 53.0]];
    let method = ReassignMethod::Sinkhorn { epsilon: 3e-3, iterations: 200 };
    assert_eq!(total(&costs, method), 63.0);
}
