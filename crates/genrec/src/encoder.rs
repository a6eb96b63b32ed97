//! What a new item passes through: text to embedding, embedding to codes.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::Device;
use genrec_data::Item;
use genrec_embed::{AnyEmbedder, Embedder, TextTemplate, behaviour::Blend};
use ndarray::{Array2, ArrayView1, Axis};
use sid_quantize::{AnyQuantizer, Quantizer};

use crate::{Error, Result};

/// What embeds the text of a new item.
#[derive(Debug)]
#[non_exhaustive]
pub enum ItemEmbedder {
    /// Nothing: the run was made from ready embeddings.
    Absent,
    /// An open embedder.
    Open(Box<AnyEmbedder>),
    /// One that a run keeps, opened when the first text asks for it: recommending needs no encoder's weights.
    Saved {
        /// Directory of the embedder inside the run.
        dir: PathBuf,
        /// Where it is to compute.
        device: Device,
    },
}

impl ItemEmbedder {
    pub(crate) fn open(&mut self) -> Result<&AnyEmbedder> {
        if let Self::Saved { dir, device } = self {
            if let Some(model) = AnyEmbedder::outside_model(&*dir)?
                && !model.dir.is_dir()
            {
                return Err(Error::EmbedderElsewhere { model: model.dir });
            }
            *self = Self::Open(Box::new(AnyEmbedder::load(dir, device)?));
        }
        match self {
            Self::Open(embedder) => Ok(embedder),
            Self::Absent | Self::Saved { .. } => Err(Error::NoEmbedder),
        }
    }
}

impl From<AnyEmbedder> for ItemEmbedder {
    fn from(embedder: AnyEmbedder) -> Self {
        Self::Open(Box::new(embedder))
    }
}

/// Text to codes: what a new item passes through.
#[derive(Debug)]
pub struct ItemEncoder {
    /// Fields to text.
    pub text: TextTemplate,
    /// Text to embedding.
    pub embedder: ItemEmbedder,
    /// Content with behaviour, where the run's Semantic IDs were made of both.
    pub blend: Option<ItemBlend>,
    /// Embedding to codes.
    pub quantizer: AnyQuantizer,
}

/// An [`ItemEncoder`] whose clones share what it holds: weights, and what the first new item had opened.
#[derive(Debug, Clone)]
pub(crate) struct SharedEncoder {
    text: TextTemplate,
    embedder: Arc<Mutex<ItemEmbedder>>,
    blend: Option<Arc<Mutex<ItemBlend>>>,
    quantizer: Arc<AnyQuantizer>,
}

impl From<ItemEncoder> for SharedEncoder {
    fn from(encoder: ItemEncoder) -> Self {
        let ItemEncoder { text, embedder, blend, quantizer } = encoder;
        let blend = blend.map(|blend| Arc::new(Mutex::new(blend)));
        Self { text, embedder: Arc::new(Mutex::new(embedder)), blend, quantizer: Arc::new(quantizer) }
    }
}

impl SharedEncoder {
    /// Takes another embedder; clones keep theirs.
    pub(crate) fn with_embedder(mut self, embedder: ItemEmbedder) -> Self {
        self.embedder = Arc::new(Mutex::new(embedder));
        self
    }

    pub(crate) fn quantizer(&self) -> &AnyQuantizer {
        &self.quantizer
    }

    /// Embeddings of items' texts.
    pub(crate) fn embed(&self, items: &[Item]) -> Result<Array2<f32>> {
        let texts: Vec<String> = items.iter().map(|item| self.text.render(|field| item.field(field))).collect();
        let mut embedder = self.embedder.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(embedder.open()?.embed(&texts)?)
    }

    /// The codes of a new item.
    ///
    /// # Shapes
    /// `embedding`: `(features,)`, of content
    ///
    /// # Errors
    /// [`Error::EmbeddingDim`] when the embedding has another size than the run's, and the errors of reading the other items'
    /// content and of encoding.
    #[allow(clippy::needless_pass_by_value, reason = "a view is passed by value, as ndarray does")]
    pub(crate) fn encode(&self, embedding: ArrayView1<'_, f32>) -> Result<Vec<u32>> {
        let mut blend = self.blend.as_ref().map(|blend| blend.lock().unwrap_or_else(PoisonError::into_inner));
        let expected = blend.as_ref().map_or(self.quantizer.dim(), |with| with.blend.content_dim());
        if embedding.len() != expected {
            return Err(Error::EmbeddingDim { expected, got: embedding.len() });
        }
        let content = embedding.insert_axis(Axis(0));
        let codes = match &mut blend {
            None => self.quantizer.encode_array(content, 1)?,
            Some(with) => {
                let (blend, known) = with.open()?;
                self.quantizer.encode_array(blend.new_rows(known.view(), content)?.view(), 1)?
            }
        };
        Ok(codes.into_iter().collect())
    }
}

/// A blend of content and behaviour, with the content of the items that it was fitted on: a new item's behaviour is that of
/// the items nearest in content.
#[derive(Debug)]
pub struct ItemBlend {
    blend: Blend,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Held(Array2<f32>),
    /// Read when the first new item asks for it: recommending does without.
    Saved(PathBuf),
}

impl ItemBlend {
    /// A blend and the content that it was fitted on.
    ///
    /// # Shapes
    /// `content`: `(items, features)`
    ///
    /// # Errors
    /// [`Error::Embed`] when the two do not fit.
    pub fn new(blend: Blend, content: Array2<f32>) -> Result<Self> {
        // Blending nothing checks the shapes.
        blend.new_rows(content.view(), Array2::zeros((0, blend.content_dim())).view())?;
        Ok(Self { blend, content: Content::Held(content) })
    }

    /// A blend of a run, whose content lies in a file.
    pub(crate) fn saved(blend: Blend, content: PathBuf) -> Self {
        Self { blend, content: Content::Saved(content) }
    }

    fn open(&mut self) -> Result<(&Blend, &Array2<f32>)> {
        if let Content::Saved(path) = &self.content {
            self.content = Content::Held(genrec_embed::io::read_safetensors(path)?);
        }
        match &self.content {
            Content::Held(content) => Ok((&self.blend, content)),
            Content::Saved(path) => Err(Error::MissingArtifact { path: path.clone() }),
        }
    }
}
