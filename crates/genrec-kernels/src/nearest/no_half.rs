//! In the place of `half` where there is no such unit.

/// Rows of a block of products.
pub(super) const BLOCK: usize = 32;

/// Never.
pub(super) fn takes(_: usize) -> bool {
    false
}

/// No codewords can be laid out for what there is not.
#[derive(Debug, Clone)]
pub(super) enum Words {}

/// What one thread multiplies with.
#[derive(Debug, Default)]
pub(super) struct Buffers;

impl Words {
    pub(super) fn new(_: &[f32], _: usize, _: &[f32]) -> Option<Self> {
        None
    }

    pub(super) fn products(&self, _: &[f32], _: usize, _: &mut [f32], _: &mut Buffers) {
        match *self {}
    }

    pub(super) fn lengths(&self) -> &[f32] {
        match *self {}
    }

    pub(super) fn slack(&self, _: usize, _: &Buffers) -> (f32, f32) {
        match *self {}
    }
}
