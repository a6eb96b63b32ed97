//! Parts of a run that are not of one run.

use std::{fs, path::Path};

use candle_core::Device;
use genrec::{
    Damage, Error, Recommender,
    artifacts::RunDir,
    data::DataError,
    decode::DecodeError,
    index::{CollisionPolicy, IndexError, SidIndex, SidLayout},
    model::baseline::CoOccurrence,
    pipeline::{self, Event},
};
use serde_json::{Value, json};

use super::{
    Answer,
    files::{Restored, edit},
    index, lie,
};
use crate::tiny;

struct Run<'a> {
    run: RunDir,
    honest: Restored<'a>,
}

impl<'a> Run<'a> {
    fn new(dir: &'a Path) -> Self {
        tiny::run(dir);
        let run = Self { run: RunDir::new(dir), honest: Restored::new(dir) };
        run.load(|_| ()).unwrap();
        run.resume(|_| ()).unwrap();
        run.verify(|_| ()).unwrap();
        run
    }

    fn load(&self, change: impl FnOnce(&RunDir)) -> Result<Recommender, Error> {
        self.honest.restore();
        change(&self.run);
        Recommender::load(self.run.root(), &Device::Cpu)
    }

    fn decode(&self, change: impl FnOnce(&mut Value)) -> Result<Recommender, Error> {
        self.load(|run| edit(&run.decode(), change))
    }

    fn catalogue(&self, change: impl FnOnce(&mut Vec<String>)) -> Result<Recommender, Error> {
        self.load(|run| {
            let mut lines = fs::read_to_string(run.catalogue()).unwrap().lines().map(str::to_owned).collect();
            change(&mut lines);
            fs::write(run.catalogue(), lines.join("\n")).unwrap();
        })
    }

    fn resume(&self, change: impl FnOnce(&RunDir)) -> Result<(), Error> {
        self.honest.restore();
        change(&self.run);
        let mut quiet = |_: &Event<'_>| {};
        let run = pipeline::run(&tiny::shop(), &tiny::config(), self.run.root(), &Device::Cpu, None, true, &mut quiet);
        run.map(drop)
    }

    /// With other checksums, whose own checksum is made right.
    fn verify(&self, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
        self.honest.restore();
        edit(&self.run.checksums(), |sums| {
            change(sums);
            let summed = serde_json::to_vec(&(&sums["files"], &sums["items"])).unwrap();
            sums["crc32"] = crc32fast::hash(&summed).into();
        });
        self.run.verify().map(drop)
    }
}

pub(super) fn lies(dir: &Path) -> Vec<Answer> {
    let mut answers = Vec::new();
    let run = Run::new(dir);
    of_settings(&run, &mut answers);
    of_items(&run, &mut answers);
    of_what_is_resumed_or_verified(&run, &mut answers);
    answers
}

fn of_settings(run: &Run<'_>, answers: &mut Vec<Answer>) {
    use Error::{Config, Decode};

    let set = |field: &str, value: Value| run.decode(|json| json[field] = value);
    lie!(
        answers,
        "a search of a version to come",
        set("format_version", json!(2)),
        Error::FormatVersion { .. },
        "version 2"
    );
    lie!(answers, "an unknown setting", set("shards", json!(2)), Error::Json { .. }, "unknown field `shards`");
    lie!(answers, "-1 beams", set("beams", json!(-1)), Error::Json { .. }, "integer `-1`");
    lie!(answers, "no beam", set("beams", json!(0)), Config { field: "beams", .. }, "at least 1");
    lie!(
        answers,
        "no user at once",
        set("users_per_batch", json!(0)),
        Config { field: "users_per_batch", .. },
        "at least 1"
    );
    lie!(
        answers,
        "other user tokens",
        set("user_tokens", json!(3)),
        Error::Mismatch { what: "tokens", .. },
        "the vocabulary has"
    );
    lie!(
        answers,
        "no sample",
        set("search", json!({"type": "sampling", "samples": 0})),
        Decode(DecodeError::NoBeams),
        "one beam"
    );
    let cold = run.decode(|json| {
        json.as_object_mut().unwrap().remove("rerank");
        json["cold_start"] = json!({"epsilon": 2.0});
    });
    lie!(answers, "a share of 2", cold, Decode(DecodeError::Epsilon { .. }), "`epsilon` is 2");
    let sampled = set("search", json!({"type": "sampling"}));
    lie!(answers, "samples that are ranked again", sampled, Config { field: "rerank", .. }, "absent beside sampling");
    lie!(
        answers,
        "no settings",
        run.load(|run| fs::remove_file(run.manifest()).unwrap()),
        Error::MissingArtifact { .. },
        "run.json"
    );
    let later = run.load(|run| edit(&run.manifest(), |json| json["format_version"] = json!(2)));
    lie!(answers, "a run of a version to come", later, Error::FormatVersion { .. }, "run.json");
    let none = run.load(|run| fs::write(run.manifest(), "[]").unwrap());
    lie!(answers, "settings that are none", none, Error::Json { .. }, "run.json");
}

