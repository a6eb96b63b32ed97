//! In the place of `split` where there is no matrix unit.

use super::{Target, View};

/// No operand can be laid out for what there is not.
#[derive(Clone, Debug)]
pub(super) enum Tiles {}

impl Tiles {
    pub(super) fn new() -> Option<Self> {
        None
    }

    pub(super) fn pack(&mut self, _: View<'_>) {
        match *self {}
    }

    pub(super) fn par_pack(&mut self, _: View<'_>) {
        match *self {}
    }
}

pub(super) fn product(_: View<'_>, b: &Tiles, _: usize, _: Target<'_>) {
    match *b {}
}
