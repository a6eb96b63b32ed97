//! Lies of an index.

#[path = "../../../../fuzz/src/readers/index/forge.rs"]
mod forge;

use std::{fs, path::Path};

use genrec::index::{CollisionPolicy, IndexError, SidIndex};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::{
    Answer,
    files::{Restored, Tensors, edit, retensor},
    lie,
};
use crate::flips::small_index;

const JSON: &str = "index.json";
const PAYLOAD: &str = "index.safetensors";

/// Makes the checksums of an index right, if its description can be read at all.
pub(crate) fn sign(dir: &Path) {
    let read = |name| fs::read(dir.join(name)).unwrap();
    let Some((json, payload)) = forge::files(&read(JSON), &read(PAYLOAD), false) else { return };
    fs::write(dir.join(JSON), json).unwrap();
    fs::write(dir.join(PAYLOAD), payload).unwrap();
}

type Opened = Result<(), IndexError>;

/// What `open` says, and `open_mapped` with `verify` too.
fn open(dir: &Path) -> Opened {
    let opened = SidIndex::open(dir).map(drop);
    let verified = SidIndex::open_mapped(dir).and_then(|index| index.verify(dir));
    let text = |result: &Opened| result.as_ref().err().map(|error| genrec_tests::told(error));
    assert_eq!(text(&opened), text(&verified));
    opened
}

/// An index that can be lied about again and again.
struct Index<'a> {
    dir: &'a Path,
    honest: Restored<'a>,
}

impl<'a> Index<'a> {
    fn new(dir: &'a Path, policy: CollisionPolicy) -> Self {
        small_index(policy).save(dir).unwrap();
        open(dir).unwrap();
        Self { dir, honest: Restored::new(dir) }
    }

    /// Under another description, whose checksum stays as it was.
    fn unsigned(&self, change: impl FnOnce(&mut Value)) -> Opened {
        self.honest.restore();
        edit(&self.dir.join(JSON), change);
        open(self.dir)
    }

    /// Under another description, signed.
    fn described(&self, change: impl FnOnce(&mut Value)) -> Opened {
        self.honest.restore();
        edit(&self.dir.join(JSON), change);
        sign(self.dir);
        open(self.dir)
    }

    /// With another payload, signed where it is to be.
    fn bytes(&self, signed: bool, change: impl FnOnce(&mut Vec<u8>)) -> Opened {
        self.honest.restore();
        let path = self.dir.join(PAYLOAD);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
        if signed {
            sign(self.dir);
        }
        open(self.dir)
    }

    /// With other arrays, signed.
    fn arrays(&self, change: impl FnOnce(&mut Tensors)) -> Opened {
        self.honest.restore();
        retensor(&self.dir.join(PAYLOAD), change);
        sign(self.dir);
        open(self.dir)
    }

    /// With other words in an array, signed.
    fn words(&self, name: &str, change: impl FnOnce(&mut Bits<'_>)) -> Opened {
        self.arrays(|file| change(&mut Bits(&mut file.get(name).3)))
    }
}

/// The bits of an array, lowest first.
struct Bits<'a>(&'a mut [u8]);

