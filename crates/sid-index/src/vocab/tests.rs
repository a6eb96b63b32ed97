use proptest::prelude::*;

use super::*;

fn vocab() -> SidVocab {
    SidVocab::new(&SidLayout::new(vec![4, 300, 2]).unwrap().with_suffix(3), 10).unwrap()
}

/// Computed with an independent implementation of FNV-1a; trained models depend on them.
#[test]
fn user_hash_never_changes() {
    let vocab = SidVocab::new(&SidLayout::new(vec![256; 3]).unwrap(), SidVocab::PAPER_USER_TOKENS).unwrap();
    assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"A1YJEY40YUW4SE"), 0x789b_27a9_a4ff_7ed7);
    for (key, token) in [("", 1063), ("A1YJEY40YUW4SE", 2889), ("42", 1717), ("ユーザー", 2576)] {
        assert_eq!(vocab.user(key), Some(token), "{key}");
    }
}

#[test]
fn every_token_has_one_meaning() {
    let vocab = vocab();
    assert_eq!(vocab.size(), 2 + 4 + 300 + 2 + 3 + 10);
    let mut next = 2;
    for (position, &size) in vocab.layout().sizes().iter().enumerate() {
        assert_eq!(vocab.position_range(position), next..next + size);
        for code in 0..size {
            assert_eq!(vocab.token(position, code), Some(next + code));
            assert_eq!(vocab.code(next + code), Some((position, code)));
        }
        assert_eq!(vocab.token(position, size), None);
        next += size;
    }
    assert_eq!(vocab.user_range(), next..next + 10);
    assert_eq!(vocab.position_range(4), 0..0);
    assert_eq!(vocab.position_range(usize::MAX), 0..0);
    assert_eq!(vocab.token(4, 0), None);
    for other in [SidVocab::PAD, SidVocab::EOS, next, next + 9, u32::MAX] {
        assert_eq!(vocab.code(other), None);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let vocab = vocab();
    let mut tokens = vec![7];
    assert!(matches!(vocab.encode_sid(&[0, 0, 0], &mut tokens), Err(IndexError::Positions { expected: 4, got: 3 })));
    assert!(matches!(
        vocab.encode_sid(&[0, 300, 0, 0], &mut tokens),
        Err(IndexError::NoSuchCode { position: 1, code: 300, size: 300 })
    ));
    assert_eq!(tokens, [7]);
    assert_eq!(vocab.decode_tokens(&[2, 6, 306]), None);
    assert_eq!(vocab.decode_tokens(&[6, 2, 306, 308]), None);
    let layout = SidLayout::new(vec![4]).unwrap();
    let none = SidVocab::new(&layout, 0).unwrap();
    assert!(none.user("42").is_none() && none.user_range().is_empty());
    assert!(matches!(SidVocab::new(&layout, u32::MAX), Err(IndexError::LayoutTooLarge { .. })));
    assert!(matches!(SidVocab::new(&layout.with_suffix(0), 1), Err(IndexError::EmptyPosition { position: 1 })));
}

#[test]
fn json_round_trip_and_refusals() {
    let json = serde_json::to_string(&vocab()).unwrap();
    assert_eq!(json, r#"{"layout":{"codebook_sizes":[4,300,2],"suffix_size":3},"user_tokens":10}"#);
    assert_eq!(serde_json::from_str::<SidVocab>(&json).unwrap(), vocab());
    let without_users = SidVocab::new(vocab().layout(), 0).unwrap();
    assert_eq!(serde_json::from_str::<SidVocab>(&json.replace(":10", ":0")).unwrap(), without_users);
    assert!(serde_json::from_str::<SidVocab>(&json.replace(":10", ":4294967295")).is_err());
}

proptest! {
    #[test]
    fn encoding_and_decoding_are_inverse(sid in (0u32..4, 0u32..300, 0u32..2, 0u32..3)) {
        let vocab = vocab();
        let sid = [sid.0, sid.1, sid.2, sid.3];
        let mut tokens = Vec::new();
        vocab.encode_sid(&sid, &mut tokens).unwrap();
        let decoded = vocab.decode_tokens(&tokens);
        prop_assert_eq!(decoded.as_deref(), Some(&sid[..]));
    }

    #[test]
    fn users_land_on_user_tokens(key in ".*") {
        let vocab = vocab();
        prop_assert!(vocab.user(&key).is_some_and(|token| vocab.user_range().contains(&token)));
    }
}
