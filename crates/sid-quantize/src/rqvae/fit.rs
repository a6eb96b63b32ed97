//! Training of an RQ-VAE.

use candle_core::Device;
use genrec_kernels::CounterRng;

use super::bottleneck::RqBottleneck;
use super::codebooks::Codebooks;
use super::letter::Behaviour;
use super::{RqVae, RqVaeConfig};
use crate::autoencoder::{Network, Training, check_weights, widths};
use crate::preprocess::Preprocess;
use crate::saved::check_rows;
use crate::{Fit, FitControl, QuantizeError, Result, RowSource};

impl RqVaeConfig {
    /// Fits on rows and on what is known of their users' behaviour, as [`alignment`](Self::alignment) says.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)`
    /// - `behaviour`: `(n, latent_dim)`, row by row; a row of zeros says that nothing is known of that item
    ///
    /// # Errors
    /// As [`Fit::fit_on`], and when `alignment` is not set, or the behaviour has other rows or columns or holds NaN or an
    /// infinity.
    pub fn fit_aligned(
        &self,
        xs: &mut dyn RowSource,
        behaviour: &mut dyn RowSource,
        device: &Device,
        ctl: &mut dyn FitControl,
    ) -> Result<RqVae> {
        self.validate()?;
        let Some(alignment) = self.alignment else {
            return Err(QuantizeError::config("alignment", "none", "set it, or fit without behaviour"));
        };
        let behaviour = Behaviour::read(behaviour, (xs.len(), self.latent_dim), alignment, device)?;
        self.train(xs, Some(behaviour), device, ctl)
    }

    fn train(
        &self,
        xs: &mut dyn RowSource,
        behaviour: Option<Behaviour>,
        device: &Device,
        ctl: &mut dyn FitControl,
    ) -> Result<RqVae> {
        check_rows(xs, &self.codebook_sizes)?;
        let dim = xs.dim();
        let preprocess = Preprocess::fit(self.steps(), xs, device)?;
        let rows = preprocess.rows(xs);
        let rng = CounterRng::new(self.seed).named("rq-vae");
        let widths = widths(rows.dim(), &self.hidden, self.latent_dim);
        let network = Network::random(&widths, rng.named("weights"), device)?;
        let mut bottleneck = RqBottleneck::new(self, Codebooks::zeros(self, device)?, rng);
        if let Some(behaviour) = behaviour {
            bottleneck = bottleneck.aligned(behaviour);
        }
        let mut training = Training::new(self.plan(), rows, network, bottleneck, rng, device)?;
        training.run(ctl)?;
        let (network, books) = (training.network, training.bottleneck.books);
        check_weights(&network.params)?;
        check_weights(&books.params)?;
        Ok(RqVae::new(self.clone(), dim, network, books, preprocess))
    }
}

impl Fit for RqVaeConfig {
    type Model = RqVae;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<RqVae> {
        self.validate()?;
        if self.alignment.is_some() {
            return Err(QuantizeError::BehaviourMissing);
        }
        self.train(xs, None, device, ctl)
    }
}
