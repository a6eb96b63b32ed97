//! A trained run, ready to recommend.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use candle_core::Device;
use genrec_data::{Catalogue, Item};
use genrec_decode::DeviceCatalogue;
use genrec_embed::{AnyEmbedder, behaviour::Blend};
use genrec_model::{
    ItemScorer, Seq2Seq,
    baseline::{CoOccurrence, KnnHistory, SemanticKnn},
    t5::T5,
};
use genrec_train::DirectoryLock;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use serde::Serialize;
use sid_index::{CodebookId, ItemId, SemanticId, SidIndex, SidVocab};
use sid_quantize::{AnyQuantizer, Quantizer};

use crate::{
    Error, Result,
    artifacts::{self, RunDir},
    catalogue,
    encoder::{ItemBlend, ItemEmbedder, ItemEncoder, SharedEncoder},
    search::{DecodeConfig, Ranked, Searcher, UnseenScorer, Wanted},
    tokens::History,
};

/// One recommended item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// Row of the catalogue.
    pub item: ItemId,
    /// The item's outside id.
    pub id: String,
    /// Its title, where known.
    pub title: Option<String>,
    /// Its Semantic ID.
    pub sid: SemanticId,
    /// Log-probability (nats) under the model of the sequence that it was found by: of its Semantic ID but where a prefix was
    /// enough, after free generation or of an item that training has not seen. Of a [`Rerank`](crate::Rerank) with what that adds.
    pub score: f32,
}

/// A trained run: catalogue, index, model, and what encodes new items.
///
/// Recommending never changes it; [`add_item`](Self::add_item) does.
///
/// A clone is a snapshot: it shares weights, catalogue and index, and an item added to the one is not in the other. A service
/// answers from one while it adds items to the next.
#[derive(Debug, Clone)]
pub struct Recommender<M = T5> {
    catalogue: Arc<Catalogue>,
    seen: Vec<bool>,
    index: SidIndex,
    vocab: SidVocab,
    model: M,
    encoder: SharedEncoder,
    config: DecodeConfig,
    /// The catalogue on the model's GPU, once it has been asked there.
    tables: OnceLock<DeviceCatalogue>,
    unseen_scorer: Option<UnseenScorer>,
    near: Option<Arc<CoOccurrence>>,
}

impl Recommender<T5> {
    /// Opens a run directory. An encoder outside of it (BERT, say) is opened by the first
    /// [`add_item`](Self::add_item) alone; where it has moved, see [`with_embedder`](Self::with_embedder).
    ///
    /// # Errors
    /// [`Error::MissingArtifact`] when the run is not finished, [`Error::Mismatch`] when its parts do not belong together,
    /// and the errors of each part's reader.
    pub fn load(dir: impl Into<PathBuf>, device: &Device) -> Result<Self> {
        let run = RunDir::new(dir);
        let config: DecodeConfig = artifacts::read_versioned(&run.decode())?;
        let manifest: crate::pipeline::Manifest = artifacts::read_versioned(&run.manifest())?;
        let embedder = if manifest.config.embedder.is_text() {
            ItemEmbedder::Saved { dir: run.embedder(), device: device.clone() }
        } else {
            ItemEmbedder::Absent
        };
        let quantizer = AnyQuantizer::load(run.quantizer(), device)?;
        let blend = manifest.config.blend.is_some().then(|| Blend::load(run.behaviour())).transpose()?;
        let blend = blend.map(|blend| ItemBlend::saved(blend, run.embeddings()));
        let index = SidIndex::open(&run.index())?;
        let (catalogue, seen) = catalogue::read(&run.catalogue(), index.id_bound() as usize)?;
        let model = T5::load(run.model(), device)?;
        let near = run.co_occurrence();
        let near = if artifacts::exists(&near)? { Some(CoOccurrence::load(near)?) } else { None };
        if config.rerank.is_some() && near.is_none() {
            return Err(Error::MissingArtifact { path: run.co_occurrence() });
        }
        let encoder = ItemEncoder { text: manifest.config.text, embedder, blend, quantizer };
        let loaded = Self::new(catalogue, seen, index, model, encoder, config)?;
        match near {
            Some(near) => loaded.with_co_occurrence(near),
            None => Ok(loaded),
        }
    }
}

