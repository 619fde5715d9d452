//! Mistakes in a filter.

use std::fmt;
use std::ops::Range;

/// A mistake in a filter. `Display` shows the text with carets under the mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    source: String,
    span: Range<usize>,
    message: String,
    suggestion: Option<String>,
}

impl FilterError {
    /// `span` is a range of bytes of `source`, on character boundaries.
    pub(super) fn new(source: &str, span: Range<usize>, message: impl Into<String>) -> FilterError {
        FilterError { source: source.to_owned(), span, message: message.into(), suggestion: None }
    }

    /// Adds the known word nearest to the text of the mistake, if one is near.
    pub(super) fn suggest<S: AsRef<str>>(mut self, known: impl IntoIterator<Item = S>) -> FilterError {
        let found = &self.source[self.span.clone()];
        self.suggestion = nearest(found, known);
        self
    }

    /// Range of the mistake in the text, in bytes.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The expected text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The word that was probably meant, if one is near.
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
    }
}

impl std::error::Error for FilterError {}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = tail(&self.source[..self.span.start]);
        let found = head(&self.source[self.span.clone()]);
        let after = if found.cut { Piece::default() } else { head(&self.source[self.span.end..]) };
        writeln!(f, "{}", self.message)?;
        writeln!(f, "    {}{}{}", before.text, found.text, after.text)?;
        let carets = "^".repeat(found.text.chars().count().max(1));
        write!(f, "    {:indent$}{carets}", "", indent = before.text.chars().count())?;
        match &self.suggestion {
            Some(word) => write!(f, "\ndid you mean `{word}`?"),
            None => Ok(()),
        }
    }
}

/// A part of the source, short enough to show and safe for a terminal: one printable character for each
/// character.
#[derive(Default)]
struct Piece {
    text: String,
    cut: bool,
}

fn head(text: &str) -> Piece {
    let mut piece: String = text.chars().take(CONTEXT).map(printable).collect();
    let cut = text.chars().nth(CONTEXT).is_some();
    if cut {
        piece.push_str("...");
    }
    Piece { text: piece, cut }
}

fn tail(text: &str) -> Piece {
    let mut piece: Vec<char> = text.chars().rev().take(CONTEXT).map(printable).collect();
    let cut = text.chars().rev().nth(CONTEXT).is_some();
    if cut {
        piece.extend(['.'; 3]);
    }
    Piece { text: piece.into_iter().rev().collect(), cut }
}

fn printable(c: char) -> char {
    if c.is_whitespace() {
        ' '
    } else if c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// Characters of a long filter that are shown on each side of a mistake.
const CONTEXT: usize = 60;

fn nearest<S: AsRef<str>>(found: &str, known: impl IntoIterator<Item = S>) -> Option<String> {
    // Longer than any known word, and the distance takes quadratic time.
    if found.len() > 32 {
        return None;
    }
    let found = found.to_ascii_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|word| {
            let distance = strsim::osa_distance(&found, &word.as_ref().replace('_', "-"));
            (distance, word)
        })
        .filter(|(distance, word)| *distance <= word.as_ref().len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word.as_ref().to_owned())
}
