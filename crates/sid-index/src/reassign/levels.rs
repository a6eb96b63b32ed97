//! The walk over the levels, from coarse to fine.

use std::cmp::Ordering;

use ndarray::Array2;

use super::{CodeCosts, ReassignMethod, costs::ask, occupied::Occupied, places, sinkhorn};
use crate::error::Result;

/// What is given when the walk begins.
pub(super) struct Task<'a> {
    pub(super) method: ReassignMethod,
    /// Places of a code tuple.
    pub(super) capacity: u64,
    /// Number of codes of each level.
    pub(super) sizes: &'a [u32],
    pub(super) occupied: Occupied<'a>,
    /// The item of row 0.
    pub(super) first: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Has the codes that it came with, as far as the walk has got.
    Settled,
    /// Got another code above; its codes from this level on are void.
    Moved,
    /// Found no place.
    Left,
}

/// Rows on their way down the levels.
///
/// Those with one prefix are a group. Whoever finds no place is taken out, so that a group never outnumbers the places
/// below its prefix and finds room for all at every level that follows, unless costs forbid it.
struct Walk {
    levels: usize,
    /// Row-major `(rows, levels)`.
    codes: Vec<u32>,
    states: Vec<State>,
}

/// A child with more settled rows than places.
struct Overfull<'a> {
    code: usize,
    room: u64,
    rows: &'a [u32],
}

/// Repairs row-major codes `(rows, levels)` in place. Returns whether each row found no place; such rows hold any codes.
pub(super) fn walk<C: CodeCosts>(task: &Task<'_>, codes: Vec<u32>, costs: &mut C) -> Result<(Vec<u32>, Vec<bool>)> {
    let levels = task.sizes.len();
    let mut walk = Walk { levels, states: vec![State::Settled; codes.len() / levels], codes };
    for level in 0..levels {
        let rows = walk.sorted(level);
        let mut rest = rows.as_slice();
        while let Some(&head) = rest.first() {
            let same = |&row: &u32| walk.row(row)[..level] == walk.row(head)[..level];
            let (group, others) = rest.split_at(rest.partition_point(same));
            walk.place_group(task, level, group, costs)?;
            rest = others;
        }
    }
    let left = walk.states.iter().map(|&state| state == State::Left).collect();
    Ok((walk.codes, left))
}

impl Walk {
    fn row(&self, row: u32) -> &[u32] {
        &self.codes[row as usize * self.levels..][..self.levels]
    }

    fn state(&self, row: u32) -> State {
        self.states[row as usize]
    }

    /// Rows by prefix, in each group the settled ones first and by their next code, then by row.
    fn sorted(&self, level: usize) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..).take(self.states.len()).filter(|&row| self.state(row) != State::Left).collect();
        rows.sort_unstable_by(|&a, &b| {
            let key = |row| {
                let (codes, moved) = (self.row(row), self.state(row) == State::Moved);
                (&codes[..level], moved, if moved { 0 } else { codes[level] }, row)
            };
            key(a).cmp(&key(b))
        });
        rows
    }

    /// Gives the rows of one prefix their codes of a level; asks for costs only where a row needs another than its own.
    fn place_group<C: CodeCosts>(&mut self, task: &Task<'_>, level: usize, group: &[u32], costs: &mut C) -> Result<()> {
        let capacity = task.sizes[level + 1..].iter().fold(task.capacity, |c, &size| c.saturating_mul(size.into()));
        let (settled, moved) = group.split_at(group.partition_point(|&row| self.state(row) == State::Settled));
        let (mut keepers, mut contenders) = (Vec::new(), moved.to_vec());
        let mut overfull = Vec::new();
        for rows in settled.chunk_by(|&a, &b| self.row(a)[level] == self.row(b)[level]) {
            let child = &self.row(rows[0])[..=level];
            let (code, room) = (child[level] as usize, capacity.saturating_sub(task.occupied.below(child)));
            if rows.len() as u64 <= room {
                keepers.push((code, rows.len() as u64));
            } else if matches!(task.method, ReassignMethod::FirstFit) {
                // Below the number of rows.
                keepers.push((code, room));
                contenders.extend(&rows[room as usize..]);
            } else {
                contenders.extend(rows);
                overfull.push(Overfull { code, room, rows });
            }
        }
        if contenders.is_empty() {
            return Ok(());
        }
        contenders.sort_unstable();
        let prefix = self.row(group[0])[..level].to_vec();
        let matrix = ask(costs, &prefix, &contenders, task.sizes[level], task.first)?;

        let mut rooms = vec![capacity; matrix.ncols()];
        task.occupied.subtract_from(&mut rooms, &prefix);
        for (code, kept) in keepers {
            rooms[code] = rooms[code].saturating_sub(kept);
        }
        let given = place(task.method, &matrix, rooms, &contenders, &overfull);
        for (&row, given) in contenders.iter().zip(given) {
            let own = self.row(row)[level] as usize;
            self.states[row as usize] = match given {
                None => State::Left,
                Some(code) if code == own && self.state(row) == State::Settled => State::Settled,
                Some(code) => {
                    // Below the level's size, a u32.
                    self.codes[row as usize * self.levels + level] = code as u32;
                    State::Moved
                }
            };
        }
        Ok(())
    }
}

/// The code that each contender gets, by the method.
fn place(
    method: ReassignMethod,
    costs: &Array2<f32>,
    mut rooms: Vec<u64>,
    contenders: &[u32],
    overfull: &[Overfull<'_>],
) -> Vec<Option<usize>> {
    let mut given = vec![None; contenders.len()];
    let cost = |item: usize, code: usize| f64::from(costs[[item, code]]);
    match method {
        ReassignMethod::FirstFit => places::first_fit(&mut given, &mut rooms, cost),
        ReassignMethod::Greedy => {
            for child in overfull {
                let places = child.rows.iter().filter_map(|row| contenders.binary_search(row).ok());
                let mut nearest: Vec<usize> = places.collect();
                // Stable, and in ascending order before: the lower of equals comes first.
                nearest.sort_by(|&a, &b| {
                    costs[[a, child.code]].partial_cmp(&costs[[b, child.code]]).unwrap_or(Ordering::Equal)
                });
                nearest[..child.room as usize].iter().for_each(|&item| given[item] = Some(child.code));
                rooms[child.code] = 0;
            }
            places::greedy(&mut given, &mut rooms, cost);
        }
        ReassignMethod::Sinkhorn { epsilon, iterations } => {
            given = sinkhorn::place(costs, &rooms, epsilon, iterations);
        }
    }
    given
}