impl<M: Seq2Seq> Recommender<M> {
    /// Puts the parts of a run together; `seen[i]` says whether training saw item `i`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the parts count items or tokens differently, [`Error::Config`] for a setting outside its
    /// bounds, and the index's error when it belongs to another quantiser.
    pub fn new(
        catalogue: Catalogue,
        seen: Vec<bool>,
        index: SidIndex,
        model: M,
        encoder: ItemEncoder,
        config: DecodeConfig,
    ) -> Result<Self> {
        Self::assemble(Arc::new(catalogue), seen, index, model, encoder.into(), config)
    }

    fn assemble(
        catalogue: Arc<Catalogue>,
        seen: Vec<bool>,
        index: SidIndex,
        model: M,
        encoder: SharedEncoder,
        config: DecodeConfig,
    ) -> Result<Self> {
        config.validate()?;
        let vocab = SidVocab::new(index.layout(), config.user_tokens)?;
        for (what, left, left_value, right, right_value) in [
            ("items", "the catalogue", catalogue.len(), "the index", index.id_bound() as usize),
            ("items", "the catalogue", catalogue.len(), "the record of seen items", seen.len()),
            ("tokens", "the vocabulary", vocab.size(), "the model", model.vocab_size()),
            (
                "levels",
                "the index",
                index.layout().levels(),
                "the quantiser",
                encoder.quantizer().codebook_sizes().len(),
            ),
        ] {
            if left_value != right_value {
                return Err(Error::Mismatch { what, left, left_value, right, right_value });
            }
        }
        index.check_codebook(CodebookId(encoder.quantizer().fingerprint()?))?;
        let (tables, unseen_scorer, near) = (OnceLock::new(), None, None);
        Ok(Self { catalogue, seen, index, vocab, model, encoder, config, tables, unseen_scorer, near })
    }

    /// The items.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The item of that outside id.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when the catalogue has no such item.
    pub fn find(&self, id: &str) -> Result<ItemId> {
        self.catalogue.find(id).ok_or_else(|| Error::UnknownItem { item: id.to_owned(), items: self.catalogue.len() })
    }

    /// Whether training saw an item; `None` for an item outside the catalogue.
    pub fn seen(&self, item: ItemId) -> Option<bool> {
        self.seen.get(item.index()).copied()
    }

    pub(crate) fn seen_flags(&self) -> &[bool] {
        &self.seen
    }

    /// Codes to items and back.
    pub fn index(&self) -> &SidIndex {
        &self.index
    }

    /// Codes to tokens and back.
    pub fn vocab(&self) -> &SidVocab {
        &self.vocab
    }

    /// The sequence model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// How it searches.
    pub fn config(&self) -> &DecodeConfig {
        &self.config
    }

    /// The same run with another search.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting outside its bounds; a changed `user_tokens` is [`Error::Mismatch`].
    pub fn with_config(self, config: DecodeConfig) -> Result<Self> {
        let (unseen_scorer, near) = (self.unseen_scorer, self.near);
        let changed = Self::assemble(self.catalogue, self.seen, self.index, self.model, self.encoder, config)?;
        Ok(Self { unseen_scorer, near, ..changed })
    }

    /// Tells what came near what, which [`DecodeConfig::rerank`] asks. A run that was trained with that setting knows; of items that
    /// are added later nothing is known.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the record is of more items than there are.
    pub fn with_co_occurrence(mut self, near: CoOccurrence) -> Result<Self> {
        let (recorded, items) = (near.items(), self.catalogue.len());
        if recorded > items {
            let (left, right) = ("the record of co-occurrences", "the catalogue");
            return Err(Error::Mismatch { what: "items", left, left_value: recorded, right, right_value: items });
        }
        self.near = Some(Arc::new(near));
        Ok(self)
    }

