use proptest::prelude::*;
use serde_json::json;

use super::*;

fn column(text: &str) -> usize {
    match parse(text) {
        Err(Fault::Line { column, .. }) => column,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn literals() {
    for (text, value) in [
        (
            "{'a': 1, \"b\": [True, False, None], 'c': ('x',), 'd': (), 'e': (7)}",
            json!({"a": 1, "b": [true, false, null], "c": ["x"], "d": [], "e": 7}),
        ),
        ("{}", json!({})),
        ("[1, -2, +3, 1.5, -.5, 1e3, 2E-1, 12L,]", json!([1, -2, 3, 1.5, -0.5, 1000.0, 0.2, 12])),
        (r#"'it\'s "x"'"#, json!("it's \"x\"")),
        (r#""it's""#, json!("it's")),
        (r"'\n\t\r\a\b\f\v\\'", json!("\n\t\r\u{7}\u{8}\u{c}\u{b}\\")),
        (r"'caf\xe9 \u00e9 \U0001f600 \101\0'", json!("caf\u{e9} \u{e9} \u{1f600} A\0")),
        (r"'\ud83d\ude00 \ud83d!'", json!("\u{1f600} \u{fffd}!")),
        (r"'\d \/'", json!("\\d \\/")),
        (r"u'x' 'y' r'\n\''", json!("xy")),
        ("'déjà'", json!("déjà")),
    ] {
        // The last-but-one case joins only what Python 2 and 3 both join: prefixless neighbours.
        if text.starts_with("u'x'") {
            assert_eq!(column(text), 10, "{text}");
            assert_eq!(parse("u'x' 'y'").unwrap(), value);
            continue;
        }
        assert_eq!(parse(text).unwrap(), value, "{text}");
    }
    assert_eq!(parse(r"r'\n\''").unwrap(), json!(r"\n\'"));
}

#[test]
fn faults_are_placed() {
    for (text, at) in [
        ("", 1),
        ("{'a' 1}", 6),
        ("{'a': 1 'b'}", 9),
        ("{1: 2}", 2),
        ("['a'", 5),
        ("(1; 2)", 3),
        ("'abc", 5),
        (r"'ab\xg1'", 4),
        (r"'\ud8'", 2),
        (r"'\U00110000'", 2),
        (r"'\N{DASH}'", 2),
        (r"'\", 2),
        ("nope", 1),
        ("1e999", 1),
        ("-", 1),
        ("{} x", 4),
        ("{'a': {1}}", 8),
        ("u", 2),
    ] {
        assert_eq!(column(text), at, "{text}");
    }
    assert_eq!(column(&"[".repeat(1000)), 66);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn anything_parses_or_fails(text in r#"[\[\](){}'":,\\xuUN0-9a-fTrueNo \.é-]{0,40}"#) {
        let _ = parse(&text);
    }

    /// JSON without its three words is Python.
    #[test]
    fn json_strings_are_python(text in ".{0,30}", number in any::<i64>()) {
        let value = json!({"k": [text, number]});
        prop_assert_eq!(parse(&value.to_string()).unwrap(), value);
    }
}
