//! A batch cut into chunks, and the chunks shared out.

use super::chunk::Chunk;
use crate::{
    batch::RaggedBatch,
    engine::{pass::Span, shares::balance},
    share::BatchShare,
    t5::config::T5Config,
};

/// Positions, source and target, that a chunk is filled up to: its activations then stay near a second-level cache's
/// size.
pub(super) const CHUNK_POSITIONS: usize = 256;

/// Rows whose sources are encoded at once: a source, and the rows that see it or its start.
struct Group<'a> {
    tokens: &'a [u32],
    rows: Vec<usize>,
}

/// Where a position's code depends on those before it alone, a source that is the start of another is not encoded again.
fn groups<'a>(batch: &'a RaggedBatch, causal: bool) -> Vec<Group<'a>> {
    let group = |(row, tokens): (usize, &'a [u32])| Group { tokens, rows: vec![row] };
    if !causal {
        return batch.sequences().enumerate().map(group).collect();
    }
    let mut sources: Vec<(usize, &[u32])> = batch.sequences().enumerate().collect();
    // Descending, so that a source comes after those that it is the start of.
    sources.sort_by(|(_, a), (_, b)| b.cmp(a));
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (row, tokens) in sources {
        match groups.last_mut() {
            Some(last)
                if last.tokens.starts_with(tokens)
                    && last.tokens.len() + (last.rows.len() + 1) * batch.target_len() <= CHUNK_POSITIONS =>
            {
                last.rows.push(row);
            }
            _ => groups.push(group((row, tokens))),
        }
    }
    groups
}

/// Cuts the batch into chunks and shares a worker's out so that every share has about the same work, whatever the number of threads.
pub(super) fn shares(batch: &RaggedBatch, worker: BatchShare, shares: usize, config: &T5Config) -> Vec<Vec<Chunk>> {
    let targets = batch.target_len();
    let mut chunks: Vec<Chunk> = Vec::new();
    for Group { tokens, rows } in groups(batch, config.causal_encoder) {
        let positions = tokens.len() + rows.len() * targets;
        let room = chunks.last().is_some_and(|chunk| chunk.positions() + positions <= CHUNK_POSITIONS);
        if !room {
            chunks.push(Chunk::default());
        }
        let Some(chunk) = chunks.last_mut() else { continue };
        let start = chunk.tokens.len();
        chunk.sources.push(Span { row: rows[0], start, len: tokens.len() });
        chunk.tokens.extend_from_slice(tokens);
        for row in rows {
            let labels = &batch.labels()[row * targets..(row + 1) * targets];
            let len = batch.sequence(row).map_or(0, <[u32]>::len);
            chunk.targets.push(Span { row, start: chunk.labels.len(), len: targets });
            chunk.seen.push(Span { row, start, len });
            chunk.inputs.push(config.decoder_start_token_id);
            chunk.inputs.extend_from_slice(&labels[..targets - 1]);
            chunk.labels.extend_from_slice(labels);
        }
    }
    balance(chunks, worker, shares, Chunk::positions)
}
