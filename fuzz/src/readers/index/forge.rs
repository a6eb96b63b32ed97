//! Files of an index that are consistent on the surface, by docs/formats.md: checksums, lengths and header agree.

use genrec::index::{CodebookId, CollisionPolicy, SidLayout};
use serde::{Deserialize, Serialize};

/// No more data than this are written, whatever a description asks for.
const MOST: u64 = 1 << 16;

/// `index.json` of version 2.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format_version: u32,
    layout: SidLayout,
    collision_policy: CollisionPolicy,
    codebook: Option<CodebookId>,
    items: u32,
    id_bound: u32,
    prefixes: Vec<u32>,
    payload_bytes: u64,
    header_crc32: u32,
    data_crc32: u32,
    crc32: u32,
}

/// `index.json` of version 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescriptionV1 {
    format_version: u32,
    layout: SidLayout,
    collision_policy: CollisionPolicy,
    items: u32,
    payload_bytes: u64,
    payload_crc32: u32,
    crc32: u32,
}

/// Description and payload signed anew, the payload under a new header if wanted. `None` where there is no description.
pub(super) fn files(json: &[u8], payload: &[u8], new_header: bool) -> Option<(Vec<u8>, Vec<u8>)> {
    if let Ok(description) = serde_json::from_slice::<Description>(json) {
        return description.sign(payload, new_header);
    }
    let mut description: DescriptionV1 = serde_json::from_slice(json).ok()?;
    let (items, positions) = (u64::from(description.items), description.layout.positions());
    let payload = match new_header {
        true => {
            let bytes = items * positions as u64 * 4;
            let tensor =
                format!(r#"{{"sids":{{"dtype":"U32","shape":[{items},{positions}],"data_offsets":[0,{bytes}]}}}}"#);
            with_header(tensor, bytes, payload)
        }
        false => payload.to_vec(),
    };
    description.payload_bytes = payload.len() as u64;
    description.payload_crc32 = crc32fast::hash(&payload);
    description.crc32 = 0;
    description.crc32 = crc32fast::hash(&serde_json::to_vec(&description).ok()?);
    Some((serde_json::to_vec(&description).ok()?, payload))
}

impl Description {
    fn sign(mut self, payload: &[u8], new_header: bool) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut payload = if new_header { self.payload(payload) } else { payload.to_vec() };
        let length = payload.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)).saturating_add(8);
        let header = usize::try_from(length).unwrap_or(usize::MAX).min(payload.len());
        let (header, data) = payload.split_at_mut(header);
        self.data_crc32 = crc32fast::hash(data);
        let tie = b"\"data_crc32\":\"";
        if let Some(place) = header.windows(tie.len() + 8).position(|window| window.starts_with(tie)) {
            header[place + tie.len()..][..8].copy_from_slice(format!("{:08x}", self.data_crc32).as_bytes());
        }
        self.header_crc32 = crc32fast::hash(header);
        self.payload_bytes = payload.len() as u64;
        self.crc32 = 0;
        self.crc32 = crc32fast::hash(&serde_json::to_vec(&self).ok()?);
        Some((serde_json::to_vec(&self).ok()?, payload))
    }

    /// The data under the header that this description calls for.
    fn payload(&self, data: &[u8]) -> Vec<u8> {
        let mut arrays = self.arrays();
        arrays.sort_unstable();
        let mut header = r#"{"__metadata__":{"data_crc32":"00000000"}"#.to_owned();
        let mut end = 0;
        for (name, words) in arrays {
            let start = end;
            end += words * 8;
            header += &format!(r#","{name}":{{"dtype":"U64","shape":[{words}],"data_offsets":[{start},{end}]}}"#);
        }
        with_header(header + "}", end, data)
    }

    /// Names and lengths in words of all arrays.
    fn arrays(&self) -> Vec<(String, u64)> {
        let (items, bound) = (u64::from(self.items), u64::from(self.id_bound));
        let bits: u64 = self.layout.sizes().iter().map(|&size| width(size)).sum();
        let mut arrays = vec![("rows".to_owned(), (bound * bits).div_ceil(64))];
        arrays.push(("order".to_owned(), (items * width(self.id_bound)).div_ceil(64)));
        if items < bound {
            arrays.push(("present".to_owned(), bound.div_ceil(64)));
        }
        let mut parents = items.min(1);
        for ((depth, &nodes), &size) in (1..).zip(&self.prefixes).zip(self.layout.sizes()) {
            let (nodes, codes) = (u64::from(nodes), parents * u64::from(size));
            if codes <= nodes * (width(size) + 1) {
                arrays.push((format!("level.{depth}.bits"), codes.div_ceil(64)));
                arrays.push((format!("level.{depth}.bits.counts"), halves(codes.div_ceil(256) + 1)));
            } else {
                arrays.push((format!("level.{depth}.codes"), (nodes * width(size)).div_ceil(64)));
                select(&mut arrays, format!("level.{depth}.first"), nodes, parents);
            }
            parents = nodes;
        }
        if parents < items {
            select(&mut arrays, "shared".to_owned(), items, parents);
        }
        arrays
    }
}

/// Bits that can be searched for their ones.
fn select(arrays: &mut Vec<(String, u64)>, name: String, bits: u64, ones: u64) {
    let sampled = if bits < 3 * ones { 32 } else { 16 };
    arrays.push((format!("{name}.counts"), halves(bits.div_ceil(2048) + 1)));
    arrays.push((format!("{name}.samples"), halves(ones.div_ceil(sampled))));
    arrays.push((name, bits.div_ceil(64)));
}

/// Words for numbers of 32 bits.
fn halves(numbers: u64) -> u64 {
    numbers.div_ceil(2)
}

/// Bits that hold `0..size`.
fn width(size: u32) -> u64 {
    u64::from(u32::BITS - size.saturating_sub(1).leading_zeros())
}

/// A safetensors file of `bytes` bytes of data, cut or filled with zeros.
fn with_header(mut header: String, bytes: u64, data: &[u8]) -> Vec<u8> {
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut payload = (header.len() as u64).to_le_bytes().to_vec();
    payload.extend_from_slice(header.as_bytes());
    let end = payload.len() + bytes.min(MOST) as usize;
    payload.extend_from_slice(data);
    payload.resize(end, 0);
    payload
}
