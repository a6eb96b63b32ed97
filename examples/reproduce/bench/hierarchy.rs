//! The row of figure 4: what codes say of categories.

use genrec::{index::ItemId, quantize::usage::PurityReport};
use ndarray::Array2;
use support::{BoxError, categories::Categories, create_dir, figures};

use super::Bench;
use crate::{figures::of_codes, plan, row::Row};

impl Bench<'_> {
    /// The row `tiger` with what its codes say of categories, and a picture of it. Its manifest is the run's, but for the command.
    pub(super) fn hierarchy(&self, name: &str, seed: u64) -> Result<Row, BoxError> {
        let mut tiger = self.row(&plan::tiger_itself(), seed)?;
        tiger.manifest.command.clone_from(&self.settings.command);
        let recommender = self.trained("tiger", &[], seed)?.recommender;
        let index = recommender.index();
        let (items, levels) = (self.dataset.catalogue.len(), index.layout().levels());
        let mut codes = Array2::<u32>::zeros((items, levels));
        for (item, mut row) in (0..).map(ItemId).zip(codes.rows_mut()) {
            let sid = index.sid(item).ok_or("an item of the catalogue has no Semantic ID")?;
            row.iter_mut().zip(sid.iter()).for_each(|(code, &of)| *code = of);
        }
        let categories = Categories::of(&self.dataset.catalogue);
        let path = of_codes(&self.settings.results, self.set, seed);
        path.parent().map_or(Ok(()), create_dir)?;
        let title = format!("{}: categories of RQ-VAE codes", self.set.title());
        figures::mosaic(&path, &title, codes.view(), &categories)?;
        figures::png(&path)?;
        let purity = PurityReport::of(codes.view(), &categories.labels())?;
        Ok(Row { name: name.to_owned(), purity: Some(purity), ..tiger })
    }
}
