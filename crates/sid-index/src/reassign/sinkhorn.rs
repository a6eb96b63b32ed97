//! Places by entropic optimal transport.

use ndarray::Array2;

use super::places;

/// Gives every item a code with room by a transport plan, rounded.
///
/// The plan $P$ is that of least $\sum_{ic} P_{ic} C_{ic} + \varepsilon \sum_{ic} P_{ic} (\ln P_{ic} - 1)$ among those in which
/// every item gives mass 1 and no free place takes more than 1: $\sum_c P_{ic} = 1$, $\sum_i P_{ic} \le r_c$ with $r_c$
/// the room of code $c$. With as many items as places that is the uniform mapping of LC-Rec; with fewer, marginals that
/// are *equal* to the rooms would spread each item over far places, so they are upper bounds (Chizat et al. 2018,
/// *Scaling algorithms for unbalanced optimal transport problems*, arXiv 1607.05816, on range constraints).
pub(super) fn place(costs: &Array2<f32>, rooms: &[u64], epsilon: f64, iterations: u32) -> Vec<Option<usize>> {
    let codes = candidates(rooms, costs);
    let mut open: Vec<u64> = codes.iter().map(|&code| rooms[code]).collect();
    let mut scaled = Array2::from_shape_fn((costs.nrows(), codes.len()), |(i, c)| f64::from(costs[[i, codes[c]]]));
    scale(&mut scaled);
    let plan = minus_log_plan(scaled, &open, epsilon.clamp(1e-12, 1e12), iterations);

    let mut given = vec![None; costs.nrows()];
    places::greedy(&mut given, &mut open, |item, code| plan[[item, code]]);
    // Where two items share a place by halves, rounding may give it to neither.
    places::improve(&mut given, &mut open, |item, code| f64::from(costs[[item, codes[code]]]));
    given.into_iter().map(|chosen| chosen.map(|code| codes[code])).collect()
}

/// The codes that a cheapest assignment may need: of `m` items none needs more than its `m` cheapest codes with room,
/// since the others take at most `m - 1` of them. Ascending.
fn candidates(rooms: &[u64], costs: &Array2<f32>) -> Vec<usize> {
    let mut open: Vec<usize> = (0..rooms.len()).filter(|&code| rooms[code] > 0).collect();
    let items = costs.nrows();
    if items >= open.len() {
        return open;
    }
    let mut needed = vec![false; rooms.len()];
    for row in costs.rows() {
        if items > 0 {
            open.select_nth_unstable_by(items - 1, |&a, &b| row[a].total_cmp(&row[b]).then_with(|| a.cmp(&b)));
        }
        open[..items].iter().for_each(|&code| needed[code] = true);
    }
    (0..rooms.len()).filter(|&code| needed[code]).collect()
}

/// Shifts and divides costs so that the finite ones lie between 0 and 2: the unit is half their range, as published.
fn scale(costs: &mut Array2<f64>) {
    let finite = || costs.iter().copied().filter(|cost| cost.is_finite());
    let low = finite().fold(f64::INFINITY, f64::min);
    let half = (finite().fold(f64::NEG_INFINITY, f64::max) - low) / 2.0;
    if low.is_finite() {
        let unit = if half > 0.0 { half } else { 1.0 };
        costs.mapv_inplace(|cost| (cost - low) / unit);
    }
}

/// $-\varepsilon \ln P = C - f - g$ of the plan, from dual potentials of items and codes in turn; infinite where $C$ is.
///
/// The entropy falls from 1 to `epsilon` over the first half of the rounds: potentials move by about $\varepsilon$ a round,
/// so that prices would not form in time if it were small from the start.
fn minus_log_plan(mut costs: Array2<f64>, rooms: &[u64], epsilon: f64, iterations: u32) -> Array2<f64> {
    let (mut item_potentials, mut prices) = (vec![0.0; costs.nrows()], vec![0.0; costs.ncols()]);
    let log_rooms: Vec<f64> = rooms.iter().map(|&room| (room as f64).ln()).collect();
    let (mut greatest, mut sums) = (prices.clone(), prices.clone());
    for round in 0..iterations {
        let done = (2.0 * f64::from(round + 1) / f64::from(iterations)).min(1.0);
        let epsilon = if epsilon < 1.0 { epsilon.powf(done) } else { epsilon };
        fit_items(&costs, &prices, &mut item_potentials, epsilon);

        greatest.fill(f64::NEG_INFINITY);
        sums.fill(0.0);
        each_finite(&costs, |i, c, cost| greatest[c] = f64::max(greatest[c], item_potentials[i] - cost));
        each_finite(&costs, |i, c, cost| sums[c] += ((item_potentials[i] - cost - greatest[c]) / epsilon).exp());
        for (c, price) in prices.iter_mut().enumerate() {
            // Below 0 only where more mass comes than there is room.
            *price = (epsilon * (log_rooms[c] - sums[c].ln()) - greatest[c]).min(0.0);
        }
    }
    fit_items(&costs, &prices, &mut item_potentials, epsilon);
    for ((i, c), cost) in costs.indexed_iter_mut() {
        *cost -= item_potentials[i] + prices[c];
    }
    costs
}

/// Sets the items' potentials so that each gives mass 1.
fn fit_items(costs: &Array2<f64>, prices: &[f64], potentials: &mut [f64], epsilon: f64) {
    for (row, potential) in costs.rows().into_iter().zip(potentials) {
        let net = || row.iter().zip(prices).filter(|(cost, _)| cost.is_finite()).map(|(cost, price)| price - cost);
        let greatest = net().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = net().map(|net| ((net - greatest) / epsilon).exp()).sum();
        // An item without any code has no finite pair that its potential could reach.
        *potential = if sum > 0.0 { -greatest - epsilon * sum.ln() } else { 0.0 };
    }
}

fn each_finite(costs: &Array2<f64>, mut f: impl FnMut(usize, usize, f64)) {
    costs.indexed_iter().filter(|(_, cost)| cost.is_finite()).for_each(|((i, c), &cost)| f(i, c, cost));
}
