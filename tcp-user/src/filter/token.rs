//! Splits the text of a filter into tokens.

use std::ops::Range;

use winnow::combinator::{alt, delimited};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{take_till, take_while};

use super::FilterError;

/// A token and its range in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'s> {
    pub(super) kind: Kind<'s>,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'s> {
    /// A bare word: keyword, name, address, number.
    Word(&'s str),
    /// A word in quotes, never a keyword.
    Quoted(&'s str),
    Open,
    Close,
    Not,
    And,
    Or,
    Compare(Operator),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    pub(super) fn holds<T: Ord>(self, left: T, right: T) -> bool {
        match self {
            Operator::Equal => left == right,
            Operator::NotEqual => left != right,
            Operator::Less => left < right,
            Operator::LessOrEqual => left <= right,
            Operator::Greater => left > right,
            Operator::GreaterOrEqual => left >= right,
        }
    }
}

/// Words that stand for an operator.
const SPELLED: &[(&str, Kind<'static>)] = &[
    ("and", Kind::And),
    ("or", Kind::Or),
    ("not", Kind::Not),
    ("eq", Kind::Compare(Operator::Equal)),
    ("ne", Kind::Compare(Operator::NotEqual)),
    ("neq", Kind::Compare(Operator::NotEqual)),
    ("lt", Kind::Compare(Operator::Less)),
    ("le", Kind::Compare(Operator::LessOrEqual)),
    ("leq", Kind::Compare(Operator::LessOrEqual)),
    ("gt", Kind::Compare(Operator::Greater)),
    ("ge", Kind::Compare(Operator::GreaterOrEqual)),
    ("geq", Kind::Compare(Operator::GreaterOrEqual)),
];

type TokenSource<'s> = LocatingSlice<&'s str>;

/// Splits a text into tokens.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, FilterError> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    skip_space(&mut input);
    while !input.is_empty() {
        let start = input.current_token_start();
        // Every character but a quote begins a token, so a failure is an unclosed quote.
        let (kind, span) = token
            .with_span()
            .parse_next(&mut input)
            .map_err(|_| FilterError::new(text, start..text.len(), "this quote is not closed"))?;
        tokens.push(Token { kind, span });
        skip_space(&mut input);
    }
    Ok(tokens)
}

/// Skips white space, that of Unicode too: a filter may be pasted from a document.
fn skip_space(input: &mut TokenSource<'_>) {
    let _: winnow::Result<&str> = take_while(0.., char::is_whitespace).parse_next(input);
}

fn token<'s>(input: &mut TokenSource<'s>) -> winnow::Result<Kind<'s>> {
    alt((comparison, connective, quoted, word)).parse_next(input)
}

fn comparison<'s>(input: &mut TokenSource<'s>) -> winnow::Result<Kind<'s>> {
    alt((
        alt(("==", "=")).value(Operator::Equal),
        "!=".value(Operator::NotEqual),
        "<=".value(Operator::LessOrEqual),
        "<".value(Operator::Less),
        ">=".value(Operator::GreaterOrEqual),
        ">".value(Operator::Greater),
    ))
    .map(Kind::Compare)
    .parse_next(input)
}

fn connective<'s>(input: &mut TokenSource<'s>) -> winnow::Result<Kind<'s>> {
    alt((
        alt(("&&", "&")).value(Kind::And),
        alt(("||", "|")).value(Kind::Or),
        "!".value(Kind::Not),
        "(".value(Kind::Open),
        ")".value(Kind::Close),
    ))
    .parse_next(input)
}

fn quoted<'s>(input: &mut TokenSource<'s>) -> winnow::Result<Kind<'s>> {
    alt((delimited('"', take_till(0.., '"'), '"'), delimited('\'', take_till(0.., '\''), '\'')))
        .map(Kind::Quoted)
        .parse_next(input)
}

fn word<'s>(input: &mut TokenSource<'s>) -> winnow::Result<Kind<'s>> {
    take_till(1.., |c: char| c.is_whitespace() || "()!=<>&|\"'".contains(c))
        .map(|word: &str| {
            SPELLED
                .iter()
                .find(|(spelled, _)| spelled.eq_ignore_ascii_case(word))
                .map_or(Kind::Word(word), |(_, kind)| *kind)
        })
        .parse_next(input)
}
