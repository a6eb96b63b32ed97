#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use genrec::data::ItemId;

use super::*;

#[test]
fn the_last_step_of_a_user_is_the_one_that_is_tested() {
    let mut sequences = Sequences::new();
    sequences.push("ada", &[3, 1, 4, 2].map(ItemId)).unwrap();
    sequences.push("bob", &[3, 1].map(ItemId)).unwrap();
    assert_eq!(last_steps(&sequences), [[4, 2]]);
}

#[test]
fn held_out_items_do_not_leak() {
    let build = |held_out: [u32; 2]| {
        let mut sequences = Sequences::new();
        for user in 0..20_u32 {
            let first = 2 * (user % 4);
            let items = [first, first + 1, first, held_out[0], held_out[1]].map(ItemId);
            sequences.push(&user.to_string(), &items).unwrap();
        }
        let training = LeaveOneOut::new(&sequences).train_rows();
        behaviour::embed(training, 10, &BehaviourConfig::mutual_information().with_dims(3)).unwrap()
    };
    let rows = build([8, 9]);
    assert_eq!(rows, build([2, 7]), "other targets, same embeddings");
    assert!(rows.row(8).iter().chain(rows.row(9)).all(|&value| value == 0.0));
    assert!(rows.row(0).iter().any(|&value| value != 0.0));
}
