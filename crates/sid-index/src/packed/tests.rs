use proptest::prelude::*;

use super::{select::select_in_word, *};

fn bits(plain: &[bool]) -> BitsBuilder {
    let mut builder = BitsBuilder::default();
    plain.iter().for_each(|&bit| builder.push(bit));
    builder
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn counting_and_finding_agree_with_a_scan(
        runs in prop::collection::vec((0u8..3, 1usize..900), 0..12),
        far in prop::sample::select(vec![0usize, 0, 0, 9_000]),
        odd in 1u64..9,
    ) {
        let mut plain: Vec<bool> = Vec::new();
        for (kind, length) in runs {
            let sparse = |i: u64| i % 97 == odd;
            plain.extend((0..length as u64).map(|i| match kind { 0 => i % (odd + 1) != 0, 1 => sparse(i), _ => true }));
            plain.resize(plain.len() + far, false);
        }
        let (counted, found) = (RankBits::from(bits(&plain)), SelectBits::from(bits(&plain)));
        let len = plain.len() as u64;
        let ones: Vec<u64> = (0..).zip(&plain).filter(|(_, one)| **one).map(|(place, _)| place).collect();
        let mut before = 0;
        for (place, &one) in (0..).zip(&plain) {
            prop_assert_eq!((counted.rank(place), counted.get(place)), (before, one));
            prop_assert_eq!(found.next_one(place), ones.get(before as usize).copied().unwrap_or(len));
            before += u32::from(one);
        }
        prop_assert_eq!((counted.rank(u64::MAX), counted.get(len)), (before, false));
        for (number, &place) in (0..).zip(&ones) {
            prop_assert_eq!(found.select(number), place);
        }
        prop_assert_eq!(found.select(before), len);
        let (start, end) = (len / 3, len * 2 / 3);
        let expected: Vec<u64> = ones.iter().copied().filter(|place| (start..end).contains(place)).collect();
        prop_assert_eq!(&counted.ones(start, end).collect::<Vec<_>>(), &expected);
        let folded = counted.ones(start, end).fold(Vec::new(), |mut all, place| { all.push(place); all });
        prop_assert_eq!(folded, expected);
        prop_assert_eq!(counted.words().map(|words| words.len() as u64), RankBits::words_for(len));
        prop_assert_eq!(found.words().map(|words| words.len() as u64), SelectBits::words_for(len, before));
    }

    #[test]
    fn the_ones_of_a_word_are_found(word: u64) {
        let places = (0..64).filter(|place| word >> place & 1 == 1);
        for (number, place) in (0..).zip(places) {
            prop_assert_eq!(select_in_word(word, number), place);
        }
    }

    /// Whatever a damaged file holds, the answers stay within bounds.
    #[test]
    fn lies_about_counts_are_survived(
        words in prop::collection::vec(any::<u64>(), 20),
        counts in prop::collection::vec(any::<u64>(), 5),
        samples in prop::collection::vec(any::<u64>(), 9),
        ones in 0u32..1100,
        at in any::<u32>(),
    ) {
        let counted = RankBits::from_words(1250, ones, [words.clone().into(), counts.clone().into()]);
        prop_assert!(counted.rank(u64::from(at)) <= ones && counted.rank(u64::from(at % 1250)) <= ones);
        for samples in [samples, vec![u64::MAX; 9], vec![0; 9]] {
            let found = SelectBits::from_words(1250, ones, [words.clone().into(), counts.clone().into(), samples.into()]);
            prop_assert!(found.select(at) <= 1250 && found.select(at % 1100) <= 1250);
            prop_assert!(found.next_one(u64::from(at % 1300)) <= 1250);
        }
    }
}

#[test]
fn integers_of_every_width_come_back() {
    for width in 0..=32 {
        let mask = ((1_u64 << width) - 1) as u32;
        let mut builder = IntsBuilder::new(width, 0);
        let value = |i: u32| i.wrapping_mul(2_654_435_761) & mask;
        (0..300).for_each(|i| builder.push(value(i)));
        let ints = builder.finish();
        assert!((0..300).all(|i| ints.get(i as usize) == value(i)), "{width} bits");
        assert_eq!((ints.get(301), ints.words().len() as u64), (0, Ints::words_for(300, width)));
    }
}
