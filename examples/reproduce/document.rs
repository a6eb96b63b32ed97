//! Tables in their place in a document: between two marks, and nowhere else.

use std::path::Path;

use support::{BoxError, write_file};

/// The document with a section replaced, or with it added at the end where there is none yet.
///
/// A section stands between the lines `<!-- reproduce NAME -->` and `<!-- end of NAME -->`.
///
/// # Errors
/// When a section begins and does not end.
fn with_section(document: &str, name: &str, section: &str) -> Result<String, BoxError> {
    let (begin, end) = (format!("<!-- reproduce {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let new = format!("{begin}\n{}\n\n{end}", section.trim());
    let Some((before, rest)) = document.split_once(&begin) else {
        return Ok(format!("{}\n\n{new}", document.trim_end()));
    };
    let (_, after) =
        rest.split_once(&end).ok_or_else(|| format!("the section `{name}` does not end: `{}`", end.trim()))?;
    Ok(format!("{before}{new}{after}"))
}

/// Replaces a section of a file, or adds it.
///
/// # Errors
/// When the file cannot be read or written, or a section in it does not end.
pub(crate) fn write_section(path: &Path, name: &str, section: &str) -> Result<(), BoxError> {
    let document =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    write_file(path, with_section(&document, name, section)?.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_section_is_added_once_and_then_replaced() {
        let first = with_section("# Results\n", "table1", "old\n").unwrap();
        let both = with_section(&first, "table2", "other").unwrap();
        let new = with_section(&both, "table1", "new").unwrap();
        assert_eq!(
            new,
            "# Results\n\n<!-- reproduce table1 -->\n\nnew\n\n<!-- end of table1 -->\n\n\
             <!-- reproduce table2 -->\n\nother\n\n<!-- end of table2 -->\n"
        );
        assert_eq!(with_section(&new, "table1", "new").unwrap(), new);
    }

    #[test]
    fn a_section_that_does_not_end_is_left_alone() {
        let error = with_section("<!-- reproduce table1 -->\ntext", "table1", "new").unwrap_err();
        assert!(error.to_string().contains("table1"), "{error}");
    }
}
