//! Figures of the paper (arXiv 2305.05065).

use crate::plan::Set;

/// Recall@5, NDCG@5, Recall@10, NDCG@10.
pub(crate) type Figures = [f64; 4];

/// One of three rows.
fn of(set: Set, sports: Figures, beauty: Figures, toys: Figures) -> Option<Figures> {
    Some(match set {
        Set::Sports => sports,
        Set::Beauty => beauty,
        Set::Toys => toys,
    })
}

fn on_beauty(set: Set, figures: Figures) -> Option<Figures> {
    (set == Set::Beauty).then_some(figures)
}

/// Table 1.
pub(crate) fn tiger(set: Set) -> Option<Figures> {
    of(set, [0.0264, 0.0181, 0.0400, 0.0225], [0.0454, 0.0321, 0.0648, 0.0384], [0.0521, 0.0371, 0.0712, 0.0432])
}

/// Table 1, where it was trained with binary cross-entropy.
pub(crate) fn sasrec(set: Set) -> Option<Figures> {
    of(set, [0.0233, 0.0154, 0.0350, 0.0192], [0.0387, 0.0249, 0.0605, 0.0318], [0.0463, 0.0306, 0.0675, 0.0374])
}

/// Table 2.
pub(crate) fn random_ids(set: Set) -> Option<Figures> {
    of(set, [0.007, 0.005, 0.0116, 0.0063], [0.0296, 0.0205, 0.0434, 0.0250], [0.0362, 0.0270, 0.0448, 0.0298])
}

/// Table 2.
pub(crate) fn lsh_ids(set: Set) -> Option<Figures> {
    of(set, [0.0215, 0.0146, 0.0321, 0.0180], [0.0379, 0.0259, 0.0533, 0.0309], [0.0412, 0.0299, 0.0566, 0.0349])
}

/// Table 5.
pub(crate) fn three_layers(set: Set) -> Option<Figures> {
    on_beauty(set, [0.04499, 0.03062, 0.06699, 0.03768])
}

/// Table 5.
pub(crate) fn five_layers(set: Set) -> Option<Figures> {
    on_beauty(set, [0.04633, 0.03206, 0.06596, 0.03834])
}

/// Table 8, which has no NDCG@10.
pub(crate) fn no_user(set: Set) -> Option<Figures> {
    on_beauty(set, [0.04458, 0.0302, 0.06479, f64::NAN])
}

/// Table 9: means of three seeds.
pub(crate) fn three_seeds(set: Set) -> Option<Figures> {
    of(set, [0.0278, 0.0189, 0.0419, 0.0234], [0.0441, 0.0309, 0.0642, 0.0374], [0.0518, 0.0375, 0.0698, 0.0433])
}

/// Table 10.
pub(crate) fn joint(set: Set) -> Option<Figures> {
    on_beauty(set, [0.04355, 0.03047, 0.06314, 0.03676])
}

/// Table 3: entropy in bits at 10, 20 and 50, by temperature.
pub(crate) const ENTROPY: [(&str, [f64; 3]); 3] =
    [("1", [0.76, 1.14, 1.70]), ("1.5", [1.14, 1.52, 2.06]), ("2", [1.38, 1.76, 2.28])];
