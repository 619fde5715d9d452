//! `finwait glossary`: the words of the output, explained.

use std::fmt::Write as _;

use crate::view::{self, GlossaryEntry};

/// A word that is not in the glossary.
#[derive(Debug, thiserror::Error)]
#[error("the glossary has no word {word:?}{}", suggestion.as_ref().map(|word| format!("; did you mean {word:?}?")).unwrap_or_default())]
pub struct UnknownTerm {
    word: String,
    suggestion: Option<&'static str>,
}

/// The explanations of some words, or of all if none are given. Case does not matter, nor `-` for `_`.
pub fn glossary(words: &[String]) -> Result<String, UnknownTerm> {
    let mut chosen = Vec::new();
    for word in words {
        let wanted = word.to_ascii_lowercase().replace('-', "_");
        let found: Vec<GlossaryEntry> = view::glossary().filter(|entry| entry.word == wanted).collect();
        if found.is_empty() {
            let suggestion = view::glossary()
                .map(|entry| entry.word)
                .min_by_key(|known| strsim::osa_distance(&wanted, known))
                .filter(|known| strsim::osa_distance(&wanted, known) <= known.len() / 3);
            return Err(UnknownTerm { word: word.clone(), suggestion });
        }
        chosen.extend(found);
    }
    if words.is_empty() {
        chosen.extend(view::glossary());
    }
    Ok(text(&chosen))
}

fn text(entries: &[GlossaryEntry]) -> String {
    let mut text = String::new();
    let mut group = "";
    for entry in entries {
        if entry.group != group {
            group = entry.group;
            let gap = if text.is_empty() { "" } else { "\n" };
            let _infallible = writeln!(text, "{gap}{}:", capitalized(group));
        }
        let _infallible = writeln!(text, "  {:WORD$}  {}", entry.word, entry.meaning);
    }
    text
}

/// Width of the longest word.
const WORD: usize = "rst_out_of_window".len();

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_ascii_uppercase() + rest
}
