//! Runs from the Hugging Face Hub, where [`Export`](crate::Export) puts them.

use candle_core::Device;
use genrec_embed::hub::HubDownload;
use genrec_model::t5::T5;

use crate::{
    Recommender, Result,
    artifacts::{self, RunDir},
};

/// What every run has; a repository without one of these holds no run, or not the whole of it.
const REQUIRED: [&str; 7] = [
    "run.json",
    "decode.json",
    "catalogue/items.jsonl",
    "index/index.json",
    "quantizer/config.json",
    "model/config.json",
    "model/model.safetensors",
];

impl RunDir {
    /// Downloads a run from the Hugging Face Hub into the cache and names its directory there: all files that
    /// [`serves`](artifacts::serves) accepts, of one commit, each compared with the hash that the Hub gives. What is in the cache
    /// is not fetched again, what was cut is completed.
    ///
    /// The directory belongs to the cache, and the next download may replace what is written into it: copy it before items are
    /// added for good.
    ///
    /// # Errors
    /// [`Error::Embed`](crate::Error::Embed), in it those of [`HubDownload::download_files`].
    pub fn from_hub(download: &HubDownload) -> Result<Self> {
        Ok(Self::new(download.download_files(&REQUIRED, artifacts::serves)?))
    }
}

impl Recommender<T5> {
    /// Downloads a run from the Hugging Face Hub and opens it: by the name of its repository, or with settings (revision,
    /// token, cache, endpoint, progress) by a [`HubDownload`].
    ///
    /// ```no_run
    /// use candle_core::Device;
    /// use genrec::{Recommender, embed::hub::HubDownload};
    ///
    /// # fn main() -> genrec::Result<()> {
    /// let newest = Recommender::from_hub("owner/beauty", &Device::Cpu)?;
    ///
    /// let tagged = HubDownload::new("owner/beauty").with_revision("v1").with_token("hf_...").with_cache_dir("cache");
    /// let released = Recommender::from_hub(tagged, &Device::Cpu)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`RunDir::from_hub`], then those of [`load`](Self::load).
    pub fn from_hub(run: impl Into<HubDownload>, device: &Device) -> Result<Self> {
        let run = RunDir::from_hub(&run.into())?;
        Self::load(run.root(), device)
    }
}
