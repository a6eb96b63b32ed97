use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::*;

fn each<T: Send>(ranks: usize, work: impl Fn(&Threads) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            Threads::new(ranks).unwrap().into_iter().map(|rank| scope.spawn(move || work(&rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|i| ((rank * 31 + i * 7) % 13) as f32 * 0.37 - 1.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn threads_sum_in_the_order_of_the_ranks(ranks in 1_usize..7, length in 0_usize..50) {
        let expected: Vec<f32> =
            (0..length).map(|i| (0..ranks).fold(0.0, |sum, rank| sum + values(rank, length)[i])).collect();
        let sums = each(ranks, |rank| {
            let own = Tensor::from_vec(values(rank.rank(), length), length, &Device::Cpu).unwrap();
            // Twice, so that the first meeting must have been left behind.
            rank.all_reduce(&own).unwrap();
            rank.barrier().unwrap();
            rank.all_reduce(&own).unwrap().to_vec1::<f32>().unwrap()
        });
        prop_assert!(sums.iter().all(|sum| *sum == expected));
    }
}

#[test]
fn all_get_the_bytes_of_rank_0() {
    let got = each(4, |rank| rank.broadcast(vec![rank.rank() as u8; 3 + rank.rank()]).unwrap());
    assert!(got.iter().all(|bytes| *bytes == [0, 0, 0]));
}

#[test]
fn ranks_that_do_different_things_are_told() {
    let errors = each(2, |rank| {
        let own = Tensor::zeros(3 + rank.rank(), candle_core::DType::F32, &Device::Cpu).unwrap();
        rank.all_reduce(&own).unwrap_err().to_string()
    });
    assert!(
        errors.iter().all(|error| error.contains("rank 1 brings 4 values where rank 0 brings 3 values")),
        "{errors:?}"
    );
    let errors = each(2, |rank| match rank.rank() {
        0 => rank.barrier().unwrap_err().to_string(),
        _ => rank.broadcast(Vec::new()).unwrap_err().to_string(),
    });
    assert!(errors.iter().all(|error| error.contains("rank 1 brings bytes")), "{errors:?}");
}

#[test]
fn there_is_at_least_one_rank() {
    assert!(matches!(Threads::new(0), Err(CollectiveError::Ranks { ranks: 0, .. })));
    assert!(matches!(Threads::new(usize::MAX), Err(CollectiveError::Ranks { .. })));
}

#[test]
fn one_rank_alone_keeps_what_it_has() {
    let own = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
    assert_eq!(Alone.all_reduce(&own).unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    assert_eq!(Alone.broadcast(vec![7]).unwrap(), [7]);
    assert_eq!((Alone.rank(), Alone.ranks()), (0, 1));
    Alone.barrier().unwrap();
}

#[test]
fn what_is_no_gpu_joins_no_group_of_gpus() {
    let errors = each(2, |rank| Nccl::new(&Device::Cpu, rank).unwrap_err());
    for (number, error) in errors.iter().enumerate() {
        let CollectiveError::Gpu { rank, source: GroupError::NotCuda { device } } = error else { panic!("{error:?}") };
        assert_eq!((*rank, device.as_str()), (number, "Cpu"));
    }
}