fn of_items(run: &Run<'_>, answers: &mut Vec<Answer>) {
    use Error::{CatalogueLine, Data, Index, Mismatch};

    let line = |at: usize, change: &dyn Fn(&mut Value)| {
        run.catalogue(|lines| {
            let mut item = serde_json::from_str(&lines[at]).unwrap();
            change(&mut item);
            lines[at] = item.to_string();
        })
    };
    lie!(
        answers,
        "an item too few",
        run.catalogue(|lines| drop(lines.pop())),
        Mismatch { what: "items", .. },
        "the catalogue has 39"
    );
    let unseen = line(3, &|item| drop(item.as_object_mut().unwrap().remove("seen")));
    lie!(answers, "an item neither seen nor unseen", unseen, CatalogueLine { line: 4, .. }, "missing field `seen`");
    lie!(
        answers,
        "a line that is no item",
        run.catalogue(|lines| lines[3].truncate(9)),
        CatalogueLine { line: 4, .. },
        "EOF"
    );
    let twice = run.catalogue(|lines| lines[5] = lines[2].clone());
    lie!(answers, "an id twice", twice, Data(DataError::DuplicateItem { first: 2, second: 5, .. }), "rows 2 and 5");
    lie!(
        answers,
        "an item without an id",
        line(3, &|item| item["id"] = json!("")),
        Data(DataError::EmptyItemId { row: 3 }),
        "empty"
    );
    let codebook = run.load(|run| {
        edit(&run.index().join("index.json"), |json| json["codebook"] = json!("07".repeat(16)));
        index::sign(&run.index());
    });
    lie!(answers, "an index of another quantiser", codebook, Index(IndexError::Codebook { .. }), "belongs to codebook");
    let relaid = |sizes: &[u32], suffix: u32, items: u32| {
        run.load(|run| {
            let layout = SidLayout::new(sizes.to_vec()).unwrap().with_suffix(suffix);
            let codes = ndarray::Array2::from_shape_fn((items as usize, sizes.len()), |(item, level)| {
                item as u32 / 4_u32.pow(level as u32) % 4
            });
            SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap().save(&run.index()).unwrap();
        })
    };
    lie!(
        answers,
        "an index of another layout",
        relaid(&[4, 4, 4], 8, 40),
        Mismatch { what: "levels", .. },
        "the index has 3 levels"
    );
    lie!(
        answers,
        "an index of other codebooks",
        relaid(&[8, 8], 8, 40),
        Mismatch { what: "tokens", .. },
        "the vocabulary has 28"
    );
    let near = run.load(|run| CoOccurrence::fit([vec![0, 41]], 42).unwrap().save(run.co_occurrence()).unwrap());
    lie!(answers, "what came near what in another shop", near, Mismatch { .. }, "the record of co-occurrences has 42");
    let alone = run.load(|run| fs::remove_file(run.co_occurrence()).unwrap());
    lie!(answers, "nothing came near anything", alone, Error::MissingArtifact { .. }, "co-occurrence.safetensors");
}

fn of_what_is_resumed_or_verified(run: &Run<'_>, answers: &mut Vec<Answer>) {
    use Error::{ConfigChanged, Damaged, Embed, Mismatch};

    let changed = run.resume(|run| edit(&run.manifest(), |json| json["config"]["batch_size"] = json!(9)));
    lie!(answers, "a run of other settings", changed, ConfigChanged { .. }, "`config.batch_size`");
    let others = run.resume(|run| edit(&run.manifest(), |json| json["data_crc32"] = json!(9)));
    lie!(answers, "a run of other data", others, ConfigChanged { .. }, "`data_crc32`");
    let rows = |rows: usize, value: f32| {
        run.resume(|run| {
            let rows = ndarray::Array2::from_elem((rows, 4), value);
            genrec::embed::io::write_safetensors(run.embeddings(), rows.view()).unwrap();
        })
    };
    lie!(answers, "embeddings of another shop", rows(39, 0.5), Mismatch { .. }, "the embeddings has 39");
    lie!(answers, "embeddings that are no numbers", rows(40, f32::NAN), Embed(_), "not finite");
    let added = run.resume(|run| {
        let mut recommender = Recommender::load(run.root(), &Device::Cpu).unwrap();
        recommender.add_item(genrec::data::Item::new("new")).unwrap();
        recommender.save_catalogue(run.root()).unwrap();
    });
    lie!(
        answers,
        "a run with items added",
        added,
        Error::ItemsAdded { indexed: 41, items: 40, .. },
        "items were added to it"
    );

    let unsigned = run.resume(|_| ()).and_then(|()| {
        edit(&run.run.checksums(), |sums| sums["items"] = json!(41));
        run.run.verify().map(drop)
    });
    lie!(answers, "checksums without their own", unsigned, Damaged { damage: Damage::Contents, .. }, "checksums.json");
    let items = run.verify(|sums| sums["items"] = json!(41));
    lie!(
        answers,
        "more items than the index has",
        items,
        Damaged { damage: Damage::Items { was: 41, now: 40 }, .. },
        "40 items"
    );
    let sum = |field: &str, value: Value| run.verify(|sums| sums["files"]["decode.json"][field] = value);
    lie!(
        answers,
        "a file of another length",
        sum("bytes", json!(7)),
        Damaged { damage: Damage::Size { was: 7, .. }, .. },
        "and had 7"
    );
    lie!(
        answers,
        "a file of other contents",
        sum("crc32", json!(7)),
        Damaged { damage: Damage::Contents, .. },
        "decode.json"
    );
    let outside = run.verify(|sums| sums["files"]["../decode.json"] = json!({"bytes": 1, "crc32": 1}));
    lie!(
        answers,
        "a file that is not the run's",
        outside,
        Damaged { damage: Damage::Outside, .. },
        "outside of the run"
    );
    let unknown = run.verify(|sums| sums["files"]["more.json"] = json!({"bytes": 1, "crc32": 1}));
    lie!(answers, "a file that is not there", unknown, Error::MissingArtifact { .. }, "more.json");
}
