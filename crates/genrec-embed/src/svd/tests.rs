use super::*;

fn matrix(rows: usize, columns: usize, seed: u64) -> (Csr, Array2<f64>) {
    let noise = gaussian(rows, columns, seed);
    let mut dense = Array2::zeros((rows, columns));
    let mut sparse = vec![Vec::new(); rows];
    for ((row, column), value) in noise.indexed_iter() {
        if *value > 0.8 {
            // Columns fade, as the spectrum of texts does.
            let value = (*value * 0.93_f64.powi(i32::try_from(column).unwrap())) as f32;
            sparse[row].push((u32::try_from(column).unwrap(), value));
            dense[(row, column)] = f64::from(value);
        }
    }
    (Csr::from_rows(&sparse, columns), dense)
}

fn subspace(dim: usize) -> Subspace {
    Subspace { dim, oversample: 16, power_iterations: 6, seed: 0 }
}

#[test]
fn eigenvectors_diagonalise() {
    let root = gaussian(9, 9, 3);
    let symmetric = root.t().dot(&root);
    let (values, vectors) = symmetric_eigen(symmetric.clone());
    assert!(values.is_sorted_by(|a, b| a >= b));
    let back = vectors.dot(&Array2::from_diag(&ndarray::Array1::from(values))).dot(&vectors.t());
    assert!((back - symmetric).iter().all(|error| error.abs() < 1e-10));
}

#[test]
fn leading_vectors_match_the_exact_decomposition() {
    let (sparse, dense) = matrix(120, 90, 1);
    let (values, exact) = symmetric_eigen(dense.t().dot(&dense));
    let Singular { values: singular, vectors: found } = right_singular(&sparse, subspace(6));
    assert_eq!((found.dim(), singular.len()), ((90, 6), 6));
    for (k, value) in values.iter().enumerate().take(6) {
        let column = found.column(k).mapv(f64::from);
        let image = dense.dot(&column);
        assert!((image.dot(&image) / value - 1.0).abs() < 1e-4, "singular value {k}");
        assert!((singular[k] / value.sqrt() - 1.0).abs() < 1e-4, "singular value {k}");
        assert!(column.dot(&exact.column(k)).abs() > 0.999, "direction {k}");
        let extreme = column.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
        assert!(extreme > 0.0);
    }
    let gram = found.t().dot(&found);
    assert!((gram - Array2::<f32>::eye(6)).iter().all(|error| error.abs() < 1e-5));
}

#[test]
fn a_deficient_rank_narrows_the_result() {
    let row = vec![(0, 0.6), (3, 0.8)];
    let other = vec![(1, 1.0)];
    let sparse = Csr::from_rows(&[row.clone(), other.clone(), row.clone(), row, other], 5);
    let found = right_singular(&sparse, subspace(4)).vectors;
    assert_eq!(found.dim(), (5, 2));
    assert!(
        (found[(0, 0)] - 0.6).abs() < 1e-6 && (found[(3, 0)] - 0.8).abs() < 1e-6 && (found[(1, 1)] - 1.0).abs() < 1e-6
    );
}

#[test]
fn an_orthonormal_basis_drops_dependent_columns() {
    let mut y = gaussian(50, 4, 9);
    let sum = &y.column(0) + &y.column(1);
    y.column_mut(3).assign(&sum);
    let basis = orthonormal(&y);
    let gram = basis.t().dot(&basis);
    for ((i, j), value) in gram.indexed_iter() {
        let expected = if i == j && i < 3 { 1.0 } else { 0.0 };
        assert!((value - expected).abs() < 1e-12, "({i}, {j}): {value}");
    }
}