    /// Chooses unseen items by another model's scores, those of
    /// [`SemanticKnn`](genrec_model::baseline::SemanticKnn) for instance; [`DecodeConfig::cold_start`] says how many there may
    /// be. The scorer must know the items that there are now. Of those added later it is not told; they are chosen last, until
    /// it is given anew.
    #[must_use]
    pub fn with_unseen_scorer(mut self, scorer: Arc<dyn ItemScorer + Send + Sync>) -> Self {
        self.unseen_scorer = Some(UnseenScorer::new(scorer, self.catalogue.len()));
        self
    }

    /// The same run with another embedder for new items, for one whose files have moved
    /// ([`AnyEmbedder::load_relocated`]).
    ///
    /// It must be the model that the run's items were embedded with: the vectors of any other, even one of the same width,
    /// come out as codes without meaning. One of another width is refused by [`add_item`](Self::add_item).
    #[must_use]
    pub fn with_embedder(mut self, embedder: AnyEmbedder) -> Self {
        self.encoder = self.encoder.with_embedder(embedder.into());
        self
    }

    /// Chooses unseen items by Semantic-KNN: those nearest in content to the last item of a history.
    ///
    /// # Shapes
    /// `embeddings`: `(items, features)`, of the first items of the catalogue, as a run keeps them
    /// ([`RunDir::embeddings`]). Items added since are embedded from their texts; those added after this call are chosen last,
    /// until it is made again.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when there are more embeddings than items, [`Error::NoEmbedder`] when items were added to a run that
    /// was made from ready embeddings, and the errors of embedding.
    #[allow(clippy::needless_pass_by_value, reason = "a view is passed by value, as ndarray does")]
    pub fn with_semantic_knn(self, embeddings: ArrayView2<'_, f32>) -> Result<Self> {
        let (rows, items) = (embeddings.nrows(), self.catalogue.len());
        let Some(added) = self.catalogue.items().get(rows..) else {
            let (left, right) = ("the embeddings", "the catalogue");
            return Err(Error::Mismatch { what: "items", left, left_value: rows, right, right_value: items });
        };
        let knn = if added.is_empty() {
            SemanticKnn::new(embeddings, KnnHistory::LastItem)?
        } else {
            let added = self.encoder.embed(added)?;
            if added.ncols() != embeddings.ncols() {
                return Err(Error::EmbeddingDim { expected: embeddings.ncols(), got: added.ncols() });
            }
            let values = embeddings.iter().chain(&added).copied().collect();
            let all = Array2::from_shape_vec((items, embeddings.ncols()), values).unwrap_or_default();
            SemanticKnn::new(all.view(), KnnHistory::LastItem)?
        };
        Ok(self.with_unseen_scorer(Arc::new(knn)))
    }

