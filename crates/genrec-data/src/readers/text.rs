//! Cleaning of texts.

use serde_json::Value;

/// Resolves HTML entities, twice because shops escape twice now and then (`Kirk&amp;#39;s`), joins runs of white space, and makes the empty text unknown.
pub(crate) fn clean(text: &str) -> Option<String> {
    let once = htmlize::unescape(text);
    let unescaped = htmlize::unescape(&*once);
    let mut clean = String::with_capacity(unescaped.len());
    for word in unescaped.split_whitespace() {
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
    }
    (!clean.is_empty()).then_some(clean)
}

/// [`clean`] for category paths: levels without a text are left out, then paths without a level.
pub(crate) fn clean_paths(paths: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let clean_path = |path: Vec<String>| path.iter().filter_map(|level| clean(level)).collect::<Vec<_>>();
    paths.into_iter().map(clean_path).filter(|path| !path.is_empty()).collect()
}

/// A list of strings, numbers and truth values as one path, a list of such lists as several; nulls are left out. `None` for
/// any other list.
pub(crate) fn json_paths(values: &[Value]) -> Option<Vec<Vec<String>>> {
    let given = |values: &[Value]| values.iter().filter(|value| !value.is_null()).cloned().collect::<Vec<_>>();
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let texts = |values: &[Value]| given(values).into_iter().map(text).collect::<Option<Vec<_>>>();
    if values.iter().any(Value::is_array) {
        given(values).iter().map(|path| texts(path.as_array()?)).collect()
    } else {
        Some(vec![texts(values)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_and_space() {
        assert_eq!(clean("Kirk&amp;#39;s").as_deref(), Some("Kirk's"));
        assert_eq!(clean("&amp;amp;amp;").as_deref(), Some("&amp;"));
        assert_eq!(clean("A &amp; B &quot;x&quot;  &#39;y&#39;\t&reg;").as_deref(), Some("A & B \"x\" 'y' \u{ae}"));
        // Numbers of Windows-1252, as HTML has it.
        assert_eq!(clean("&#153; &amp;amp; &nosuch; &").as_deref(), Some("\u{2122} & &nosuch; &"));
        assert_eq!(clean(" &nbsp; "), None);
        assert_eq!(clean_paths(vec![vec!["a &amp; b".into(), " ".into()], vec![String::new()]]), [["a & b"]]);
    }
}
