//! Names that come from outside and become paths or addresses.

use super::HubError;

/// Whether a file's name within a repository stays below the directory that it is joined to, on any system.
pub(super) fn is_safe(name: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, '\\' | ':');
    // Nothing but dots, or nothing at all, stands for a directory.
    let plain = |part: &str| part.chars().any(|c| c != '.') && !part.contains(odd);
    name.len() <= 1024 && name.split('/').all(plain)
}

/// Refuses what is no id of a model, such as `owner/name`.
pub(super) fn check_model(model: &str) -> Result<(), HubError> {
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        part.chars().all(known) && part.chars().any(|c| c != '.')
    };
    if model.split('/').count() <= 2 && model.split('/').all(plain) {
        return Ok(());
    }
    let expected = "a model's id, `owner/name`, of letters, digits, `.`, `-` and `_`";
    Err(HubError::Setting { what: "model", value: model.to_owned(), expected })
}

/// Refuses what is no branch, tag or commit.
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    if is_safe(revision) && !revision.contains([' ', '~', '^', '[', '?', '*']) {
        return Ok(());
    }
    let expected = "a branch, a tag or a commit";
    Err(HubError::Setting { what: "revision", value: revision.to_owned(), expected })
}

/// Whether text is a hash of that many hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name as a part of an address. Slashes are kept where they divide a path.
pub(super) fn encode(name: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        if plain || (byte == b'/' && keep_slashes) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_found() {
        for name in ["run.json", "index/index.json", "a b/c#d.json", ".gitattributes", "..a/b..", "ü", "what?"] {
            assert!(is_safe(name), "{name}");
        }
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "C:\\x",
            "C:/x",
            "a\\..\\b",
            "a\0b",
            "...",
        ] {
            assert!(!is_safe(name), "{name:?}");
        }
    }

    #[test]
    fn ids_and_revisions_are_checked() {
        for model in ["gpt2", "owner/a-model_1.0"] {
            assert!(check_model(model).is_ok(), "{model}");
        }
        for model in ["", "a/b/c", "/b", "a/", "../b", "a/..", "a b", "a?b", "https://x"] {
            assert!(matches!(check_model(model), Err(HubError::Setting { what: "model", .. })), "{model:?}");
        }
        for revision in ["main", "v1.0", "refs/pr/1"] {
            assert!(check_revision(revision).is_ok(), "{revision}");
        }
        for revision in ["", "../../main", "/main", "a b", "a:b", "a^"] {
            assert!(
                matches!(check_revision(revision), Err(HubError::Setting { what: "revision", .. })),
                "{revision:?}"
            );
        }
    }

    #[test]
    fn addresses_hold_no_special_character() {
        assert_eq!(encode("a b/c#d?é.json", true), "a%20b/c%23d%3F%C3%A9.json");
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert!(is_hex("0aF1", 4) && !is_hex("0aF1", 5) && !is_hex("0aG1", 4));
    }
}