    /// The `k` best items for each history, best first, none twice. Items of the history stay eligible, as in the paper's
    /// protocol.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when a history names an item outside the catalogue, and the errors of decoding.
    pub fn recommend(&self, histories: &[History<'_>], k: usize) -> Result<Vec<Vec<Recommendation>>> {
        self.recommend_wanted(histories, k, &Wanted::any())
    }

    /// As [`recommend`](Self::recommend), of the items that are wanted alone: in stock, of a category, not seen by the user.
    /// Filters are made from [`index`](Self::index) and serve any number of calls until items are added and the index
    /// compacted.
    ///
    /// # Errors
    /// As [`recommend`](Self::recommend), and [`Error::Decode`] names the filter that leaves a user no item.
    pub fn recommend_wanted(
        &self,
        histories: &[History<'_>],
        k: usize,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<Vec<Recommendation>>> {
        let ranked = self.searcher().rank_wanted(&self.model, histories, k, wanted, &mut |_, _| {})?;
        Ok(ranked.into_iter().map(|user| self.dress(&user, k)).collect())
    }

    fn dress(&self, ranked: &Ranked, k: usize) -> Vec<Recommendation> {
        ranked
            .items
            .iter()
            .take(k)
            .filter_map(|&(item, score)| {
                let entry = self.catalogue.get(item)?;
                let sid = self.index.sid(item)?;
                Some(Recommendation { item, id: entry.id.clone(), title: entry.title.clone(), sid, score })
            })
            .collect()
    }

    /// Searches with this run's index and settings.
    pub fn searcher(&self) -> Searcher<'_> {
        Searcher::new(&self.index, &self.vocab, &self.config)
            .with_tables(&self.tables)
            .with_seen(&self.seen)
            .with_unseen_scorer(self.unseen_scorer.as_ref())
            .with_co_occurrence(self.near.as_deref())
    }

    /// Adds an item that the model has never seen: its text is embedded and encoded, its Semantic ID inserted into the
    /// index. It is recommendable at once; no Semantic ID already given changes and nothing is trained.
    ///
    /// # Errors
    /// [`Error::NoEmbedder`] when the run was made from ready embeddings, [`Error::EmbedderElsewhere`] when the model that embeds
    /// its texts is not on this machine; the errors of embedding, encoding and the index (a full suffix) otherwise, and [`Error::Data`] for an id that is taken or empty or a price that is not finite. Nothing
    /// is changed then.
    pub fn add_item(&mut self, item: Item) -> Result<ItemId> {
        let embedding = self.encoder.embed(std::slice::from_ref(&item))?;
        self.add_item_with_embedding(item, embedding.index_axis(Axis(0), 0))
    }

    /// Adds an item whose embedding is at hand.
    ///
    /// # Shapes
    /// `embedding`: `(features,)`, of content, from the same encoder as the run's other embeddings.
    ///
    /// # Errors
    /// [`Error::EmbeddingDim`] when the embedding has another size than the run's; the errors of encoding and the
    /// index otherwise, and [`Error::Data`] for an id that is taken or empty or a price that is not finite. Nothing is changed
    /// then.
    #[allow(clippy::needless_pass_by_value, reason = "a view is passed by value, as ndarray does")]
    pub fn add_item_with_embedding(&mut self, item: Item, embedding: ArrayView1<'_, f32>) -> Result<ItemId> {
        let codes = self.encoder.encode(embedding)?;
        // The catalogue refuses a duplicate id before the index is touched.
        let mut catalogue = Catalogue::clone(&self.catalogue);
        let row = catalogue.push(item)?;
        self.index.insert(codes.as_slice())?;
        self.tables.take();
        self.catalogue = Arc::new(catalogue);
        self.seen.push(false);
        Ok(row)
    }

    /// Writes the catalogue and the index back to the run's directory, so that added items are there when it is opened
    /// again. A crash at any moment leaves either the old items or the new ones. What lies there must be this run with the first of its
    /// items, so that neither another run nor what others have added is overwritten.
    ///
    /// # Errors
    /// [`Error::Superseded`] when something else lies there. [`Error::Io`] names the file that could not be written, `TrainError::Locked` says that somebody else writes to the
    /// run, [`Error::Damaged`] that its checksums are not whole, after the items are written; the errors of the index otherwise.
    pub fn save_catalogue(&self, dir: impl Into<PathBuf>) -> Result<()> {
        let run = RunDir::new(dir);
        let _lock = DirectoryLock::take(run.root())?;
        if artifacts::exists(&run.index().join("index.json"))? && !self.extends(&run)? {
            return Err(Error::Superseded { path: run.root().to_owned() });
        }
        // The index counts the items: lines of the catalogue beyond it are not read.
        catalogue::write(&run.catalogue(), &self.catalogue, &self.seen)?;
        self.index.save(&run.index())?;
        run.reseal_catalogue(self.index.id_bound())
    }

    /// Whether a run on disk has the first of these items, by the same codebook and under the same Semantic IDs, and no other.
    fn extends(&self, run: &RunDir) -> Result<bool> {
        let index = SidIndex::open(&run.index())?;
        let bound = index.id_bound() as usize;
        if bound > self.catalogue.len()
            || index.layout() != self.index.layout()
            || index.codebook() != self.index.codebook()
        {
            return Ok(false);
        }
        let (catalogue, _) = catalogue::read(&run.catalogue(), bound)?;
        let same_id = |(theirs, ours): (&Item, &Item)| theirs.id == ours.id;
        let same_sid = |item| index.sid(ItemId(item)) == self.index.sid(ItemId(item));
        Ok(catalogue.items().iter().zip(self.catalogue.items()).all(same_id) && (0..index.id_bound()).all(same_sid))
    }
}
