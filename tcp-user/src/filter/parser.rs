//! Parses tokens into a tree.

use std::ops::Range;

use bytesize::ByteSize;
use jiff::SignedDuration;

use super::address::{self, HostFilter};
use super::test::{Actor, EndSelector, Identity, KindSelector, ResetSelector, Test};
use super::token::{Kind, Operator, Token};
use super::{Expression, FilterError};
use crate::view::{Confidence, Family, StateSet};

/// Parses all tokens of `text`.
pub(super) fn parse(text: &str, tokens: &[Token<'_>]) -> Result<Expression, FilterError> {
    let mut parser = Parser { text, tokens, next: 0, depth: 0 };
    if tokens.is_empty() {
        return Ok(Expression::All(Vec::new()));
    }
    let tree = parser.any()?;
    match parser.peek() {
        None => Ok(tree),
        // `any` stops at the end or at an unmatched closing parenthesis.
        Some(_) => Err(parser.error("unmatched closing parenthesis")),
    }
}

/// Maximum depth of parentheses: far more than a person types, far less than a thread's stack.
const MAX_DEPTH: usize = 64;

struct Parser<'t, 's> {
    text: &'s str,
    tokens: &'t [Token<'s>],
    next: usize,
    depth: usize,
}

impl<'s> Parser<'_, 's> {
    /// `all {"or" all}`
    fn any(&mut self) -> Result<Expression, FilterError> {
        let mut parts = vec![self.all()?];
        while self.take(Kind::Or) {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Expression::Any))
    }

    /// `not {["and"] not}`
    fn all(&mut self) -> Result<Expression, FilterError> {
        let mut parts = vec![self.not()?];
        loop {
            match self.peek() {
                None | Some(Kind::Or | Kind::Close) => break,
                Some(Kind::And) => self.next += 1,
                Some(Kind::Word(_) | Kind::Quoted(_) | Kind::Open | Kind::Not | Kind::Compare(_)) => {}
            }
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expression::All))
    }

    /// `{"not"} ("(" any ")" | test)`
    fn not(&mut self) -> Result<Expression, FilterError> {
        let mut negated = false;
        while self.take(Kind::Not) {
            negated = !negated;
        }
        let inner = if self.take(Kind::Open) { self.parenthesised()? } else { self.test()? };
        Ok(negate(inner, negated))
    }

    fn parenthesised(&mut self) -> Result<Expression, FilterError> {
        let opened = self.tokens[self.next - 1].span.clone();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("parentheses nested more than {MAX_DEPTH} deep");
            return Err(FilterError::new(self.text, opened, message));
        }
        let inner = self.any()?;
        if !self.take(Kind::Close) {
            return Err(FilterError::new(self.text, opened, "this parenthesis is not closed"));
        }
        self.depth -= 1;
        Ok(inner)
    }

    fn test(&mut self) -> Result<Expression, FilterError> {
        let Some(Kind::Word(word)) = self.peek() else {
            return Err(self.error("expected a test, such as `state time-wait` or `dport = :443`"));
        };
        let keyword = KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let Some((_, keyword)) = keyword else {
            // An address, or a port with its colon, names an end by itself.
            if HostFilter::parse(word).is_some() {
                return self.host(EndSelector::Either);
            }
            let message = "expected a test, such as `state time-wait` or `dport = :443`";
            return Err(self.error(message).suggest(KEYWORDS.iter().map(|(name, _)| name)));
        };
        self.next += 1;
        match *keyword {
            Keyword::State => self.state(EndSelector::Either),
            Keyword::Exclude => self.state(EndSelector::Either).map(|test| negate(test, true)),
            Keyword::End(ends) if self.take_word("state") => self.state(ends),
            Keyword::End(ends) => self.host(ends),
            Keyword::Port(ends) => self.port(ends),
            Keyword::Actor(actor) => self.choice(
                actor.description(),
                actor.identities().iter().copied().map(|identity| (identity.name(), identity)),
                |identity: Identity| Test::Actor(actor, identity),
            ),
            Keyword::Kind => self.choice("a close kind", KindSelector::words(), Test::Kind),
            Keyword::Reset => self.choice("a class of a RST", ResetSelector::words(), Test::Reset),
            Keyword::Confidence => self.choice(
                "a confidence",
                Confidence::ALL.iter().map(|confidence| (confidence.name(), *confidence)),
                Test::Confidence,
            ),
            Keyword::Family => self.choice("an address family", FAMILIES.iter().copied(), Test::Family),
            Keyword::Age => self.duration(Test::Age),
            Keyword::Idle => self.duration(Test::Idle),
            Keyword::Handshake => self.duration(Test::Handshake),
            Keyword::Bytes => self.bytes(),
            Keyword::Process => {
                self.value("a process name or number", |text| Some(Test::Process(text.to_owned())))
            }
            Keyword::Pid => self.value("the number of a process", |text| text.parse().ok().map(Test::Pid)),
            Keyword::Interface => {
                self.value("an interface name", |text| Some(Test::Interface(text.to_owned())))
            }
            Keyword::Vlan => self.value("a VLAN id from 1 to 4094", |text| {
                let id = text.parse().ok().filter(|id| (1..=4094).contains(id));
                id.map(Test::Vlan)
            }),
            Keyword::Id => self.value("the id of a connection: 16 hexadecimal digits", |text| {
                text.parse().ok().map(Test::Id)
            }),
        }
    }

    fn state(&mut self, ends: EndSelector) -> Result<Expression, FilterError> {
        self.value("a state, such as time-wait, or a group of states, such as connected", |text| {
            StateSet::parse(text).ok().map(|states| Test::State(ends, states))
        })
        .map_err(|error| error.suggest(StateSet::names()))
    }

    fn host(&mut self, ends: EndSelector) -> Result<Expression, FilterError> {
        self.value("an address, such as 10.0.0.0/8, 10.0.0.1:80, [2001:db8::1]:443 or :443", |text| {
            HostFilter::parse(text).map(|host| Test::Host(ends, host))
        })
    }

    /// `OP PORT | ["in"] PORT["-" PORT]{"," PORT["-" PORT]}`
    fn port(&mut self, ends: EndSelector) -> Result<Expression, FilterError> {
        let operator = if self.take_word("in") { None } else { self.operator() };
        match operator.unwrap_or(Operator::Equal) {
            equality @ (Operator::Equal | Operator::NotEqual) => {
                let expected = "a port, such as :443 or :https, or several: 80,443,8000-8099";
                let ports = self.value(expected, |text| {
                    address::port_ranges(text).map(|ranges| Test::Ports(ends, ranges))
                })?;
                // Each end is compared by itself: `port != 80` is true if one end has another port.
                Ok(match (ports, equality) {
                    (Expression::Test(Test::Ports(ends, ranges)), Operator::NotEqual) => {
                        Expression::Test(Test::OtherPorts(ends, ranges))
                    }
                    (ports, _) => ports,
                })
            }
            operator => self.value("a port number from 0 to 65535, such as :443", |text| {
                address::port(text).map(|port| Test::Port(ends, operator, port))
            }),
        }
    }

    fn bytes(&mut self) -> Result<Expression, FilterError> {
        let Some(operator) = self.operator() else {
            return Err(self.error("expected a comparison: < <= > >= or lt le gt ge"));
        };
        self.value("a number of bytes, such as 1000, 64KiB or 1MB", |text| {
            text.parse().ok().map(|size: ByteSize| Test::Bytes(operator, size.as_u64()))
        })
    }

    fn duration(&mut self, test: fn(Operator, SignedDuration) -> Test) -> Result<Expression, FilterError> {
        let Some(operator) = self.operator() else {
            return Err(self.error("expected a comparison: < <= > >= or lt le gt ge"));
        };
        self.value("a duration, such as 30s, 5m or 2h30m", |text| {
            let duration = humantime::parse_duration(text).ok()?;
            Some(test(operator, SignedDuration::try_from(duration).ok()?))
        })
    }

    /// Parses one of a few words; `-` stands for `_`.
    fn choice<T: Copy>(
        &mut self,
        expected: &str,
        words: impl Iterator<Item = (&'static str, T)> + Clone,
        test: impl Fn(T) -> Test,
    ) -> Result<Expression, FilterError> {
        let names: Vec<&str> = words.clone().map(|(name, _)| name).collect();
        let expected = format!("{expected}: one of {}", names.join(", "));
        self.value(&expected, |text| {
            let text = text.to_ascii_lowercase().replace('-', "_");
            words.clone().find(|(name, _)| *name == text).map(|(_, value)| test(value))
        })
        .map_err(|error| error.suggest(names))
    }

    /// `["=" | "!="] WORD`
    fn value(
        &mut self,
        expected: &str,
        read: impl FnOnce(&str) -> Option<Test>,
    ) -> Result<Expression, FilterError> {
        let negated = self.take(Kind::Compare(Operator::NotEqual));
        if !negated {
            self.take(Kind::Compare(Operator::Equal));
        }
        let test = match self.peek() {
            Some(Kind::Word(text) | Kind::Quoted(text)) => read(text),
            _ => None,
        };
        let test = test.ok_or_else(|| self.error(format!("expected {expected}")))?;
        self.next += 1;
        Ok(negate(Expression::Test(test), negated))
    }

    fn operator(&mut self) -> Option<Operator> {
        let Some(Kind::Compare(operator)) = self.peek() else { return None };
        self.next += 1;
        Some(operator)
    }

    fn take(&mut self, kind: Kind<'static>) -> bool {
        let found = self.peek() == Some(kind);
        self.next += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Kind::Word(found)) if found.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    fn peek(&self) -> Option<Kind<'s>> {
        self.tokens.get(self.next).map(|token| token.kind)
    }

    /// An error at the next token, or after the last one.
    fn error(&self, message: impl Into<String>) -> FilterError {
        let behind: Range<usize> = self.text.len()..self.text.len();
        let span = self.tokens.get(self.next).map_or(behind, |token| token.span.clone());
        FilterError::new(self.text, span, message)
    }
}

