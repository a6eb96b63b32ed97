//! Codes with room for items without a code, each item taking the cheapest it can get.

use std::{cmp::Reverse, collections::BinaryHeap};

/// A cost and who would pay it for which code, in the order in which places are given.
#[derive(PartialEq)]
struct Offer {
    cost: f64,
    item: usize,
    code: usize,
}

impl Eq for Offer {}

impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Offer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.cost.total_cmp(&other.cost).then_with(|| (self.item, self.code).cmp(&(other.item, other.code)))
    }
}

/// The cheapest code that has room and does not cost infinity; the lowest of several.
fn cheapest(rooms: &[u64], item: usize, cost: &impl Fn(usize, usize) -> f64) -> Option<Offer> {
    let mut best = None;
    let mut least = f64::INFINITY;
    for (code, _) in rooms.iter().enumerate().filter(|(_, room)| **room > 0) {
        let cost = cost(item, code);
        if cost < least {
            least = cost;
            best = Some(code);
        }
    }
    // The sum makes one zero of two, which `total_cmp` would tell apart.
    best.map(|code| Offer { cost: least + 0.0, item, code })
}

/// Items in their order, each taking the cheapest code with room. Those that have a code keep it, whose place the caller
/// has taken from its room; those that find none stay without.
pub(super) fn first_fit(given: &mut [Option<usize>], rooms: &mut [u64], cost: impl Fn(usize, usize) -> f64) {
    for (item, given) in given.iter_mut().enumerate().filter(|(_, given)| given.is_none()) {
        if let Some(Offer { code, .. }) = cheapest(rooms, item, &cost) {
            rooms[code] -= 1;
            *given = Some(code);
        }
    }
}

/// As [`first_fit`], but pairs of item and code in ascending order of their cost, ties by item and then code.
///
/// Each waiting item has one offer in the heap, its cheapest. One whose code is full by its turn is made anew; as rooms
/// only shrink, the offers come out in the order of all pairs sorted.
pub(super) fn greedy(given: &mut [Option<usize>], rooms: &mut [u64], cost: impl Fn(usize, usize) -> f64) {
    let waiting = given.iter().enumerate().filter(|(_, given)| given.is_none());
    let mut offers: BinaryHeap<Reverse<Offer>> =
        waiting.filter_map(|(item, _)| cheapest(rooms, item, &cost)).map(Reverse).collect();
    while let Some(Reverse(Offer { item, code, .. })) = offers.pop() {
        if rooms[code] > 0 {
            rooms[code] -= 1;
            given[item] = Some(code);
        } else {
            offers.extend(cheapest(rooms, item, &cost).map(Reverse));
        }
    }
}

/// Lets items change to cheaper codes that have room, in item order, until none is left or as many passes as there are items
/// are over.
pub(super) fn improve(given: &mut [Option<usize>], rooms: &mut [u64], cost: impl Fn(usize, usize) -> f64) {
    for _ in 0..given.len() {
        let mut changed = false;
        for (item, given) in given.iter_mut().enumerate() {
            let paid = given.map_or(f64::INFINITY, |code| cost(item, code));
            if let Some(offer) = cheapest(rooms, item, &cost).filter(|offer| offer.cost < paid) {
                rooms[offer.code] -= 1;
                if let Some(code) = given.replace(offer.code) {
                    rooms[code] += 1;
                }
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
}
