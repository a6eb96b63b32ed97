//! Items that came after the base was made.

use std::ops::Range;

use crate::id::SemanticId;

/// New items, each with its row, and their order: small, so that adding one may move all that sort behind it.
///
/// An item's *arrival* is its number less the number of items that the base has room for.
#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    positions: usize,
    /// Row-major `(arrivals, positions)`.
    rows: Vec<u32>,
    /// Whether each arrival is still there.
    present: Vec<bool>,
    /// Arrivals that are there, sorted by row and then by arrival.
    order: Vec<u32>,
}

impl Overlay {
    pub(crate) fn new(positions: usize) -> Self {
        Self { positions, rows: Vec::new(), present: Vec::new(), order: Vec::new() }
    }

    /// Number of arrivals, those that are gone included.
    pub(crate) fn arrivals(&self) -> u32 {
        // Checked when items are added.
        self.present.len() as u32
    }

    /// Number of items that are there.
    pub(crate) fn len(&self) -> u32 {
        self.order.len() as u32
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.rows.capacity() + self.order.capacity()) + self.present.capacity()
    }

    /// All items, in order.
    #[inline]
    pub(crate) fn all(&self) -> Range<u32> {
        0..self.len()
    }

    /// The arrival at a place of the order.
    #[inline]
    pub(crate) fn at(&self, place: u32) -> u32 {
        self.order.get(place as usize).copied().unwrap_or(u32::MAX)
    }

    #[inline]
    pub(crate) fn row(&self, arrival: u32) -> &[u32] {
        self.rows
            .get(arrival as usize * self.positions..)
            .and_then(|rows| rows.get(..self.positions))
            .unwrap_or_default()
    }

    /// The row of an arrival that is there.
    pub(crate) fn sid(&self, arrival: u32) -> Option<SemanticId> {
        self.present.get(arrival as usize).copied().unwrap_or(false).then(|| self.row(arrival).into())
    }

    /// The code at a depth of the row at a place.
    #[inline]
    pub(crate) fn code(&self, place: u32, depth: usize) -> Option<u32> {
        self.row(self.at(place)).get(depth).copied()
    }

    /// The part of a range of equal prefixes of length `depth` whose rows go on with `code`.
    #[inline]
    pub(crate) fn narrow(&self, range: Range<u32>, depth: usize, code: u32) -> Range<u32> {
        let places = self.order.get(range.start as usize..range.end as usize).unwrap_or_default();
        let code_of = |arrival: &u32| self.row(*arrival).get(depth).copied().unwrap_or(u32::MAX);
        let start = places.partition_point(|arrival| code_of(arrival) < code);
        let rest = places.get(start..).unwrap_or_default();
        let length = rest.partition_point(|arrival| code_of(arrival) == code) as u32;
        let start = range.start + start as u32;
        // One form of nothing, so that equal nodes are equal values.
        if length == 0 { 0..0 } else { start..start + length }
    }

    /// The range of a prefix.
    pub(crate) fn find(&self, prefix: &[u32]) -> Range<u32> {
        prefix.iter().enumerate().fold(self.all(), |range, (depth, &code)| self.narrow(range, depth, code))
    }

    /// Adds rows, one behind the other.
    pub(crate) fn extend(&mut self, sids: &[u32]) {
        let first = self.arrivals();
        self.rows.extend_from_slice(sids);
        self.present.resize(self.rows.len() / self.positions.max(1), true);
        let arrivals = first..self.arrivals();
        if arrivals.len() == 1 {
            let place = self.order.partition_point(|&other| self.row(other) <= self.row(first));
            self.order.insert(place, first);
            return;
        }
        let mut order = std::mem::take(&mut self.order);
        order.extend(arrivals);
        // Stable, and made for parts that are sorted already.
        order.sort_by(|&a, &b| self.row(a).cmp(self.row(b)));
        self.order = order;
    }

    /// Takes an arrival out; `false` when it was not there.
    pub(crate) fn remove(&mut self, arrival: u32) -> bool {
        let Some(place) = self.place(arrival) else { return false };
        self.order.remove(place as usize);
        if let Some(present) = self.present.get_mut(arrival as usize) {
            *present = false;
        }
        true
    }

    /// Where an arrival that is there stands in the order.
    fn place(&self, arrival: u32) -> Option<u32> {
        if !*self.present.get(arrival as usize)? {
            return None;
        }
        let range = self.find(self.row(arrival));
        let places = self.order.get(range.start as usize..range.end as usize)?;
        Some(range.start + places.binary_search(&arrival).ok()? as u32)
    }
}
