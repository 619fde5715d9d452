//! The filter language: that of `ss`, with the facts that only finwait has.
//!
//! ```text
//! filter  = ["("] test {("and" | "or" | "not") test} [")"]     && || ! too; nothing between two tests means "and"
//! test    = state NAME | exclude NAME                          either end; time-wait, TIME_WAIT, connected, bucket ..
//!         | (client | server | local | remote) state NAME
//!         | (client | server | local | remote | src | dst) ADDRESS[%INTERFACE][/LENGTH][:PORT]
//!         | [host] ADDRESS[%INTERFACE][/LENGTH][:PORT]         of either end
//!         | (sport | dport | port) OP PORT                     OP: = == != < <= > >= eq ne lt le gt ge; :443, 443 or :https
//!         | (sport | dport | port) [in] PORT[-PORT]{,PORT[-PORT]}
//!         | (closer | aborter | opener | holder) WHO           client server both local remote none unknown
//!         | kind KIND | reset CLASS | confidence WORD | family ipv4|ipv6
//!         | (age | idle | handshake) OP DURATION               30s, 5m, 2h30m
//!         | bytes OP SIZE                                      of both ends: 1000, 64KiB, 1MB
//!         | process NAME-or-PID | pid PID | interface NAME | vlan ID | id HEX
//! ```
//!
//! `src` is the local end and `dst` the remote one, as in `ss`; where both or neither are local, the client
//! and the server. `port` and `state` hold if either end matches. With NAT an address or port matches in either
//! tuple. An unknown fact matches no test: `age > 0s` leaves out connections whose beginning was not seen. An end
//! of which nothing was seen is in no state but `unknown`.
//!
//! Modules in the order of processing: tokens, the parser, the tree and its tests.

mod address;
mod error;
mod parser;
mod test;
mod token;

pub use error::FilterError;
pub use parser::words;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::view::Connection;
use test::Test;

/// A condition on connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    source: String,
    tree: Expression,
}

impl Filter {
    /// Parses a filter; an empty text selects everything.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let tokens = token::tokens(text)?;
        let tree = parser::parse(text, &tokens)?;
        Ok(Filter { source: text.to_owned(), tree })
    }

    /// Whether the filter selects the connection; ages are as of `now`.
    pub fn matches(&self, connection: &Connection, now: Timestamp) -> bool {
        self.tree.matches(connection, now)
    }

    /// Whether it has a test for the owner of a socket, which no packet carries.
    pub fn asks_for_process(&self) -> bool {
        self.tree.asks_for_process()
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.tree == Expression::All(Vec::new())
    }
}

/// Selects everything.
impl Default for Filter {
    fn default() -> Filter {
        Filter { source: String::new(), tree: Expression::All(Vec::new()) }
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Filter, FilterError> {
        Filter::parse(text)
    }
}

/// Writes the text that was parsed.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// The tree of a filter. Chains are lists, so that only parentheses make it deep.
#[derive(Clone, Debug, PartialEq)]
enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Test(Test),
}

impl Expression {
    fn asks_for_process(&self) -> bool {
        match self {
            Expression::All(parts) | Expression::Any(parts) => parts.iter().any(Expression::asks_for_process),
            Expression::Not(part) => part.asks_for_process(),
            Expression::Test(test) => matches!(test, Test::Process(_) | Test::Pid(_)),
        }
    }

    fn matches(&self, connection: &Connection, now: Timestamp) -> bool {
        match self {
            Expression::All(parts) => parts.iter().all(|part| part.matches(connection, now)),
            Expression::Any(parts) => parts.iter().any(|part| part.matches(connection, now)),
            Expression::Not(part) => !part.matches(connection, now),
            Expression::Test(test) => test.matches(connection, now),
        }
    }
}

#[cfg(test)]
mod tests;
