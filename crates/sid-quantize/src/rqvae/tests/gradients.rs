//! Every gradient derived by hand against candle's, and against finite differences.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use genrec_kernels::{CounterRng, Gradients, Parameters, init};

use super::super::bottleneck::{Quantized, RqBottleneck};
use super::super::codebooks::{Codebooks, Learner};
use super::super::estimator::{Mixture, rotate_back};
use super::super::letter::{Behaviour, Spread};
use super::super::*;
use super::small;
use crate::autoencoder::{Bottleneck, Learn, Network, Step, evaluate, evaluate_autoencoder, widths};
use crate::{ArrayRows, Composition, Distance, QuantizeError};

const STEP: Step<'_> = Step { number: 3, progress: 0.5, rows: &[] };
const ROWS: usize = 13;

struct Case {
    config: RqVaeConfig,
    network: Network,
    bottleneck: RqBottleneck,
    xs: Tensor,
}

fn rng() -> CounterRng {
    CounterRng::new(11)
}

fn normal(name: &str, shape: &[usize], deviation: f64, dtype: DType) -> Tensor {
    init::normal(&rng().named(name), shape, deviation, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// A network in some precision with codebooks spread like its latent vectors, and a batch for it.
fn case(config: &RqVaeConfig, dim: usize, rows: usize, dtype: DType) -> Case {
    let mut values = BTreeMap::new();
    for (name, shape) in Network::shapes(&widths(dim, &config.hidden, config.latent_dim)) {
        let deviation = if name.ends_with("bias") { 0.1 } else { (2.0 / (shape[0] + shape[1]) as f64).sqrt() };
        values.insert(name.clone(), normal(&name, &shape, deviation, dtype));
    }
    for (name, shape) in Codebooks::shapes(config) {
        values.insert(name.clone(), normal(&name, &shape, 0.6, dtype));
    }
    config.validate().unwrap();
    let network = Network::new(&values, config.hidden.len() + 1, &Device::Cpu).unwrap();
    let books = Codebooks::new(&values, config, &Device::Cpu).unwrap();
    let bottleneck = RqBottleneck::new(config, books, rng());
    Case { config: config.clone(), network, bottleneck, xs: normal("xs", &[rows, dim], 1.0, dtype) }
}

impl Case {
    fn vars(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.network.params.iter().chain(self.bottleneck.books.params.iter())
    }

    fn set(&self, name: &str, value: &Tensor) {
        let books = &self.bottleneck.books.params;
        let part = if books.get(name).is_some() { books } else { &self.network.params };
        part.set(name, value).unwrap();
    }

    /// The network's layers over candle's graph.
    fn graph(&self, part: &str, xs: &Tensor) -> Tensor {
        let mut hidden = xs.clone();
        let layers = self.config.hidden.len() + 1;
        for layer in 0..layers {
            let get = |kind: &str| self.network.params.get(&format!("{part}.{layer}.{kind}")).unwrap();
            hidden = hidden.matmul(&get("weight").t().unwrap()).unwrap().broadcast_add(get("bias")).unwrap();
            if layer + 1 < layers {
                hidden = hidden.relu().unwrap();
            }
        }
        hidden
    }

    /// The objective over candle's graph, stop-gradients by `detach`.
    fn objective(&self) -> Tensor {
        let z = self.graph("encoder", &self.xs);
        let found = self.bottleneck.quantize(&z.detach(), STEP).unwrap();
        let columns = self.config.composition.columns(self.config.latent_dim, found.codes.len());
        let residual_coding = self.config.composition == Composition::Residual;
        let (mut words, mut loss) = (Vec::new(), scalar_tensor(0.0));
        for (level, (book, codes)) in self.bottleneck.books.books().into_iter().zip(&found.codes).enumerate() {
            let residual = match residual_coding {
                true => words.iter().fold(z.clone(), |rest, word: &Tensor| (rest - word.detach()).unwrap()),
                false => z.narrow(1, columns[level].start, columns[level].len()).unwrap(),
            };
            let word = match self.config.estimator {
                Estimator::GumbelSoftmax(_) => soft_word(&residual, book, level),
                _ => book.index_select(codes, 0).unwrap(),
            };
            let codebook = square(&(residual.detach() - &word).unwrap());
            let commitment = square(&(residual - word.detach()).unwrap());
            if !matches!(self.config.codebook, CodebookLearning::Ema(_)) {
                loss = (loss + codebook).unwrap();
            }
            loss = (loss + (commitment * self.config.commitment).unwrap()).unwrap();
            words.push(word);
        }
        let quantized = match residual_coding {
            true => words.iter().skip(1).fold(words[0].clone(), |sum, word| (sum + word).unwrap()),
            false => Tensor::cat(&words, 1).unwrap(),
        };
        let seen = match self.config.estimator {
            Estimator::GumbelSoftmax(_) => quantized,
            Estimator::RotationTrick => rotated(&z, &quantized, if residual_coding { &columns[..1] } else { &columns }),
            _ => (&z + (quantized - &z).unwrap().detach()).unwrap(),
        };
        let decoded = self.graph("decoder", &seen);
        ((square(&(decoded - &self.xs).unwrap()) + loss).unwrap() / ROWS as f64).unwrap()
    }
}

fn scalar_tensor(value: f64) -> Tensor {
    Tensor::new(value, &Device::Cpu).unwrap()
}

fn scalar(tensor: &Tensor) -> f64 {
    tensor.to_scalar::<f64>().unwrap()
}

fn square(tensor: &Tensor) -> Tensor {
    tensor.sqr().unwrap().sum_all().unwrap()
}

fn gap(a: &Tensor, b: &Tensor) -> f64 {
    scalar(&(a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_dtype(DType::F64).unwrap())
}

fn distances(rows: &Tensor, book: &Tensor) -> Tensor {
    let words = book.sqr().unwrap().sum(1).unwrap().unsqueeze(0).unwrap();
    let squares = rows.sqr().unwrap().sum_keepdim(1).unwrap();
    let products = rows.matmul(&book.t().unwrap()).unwrap().affine(-2.0, 0.0).unwrap();
    products.broadcast_add(&words).unwrap().broadcast_add(&squares).unwrap()
}

fn soft_word(residual: &Tensor, book: &Tensor, level: usize) -> Tensor {
    let shape = (residual.dim(0).unwrap(), book.dim(0).unwrap());
    let mut noise = vec![0.0f32; shape.0 * shape.1];
    rng().named("gumbel").stream(STEP.number).stream(level as u64).fill_uniform(&mut noise);
    let noise: Vec<f64> = noise.iter().map(|x| f64::from(-(-x.ln()).ln())).collect();
    let noise = Tensor::from_vec(noise, shape, &Device::Cpu).unwrap();
    // Halfway from 1 to 0.1.
    let logits = ((noise - distances(residual, book)).unwrap() / 0.1f64.sqrt()).unwrap();
    let weights = logits.exp().unwrap();
    weights.broadcast_div(&weights.sum_keepdim(1).unwrap()).unwrap().matmul(book).unwrap()
}

/// Each part of each row turned and scaled by constants: `(|q| / |e|) R e`.
fn rotated(z: &Tensor, q: &Tensor, parts: &[std::ops::Range<usize>]) -> Tensor {
    let parts: Vec<Tensor> = parts
        .iter()
        .map(|columns| {
            let part = |t: &Tensor| t.narrow(1, columns.start, columns.len()).unwrap();
            let (z, e, q) = (part(z), part(z).detach(), part(q).detach());
            let rows: Vec<Tensor> = (0..z.dim(0).unwrap())
                .map(|row| {
                    let row = |t: &Tensor| t.narrow(0, row, 1).unwrap();
                    row(&z).matmul(&rotation(&row(&e), &row(&q)).t().unwrap()).unwrap()
                })
                .collect();
            Tensor::cat(&rows, 0).unwrap()
        })
        .collect();
    Tensor::cat(&parts, 1).unwrap()
}

/// `(|q| / |e|) R` as a matrix, for single rows.
fn rotation(e: &Tensor, q: &Tensor) -> Tensor {
    let length = |t: &Tensor| scalar(&square(t)).sqrt();
    let scale = length(q) / length(e);
    let (e, q) = ((e / length(e)).unwrap(), (q / length(q)).unwrap());
    let s = (&e + &q).unwrap();
    let s = (&s / length(&s)).unwrap();
    let outer = |a: &Tensor, b: &Tensor| a.t().unwrap().matmul(b).unwrap();
    let identity = Tensor::eye(e.dim(1).unwrap(), DType::F64, &Device::Cpu).unwrap();
    let turned = ((identity - (outer(&s, &s) * 2.0).unwrap()).unwrap() + (outer(&q, &e) * 2.0).unwrap()).unwrap();
    (turned * scale).unwrap()
}

fn variants() -> Vec<RqVaeConfig> {
    let base = small().with_hidden([7, 6]).with_latent_dim(6).with_codebook_sizes([5, 5, 5]);
    let with = |change: fn(RqVaeConfig) -> RqVaeConfig| change(base.clone());
    vec![
        base.clone(),
        with(|c| c.with_composition(Composition::Partitioned)),
        with(|c| c.with_estimator(Estimator::RotationTrick)),
        with(|c| c.with_estimator(Estimator::RotationTrick).with_composition(Composition::Partitioned)),
        with(|c| c.with_estimator(Estimator::GumbelSoftmax(GumbelSoftmax::default()))),
        with(|c| {
            let gumbel = Estimator::GumbelSoftmax(GumbelSoftmax::default());
            c.with_estimator(gumbel).with_composition(Composition::Partitioned).with_shared_codebook(true)
        }),
        with(|c| c.with_codebook(CodebookLearning::Ema(Ema::default()))),
        with(|c| c.with_shared_codebook(true)),
        with(|c| c.with_distance(Distance::Cosine)),
        with(|c| c.with_sinkhorn(Some(Sinkhorn::default().with_last_level_only(false)))),
        with(|c| c.with_commitment(2.0).with_codebook_sizes([5, 4])),
    ]
}

#[test]
fn every_variants_gradient_equals_candles() {
    for config in variants() {
        let case = case(&config, 9, ROWS, DType::F64);
        let ours = evaluate(&case.network, &case.bottleneck, &case.xs, STEP).unwrap();
        let loss = case.objective();
        let store = loss.backward().unwrap();
        assert!((ours.loss - scalar(&loss)).abs() < 1e-6, "{config:?}: {} {}", ours.loss, scalar(&loss));
        let mut moved = 0;
        for (name, var) in case.vars() {
            match (ours.gradients.get(name), store.get(var)) {
                (Some(mine), Some(grad)) => {
                    assert!(gap(mine, grad) < 1e-6, "{config:?} {name}: {}", gap(mine, grad));
                    assert!(scalar(&square(grad)) > 0.0, "{name} has no gradient");
                    moved += 1;
                }
                (None, grad) => {
                    // A running mean has none, and candle's is zero.
                    assert!(matches!(config.codebook, CodebookLearning::Ema(_)) && name.starts_with("codebooks"));
                    assert!(grad.is_none_or(|grad| scalar(&square(grad)) == 0.0), "{name}");
                }
                (mine, grad) => panic!("{config:?} {name}: {mine:?} {grad:?}"),
            }
        }
        assert_eq!(moved, ours.gradients.len());
    }
}

#[test]
fn the_gradient_equals_finite_differences() {
    let config = small().with_hidden([7]).with_latent_dim(4).with_codebook_sizes([5, 4]);
    let case = case(&config, 6, ROWS, DType::F64);
    let ours = evaluate(&case.network, &case.bottleneck, &case.xs, STEP).unwrap();
    // What stop-gradients and the estimator hold constant is frozen at the point of differentiation.
    let z0 = case.network.encoder.forward(&case.xs).unwrap();
    let frozen: Quantized = case.bottleneck.quantize(&z0, STEP).unwrap();
    let offset = (&frozen.latent - &z0).unwrap();
    let words: Vec<Tensor> = frozen.errors.iter().zip(&frozen.residuals).map(|(e, r)| (e + r).unwrap()).collect();
    let surrogate = || {
        let z = case.network.encoder.forward(&case.xs).unwrap();
        let decoded = case.network.decoder.forward(&(&z + &offset).unwrap()).unwrap();
        let mut loss = scalar(&square(&(decoded - &case.xs).unwrap()));
        let mut residual = z;
        for (level, words) in words.iter().enumerate() {
            let now = case.bottleneck.books.books()[level].index_select(&frozen.codes[level], 0).unwrap();
            residual = (residual - words).unwrap();
            loss += scalar(&square(&(&frozen.residuals[level] - now).unwrap()));
            loss += config.commitment * scalar(&square(&residual));
        }
        loss / ROWS as f64
    };
    agrees_with_differences(&case, surrogate, ours.loss, &ours.gradients);
}

#[test]
fn the_autoencoders_gradient_equals_finite_differences() {
    let config = small().with_hidden([7]).with_latent_dim(4).with_codebook_sizes([5]);
    let case = case(&config, 6, ROWS, DType::F64);
    let ours = evaluate_autoencoder::<Quantized>(&case.network, &case.xs).unwrap();
    assert_eq!(ours.gradients.len(), case.network.params.len());
    let loss = || {
        let decoded = case.network.decoder.forward(&case.network.encoder.forward(&case.xs).unwrap()).unwrap();
        scalar(&square(&(decoded - &case.xs).unwrap())) / ROWS as f64
    };
    agrees_with_differences(&case, loss, ours.loss, &ours.gradients);
}

fn agrees_with_differences(case: &Case, loss: impl Fn() -> f64, ours: f64, gradients: &Gradients) {
    assert!((loss() - ours).abs() < 1e-9);
    for (name, grad) in gradients.iter() {
        let var = case.vars().find(|(other, _)| *other == name).unwrap().1;
        let values = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let shifted = |at: usize, by: f64| {
            let mut moved = values.clone();
            moved[at] += by;
            case.set(name, &Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap());
            loss()
        };
        for (at, &grad) in grad.iter().enumerate() {
            let slope = (shifted(at, 1e-5) - shifted(at, -1e-5)) / 2e-5;
            assert!((slope - grad).abs() < 1e-6 * (1.0 + slope.abs()), "{name}[{at}]: {slope} {grad}");
        }
        shifted(0, 0.0);
    }
}

#[test]
fn the_fused_step_equals_the_composed_one() {
    // More rows than one block, and no whole number of blocks.
    let config = small().with_hidden([37, 20]).with_latent_dim(6).with_codebook_sizes([5, 4]);
    let (wide, single) = (case(&config, 11, 301, DType::F64), case(&config, 11, 301, DType::F32));
    let step = |case: &Case| evaluate(&case.network, &case.bottleneck, &case.xs, STEP).unwrap();
    let alone = |case: &Case| evaluate_autoencoder::<Quantized>(&case.network, &case.xs).unwrap();
    for (composed, fused) in [(step(&wide), step(&single)), (alone(&wide), alone(&single))] {
        assert!((composed.loss - fused.loss).abs() < 1e-5 * composed.loss);
        assert!((composed.reconstruction - fused.reconstruction).abs() < 1e-5 * composed.loss);
        assert_eq!(composed.gradients.len(), fused.gradients.len());
        for ((name, wide), (_, narrow)) in composed.gradients.iter().zip(fused.gradients.iter()) {
            let narrow = narrow.to_dtype(DType::F64).unwrap();
            let gap = scalar(&square(&(wide - narrow).unwrap())).sqrt();
            let norm = scalar(&square(wide)).sqrt();
            assert!(gap < 1e-5 * norm, "{name}: {gap} of {norm}");
        }
    }
}

#[test]
fn letters_terms_have_candles_gradients() {
    let config = small().with_hidden([7]).with_latent_dim(4).with_codebook_sizes([6, 5]);
    let config = config.with_diversity(Some(Diversity::default().with_weight(0.7).with_clusters(2)));
    let case = case(&config, 6, ROWS, DType::F64);
    let behaviour =
        ndarray::Array2::from_shape_fn(
            (20, 4),
            |(i, j)| {
                if i == 4 { 0.0 } else { rng().normal_at((i * 4 + j) as u64) }
            },
        );
    let alignment = Alignment::default().with_weight(0.3);
    let batch: Vec<usize> = (2..15).collect();
    let read =
        |rows: (usize, usize)| Behaviour::read(&mut ArrayRows::from(behaviour.view()), rows, alignment, &Device::Cpu);
    let known = read((20, 4)).unwrap();
    assert!(matches!(read((19, 4)), Err(QuantizeError::BehaviourRows { rows: 19, behaviour: 20 })));
    assert!(matches!(read((20, 5)), Err(QuantizeError::BehaviourColumns { latent_dim: 5, behaviour: 4 })));

    // Alignment by hand, over the rows that have behaviour.
    let latent = Var::from_tensor(&normal("latent", &[ROWS, 4], 1.0, DType::F64)).unwrap();
    let term = known.align(&latent, &batch).unwrap();
    let with = |row: &&usize| **row != 4;
    let h: Vec<f64> = batch.iter().filter(with).flat_map(|&row| behaviour.row(row).mapv(f64::from).to_vec()).collect();
    let h = Tensor::from_vec(h, (12, 4), &Device::Cpu).unwrap();
    let places: Vec<u32> = (0..13).filter(|&place| batch[place as usize] != 4).collect();
    let rows = latent.index_select(&Tensor::new(places, &Device::Cpu).unwrap(), 0).unwrap();
    let logits = rows.matmul(&h.t().unwrap()).unwrap();
    let own = (&rows * &h).unwrap().sum(1).unwrap();
    let loss = (logits.exp().unwrap().sum(1).unwrap().log().unwrap() - own).unwrap();
    let loss = (loss.mean_all().unwrap() * 0.3).unwrap();
    assert!((term.loss - scalar(&loss)).abs() < 1e-9);
    assert!(gap(&term.grad, loss.backward().unwrap().get(&latent).unwrap()) < 1e-9);

    // Diversity by finite differences: the positives do not depend on the values.
    let mut spread = Spread::new(config.diversity.unwrap(), rng());
    spread.regroup(&case.bottleneck.books.books(), 1).unwrap();
    let codes = Tensor::new(vec![0u32, 3, 3, 5, 1], &Device::Cpu).unwrap();
    let book = case.bottleneck.books.books()[0].copy().unwrap();
    let term = |book: &Tensor| spread.term(book, 0, &codes, 9).unwrap();
    let grad = term(&book).grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let values = book.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(grad.iter().any(|g| g.abs() > 1e-3));
    for at in 0..values.len() {
        let shifted = |by: f64| {
            let mut values = values.clone();
            values[at] += by;
            term(&Tensor::from_vec(values, book.shape(), &Device::Cpu).unwrap()).loss
        };
        let slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
        assert!((slope - grad[at]).abs() < 1e-7, "{at}: {slope} {}", grad[at]);
    }

    // And both as parts of the whole.
    let plain = evaluate(&case.network, &case.bottleneck, &case.xs, STEP).unwrap();
    let Case { network, mut bottleneck, xs, .. } = case;
    bottleneck.begin_epoch(1).unwrap();
    let bottleneck = bottleneck.aligned(known);
    let whole = evaluate(&network, &bottleneck, &xs, Step { rows: &batch, ..STEP }).unwrap();
    assert!(whole.loss > plain.loss && whole.reconstruction == plain.reconstruction);
    for name in ["encoder.0.weight", "codebooks.0", "codebooks.1"] {
        assert!(gap(whole.gradients.get(name).unwrap(), plain.gradients.get(name).unwrap()) > 1e-4, "{name}");
    }
    let decoder = "decoder.0.weight";
    assert!(gap(whole.gradients.get(decoder).unwrap(), plain.gradients.get(decoder).unwrap()) < 1e-12);
}

#[test]
fn a_mixtures_gradient_equals_candles() {
    let var = |name: &str, shape: &[usize]| Var::from_tensor(&normal(name, shape, 0.7, DType::F64)).unwrap();
    let (rows, book, grad) = (var("rows", &[6, 4]), var("book", &[5, 4]), normal("grad", &[6, 4], 1.0, DType::F64));
    let mixture = Mixture::new(&distances(&rows, &book), &book, 0.7, &rng()).unwrap();
    let (grad_rows, grad_book) = mixture.backward(&rows, &book, &grad).unwrap();
    let store = (&mixture.word * &grad).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gap(&grad_rows, store.get(&rows).unwrap()) < 1e-9);
    assert!(gap(&grad_book, store.get(&book).unwrap()) < 1e-9);
}

#[test]
fn a_rotation_keeps_the_angle_to_the_gradient_and_zero_vectors_do_no_harm() {
    let (e, q) = (normal("e", &[9, 5], 1.0, DType::F64), normal("q", &[9, 5], 1.0, DType::F64));
    let cosine = |a: &Tensor, b: &Tensor| {
        let length = |t: &Tensor| t.sqr().unwrap().sum(1).unwrap().sqrt().unwrap();
        (((a * b).unwrap().sum(1).unwrap() / length(a)).unwrap() / length(b)).unwrap()
    };
    let g = normal("g", &[9, 5], 1.0, DType::F64);
    assert!(gap(&cosine(&rotate_back(&e, &q, &g).unwrap(), &e), &cosine(&g, &q)) < 1e-9);
    for (e, q) in
        [(e.zeros_like().unwrap(), q.clone()), (e.clone(), e.zeros_like().unwrap()), (e.clone(), e.neg().unwrap())]
    {
        let back = rotate_back(&e, &q, &g).unwrap();
        assert!(scalar(&square(&back)).is_finite());
    }
}

#[test]
fn the_map_of_sim_vq_gets_the_gradient_of_its_codewords() {
    let config = small().with_codebook(CodebookLearning::SimVq).with_restart_after(None).with_codebook_sizes([5, 4]);
    let case = case(&config, 9, ROWS, DType::F64);
    let books = &case.bottleneck.books;
    let before: Vec<Tensor> = books.books().into_iter().map(|book| book.copy().unwrap()).collect();
    let found = case.bottleneck.quantize(&case.network.encoder.forward(&case.xs).unwrap(), STEP).unwrap();
    let grads: Vec<Tensor> = before.iter().map(|book| normal("grad", book.dims(), 1.0, DType::F64)).collect();
    let mut gradients = Gradients::default();
    grads.iter().zip(0..).for_each(|(grad, level)| gradients.insert(books.name(level), grad.clone()));
    // Adagrad without an initial sum moves each weight by the rate, against the sign of its gradient.
    let adagrad = genrec_kernels::optim::AdagradConfig::default();
    let optimizer = genrec_kernels::optim::OptimizerConfig::Adagrad(adagrad);
    let mut learner = Learner::new(config.codebook, &optimizer, books).unwrap();
    learner.step(books, &gradients, &found, 1e-3).unwrap();
    for (level, (points, grad)) in before.iter().zip(&grads).enumerate() {
        let map = Var::from_tensor(&Tensor::eye(points.dim(1).unwrap(), DType::F64, &Device::Cpu).unwrap()).unwrap();
        let words = points.matmul(&map.t().unwrap()).unwrap();
        let store = (words * grad).unwrap().sum_all().unwrap().backward().unwrap();
        let sign = store.get(&map).unwrap().sign().unwrap();
        let moved = (map.as_tensor() - (sign * 1e-3).unwrap()).unwrap();
        let expected = points.matmul(&moved.t().unwrap()).unwrap();
        assert!(gap(books.books()[level], &expected) < 1e-6);
    }
    let _: &Parameters = &books.params;
}