impl Bits<'_> {
    fn set(&mut self, at: usize, width: usize, value: u64) {
        for bit in 0..width {
            let (byte, mask) = ((at + bit) / 8, 1 << ((at + bit) % 8));
            self.0[byte] = if value >> bit & 1 == 1 { self.0[byte] | mask } else { self.0[byte] & !mask };
        }
    }

    fn get(&self, at: usize, width: usize) -> u64 {
        (0..width).map(|bit| u64::from(self.0[(at + bit) / 8] >> ((at + bit) % 8) & 1) << bit).sum()
    }

    fn flip(&mut self, bit: usize) {
        self.0[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Bits of a Semantic ID of the small index with suffixes, of its first code, and of an item's number.
const ROW: usize = 12;
const CODE: usize = 5;
const ITEM: usize = 5;

fn of_the_description(index: &Index<'_>, answers: &mut Vec<Answer>) {
    use IndexError::{Contradiction, Description};

    let sizes = |sizes: Value| index.unsigned(|json| json["layout"]["codebook_sizes"] = sizes);
    lie!(answers, "no level", sizes(json!([])), Description { .. }, "at least one codebook");
    lie!(
        answers,
        "a codebook of no codes",
        sizes(json!([30, 0])),
        Description { .. },
        "position 1 of the layout has size 0"
    );
    lie!(answers, "too many levels", sizes(json!(vec![2; 256])), Description { .. }, "257 positions");
    lie!(answers, "codebooks too large", sizes(json!([u32::MAX, 2])), Description { .. }, "add up to");
    lie!(answers, "a codebook of -1 codes", sizes(json!([30, -1])), Description { .. }, "integer `-1`");

    let set = |field: &str, value: Value| index.unsigned(|json| json[field] = value);
    lie!(answers, "an unknown field", set("shards", json!(2)), Description { .. }, "unknown field `shards`");
    lie!(answers, "a codebook that is none", set("codebook", json!("07")), Description { .. }, "32 hexadecimal digits");
    lie!(
        answers,
        "a version to come",
        set("format_version", json!(3)),
        IndexError::FormatVersion { got: 3, .. },
        "version 3"
    );
    lie!(answers, "a description of another index", set("items", json!(19)), IndexError::Checksum { .. }, "index.json");
    let missing = index.unsigned(|json| drop(json.as_object_mut().unwrap().remove("items")));
    lie!(answers, "no count of items", missing, Description { .. }, "missing field `items`");

    let set = |field: &str, value: Value| index.described(|json| json[field] = value);
    let bare = index.described(|json| json["layout"]["suffix_size"] = Value::Null);
    lie!(answers, "suffixes without a suffix", bare, IndexError::NoSuffix, "needs a layout with a suffix");
    let shared = set("collision_policy", json!("share"));
    lie!(answers, "shared Semantic IDs with a suffix", shared, IndexError::UnusedSuffix, "gives no suffixes");
    lie!(
        answers,
        "more items than numbers",
        set("items", json!(22)),
        Contradiction { .. },
        "more items than it has numbers"
    );
    lie!(
        answers,
        "too many numbers",
        set("id_bound", json!(u32::MAX)),
        Contradiction { .. },
        "more item numbers than there are"
    );
    let counts = |counts: [u32; 3]| set("prefixes", json!(counts));
    lie!(
        answers,
        "a level uncounted",
        set("prefixes", json!([20, 20])),
        Contradiction { .. },
        "prefixes of every length"
    );
    lie!(
        answers,
        "fewer long prefixes than short",
        counts([20, 19, 20]),
        Contradiction { .. },
        "fewer prefixes of a length"
    );
    lie!(answers, "more prefixes than codes", counts([31, 31, 31]), Contradiction { .. }, "more prefixes of a length");
    lie!(answers, "more Semantic IDs than items", counts([20, 20, 21]), Contradiction { .. }, "that no item has");
    lie!(
        answers,
        "fewer Semantic IDs than items",
        set("items", json!(21)),
        Contradiction { .. },
        "without a Semantic ID"
    );
    lie!(
        answers,
        "arrays of another length",
        set("id_bound", json!(40)),
        IndexError::Tensor { .. },
        "where the description asks for"
    );
}

fn of_the_header(index: &Index<'_>, answers: &mut Vec<Answer>) {
    use IndexError::Contradiction;

    let longer = |bytes: &mut Vec<u8>| bytes.push(0);
    lie!(
        answers,
        "a payload of another length",
        index.bytes(false, longer),
        IndexError::FileSize { .. },
        "bytes where"
    );
    lie!(answers, "a payload that goes on", index.bytes(true, longer), Contradiction { .. }, "do not fill the file");
    let endless = index.bytes(true, |bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    lie!(answers, "a header of 2^64 - 1 bytes", endless, Contradiction { .. }, "its header is longer than");
    let askew = index.bytes(true, |bytes| {
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        bytes.insert(8 + header as usize, b' ');
        bytes[..8].copy_from_slice(&(header + 1).to_le_bytes());
    });
    lie!(answers, "arrays that begin within a word", askew, Contradiction { .. }, "do not begin where a word may");
    let jump = index.bytes(true, |bytes| {
        let offsets = b"\"data_offsets\":[0,";
        let at = bytes.windows(offsets.len()).position(|part| part == offsets).unwrap() + offsets.len() - 2;
        bytes[at] = b'1';
    });
    lie!(answers, "offsets that do not follow one another", jump, IndexError::Description { .. }, "offset");
    lie!(
        answers,
        "an array is missing",
        index.arrays(|file| file.remove("order")),
        Contradiction { .. },
        "an array is missing"
    );
    let more = index.arrays(|file| file.add("more", Dtype::U64, &[1]));
    lie!(answers, "an array too many", more, Contradiction { .. }, "names an array that");
    let signed = index.arrays(|file| file.retype("rows", Dtype::I64));
    lie!(answers, "an array of another type", signed, IndexError::Tensor { .. }, "is I64 of shape");
    let untied = index.arrays(|file| drop(file.fields.take()));
    lie!(answers, "a header without the data's checksum", untied, Contradiction { .. }, "belongs to other data");
}

fn of_the_arrays(index: &Index<'_>, answers: &mut Vec<Answer>) {
    use IndexError::{Array, Contradiction};

    let beyond = index.words("rows", |rows| rows.set(ROW - CODE, CODE, 31));
    lie!(answers, "a code out of range", beyond, IndexError::CodeOutOfRange { code: 31, .. }, "outside the 30 values");
    let unknown = index.words("order", |order| order.set(0, ITEM, 31));
    lie!(answers, "an item without a number", unknown, Contradiction { .. }, "names an item that it has no number for");
    let swapped = index.words("order", |order| {
        let (first, second) = (order.get(0, ITEM), order.get(ITEM, ITEM));
        order.set(0, ITEM, second);
        order.set(ITEM, ITEM, first);
    });
    lie!(answers, "items out of order", swapped, Contradiction { .. }, "not in the order");
    let twice = index.words("order", |order| order.set(ITEM, ITEM, order.get(0, ITEM)));
    lie!(answers, "an item twice", twice, Contradiction { .. }, "names an item twice");
    let equal = index.arrays(|file| {
        // Neighbours, of which the first has the lower number.
        let order = file.get("order").3.clone();
        let item = |rank: usize| Bits(&mut order.clone()).get(rank * ITEM, ITEM) as usize;
        let rank = (0..19).find(|&rank| item(rank) < item(rank + 1)).unwrap();
        let mut rows = Bits(&mut file.get("rows").3);
        let sid = rows.get(ROW * item(rank), ROW);
        rows.set(ROW * item(rank + 1), ROW, sid);
    });
    lie!(
        answers,
        "two items with one Semantic ID",
        equal,
        IndexError::DuplicateSid { .. },
        "both have the Semantic ID"
    );
    let absent = index.words("present", |present| present.flip(0));
    lie!(answers, "an item that is there and is not", absent, Array { .. }, "`present`");
    let other = index.words("level.1.bits", |bits| bits.flip(1));
    lie!(answers, "a first code that no item has", other, Array { .. }, "`level.1.bits`");
    let miscounted = index.words("level.1.bits.counts", |counts| counts.flip(32));
    lie!(answers, "a wrong number of ones", miscounted, Array { .. }, "`level.1.bits.counts`");
    let unsorted = index.words("level.2.codes", |codes| codes.set(0, CODE, codes.get(0, CODE) ^ 1));
    lie!(answers, "a code that follows no other", unsorted, Array { .. }, "`level.2.codes`");
    let parents = index.words("level.2.first", |first| first.flip(1));
    lie!(answers, "a child of another parent", parents, Array { .. }, "`level.2.first`");
    let offsets = index.words("level.2.first.counts", |counts| counts.flip(33));
    lie!(answers, "counts that fall", offsets, Array { .. }, "`level.2.first.counts`");
    let samples = index.words("level.2.first.samples", |samples| samples.flip(3));
    lie!(answers, "a place that is another's", samples, Array { .. }, "`level.2.first.samples`");
}

pub(super) fn lies(dir: &Path) -> Vec<Answer> {
    let mut answers = Vec::new();
    let index = Index::new(dir, CollisionPolicy::Suffix);
    of_the_description(&index, &mut answers);
    of_the_header(&index, &mut answers);
    of_the_arrays(&index, &mut answers);

    let index = Index::new(dir, CollisionPolicy::Share);
    let shared = index.words("shared", |shared| shared.flip(1));
    lie!(answers, "items that share and do not", shared, IndexError::Array { .. }, "`shared`");
    answers
}