fn one_or(mut parts: Vec<Expression>, list: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.len() {
        1 => parts.remove(0),
        _ => list(parts),
    }
}

fn negate(expression: Expression, negated: bool) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}

#[derive(Clone, Copy)]
enum Keyword {
    State,
    Exclude,
    End(EndSelector),
    Port(EndSelector),
    Actor(Actor),
    Kind,
    Reset,
    Confidence,
    Family,
    Age,
    Idle,
    Handshake,
    Bytes,
    Process,
    Pid,
    Interface,
    Id,
    Vlan,
}

const KEYWORDS: &[(&str, Keyword)] = &[
    ("state", Keyword::State),
    ("exclude", Keyword::Exclude),
    ("client", Keyword::End(EndSelector::Client)),
    ("server", Keyword::End(EndSelector::Server)),
    ("local", Keyword::End(EndSelector::Local)),
    ("remote", Keyword::End(EndSelector::Remote)),
    ("host", Keyword::End(EndSelector::Either)),
    ("src", Keyword::End(EndSelector::Source)),
    ("dst", Keyword::End(EndSelector::Destination)),
    ("sport", Keyword::Port(EndSelector::Source)),
    ("dport", Keyword::Port(EndSelector::Destination)),
    ("port", Keyword::Port(EndSelector::Either)),
    ("closer", Keyword::Actor(Actor::Closer)),
    ("aborter", Keyword::Actor(Actor::Aborter)),
    ("opener", Keyword::Actor(Actor::Opener)),
    ("holder", Keyword::Actor(Actor::Holder)),
    ("kind", Keyword::Kind),
    ("reset", Keyword::Reset),
    ("confidence", Keyword::Confidence),
    ("family", Keyword::Family),
    ("age", Keyword::Age),
    ("idle", Keyword::Idle),
    ("handshake", Keyword::Handshake),
    ("bytes", Keyword::Bytes),
    ("process", Keyword::Process),
    ("pid", Keyword::Pid),
    ("interface", Keyword::Interface),
    ("dev", Keyword::Interface),
    ("id", Keyword::Id),
    ("vlan", Keyword::Vlan),
];

/// The words that a filter can have, for completions.
pub fn words() -> impl Iterator<Item = String> {
    let keywords = KEYWORDS.iter().map(|(name, _)| (*name).to_owned());
    let connectives = ["and", "or", "not"].map(str::to_owned);
    let kinds = KindSelector::words().map(|(name, _)| name.to_owned());
    let resets = ResetSelector::words().map(|(name, _)| name.to_owned());
    let confidences = Confidence::ALL.iter().map(|confidence| confidence.name().to_owned());
    keywords.chain(connectives).chain(StateSet::names()).chain(kinds).chain(resets).chain(confidences)
}

const FAMILIES: &[(&str, Family)] =
    &[("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6), ("inet", Family::Ipv4), ("inet6", Family::Ipv6)];
