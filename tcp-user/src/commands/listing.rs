//! What `finwait ls` makes of the connections: a list as they come, a list in an order, groups, or a number.

use std::io::{self, Write};

use anyhow::Result;
use jiff::Timestamp;

use crate::cli::LsArgs;
use crate::output::{Groups, ListWriter, Palette, SortKey, sort};
use crate::view::Connection;

/// The destination of the connections.
pub(super) struct Listing<W> {
    limit: Option<usize>,
    titles: bool,
    form: Form<W>,
}

enum Form<W> {
    AsTheyCome(ListWriter<W>, usize),
    Sorted(ListWriter<W>, Vec<Connection>, Vec<SortKey>, Timestamp),
    Groups(W, Groups),
    Count(W, u64),
}

impl<W: Write> Listing<W> {
    pub(super) fn new(args: &LsArgs, out: W, now: Timestamp) -> io::Result<Listing<W>> {
        let titles = !args.no_header;
        let list = |out| -> io::Result<_> {
            let list = ListWriter::new(out, args.output, Palette::for_stdout(), now)?;
            Ok(match &args.columns[..] {
                [] => list.with_columns(args.output, args.processes, titles),
                columns => list.with_only(columns, titles),
            })
        };
        let form = if args.count {
            Form::Count(out, 0)
        } else if !args.by.is_empty() {
            Form::Groups(out, Groups::new(args.by.clone(), now))
        } else if !args.sort.is_empty() {
            Form::Sorted(list(out)?, Vec::new(), args.sort.clone(), now)
        } else {
            Form::AsTheyCome(list(out)?, 0)
        };
        Ok(Listing { limit: args.limit, titles, form })
    }

    /// Whether no more connections are wanted.
    pub(super) fn is_full(&self) -> bool {
        matches!(&self.form, Form::AsTheyCome(_, count) if self.limit.is_some_and(|limit| *count >= limit))
    }

    /// Whether it takes connections as JSON.
    pub(super) fn takes_json(&self) -> bool {
        matches!(self.form, Form::AsTheyCome(..))
    }

    /// Adds a connection that is JSON already, if it [takes](Listing::takes_json) that.
    pub(super) fn push_json(&mut self, connection: &[u8]) -> io::Result<()> {
        match &mut self.form {
            Form::AsTheyCome(list, count) => {
                *count += 1;
                list.push_json(connection)
            }
            Form::Sorted(..) | Form::Groups(..) | Form::Count(..) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Adds a connection.
    pub(super) fn push(&mut self, connection: Connection) -> io::Result<()> {
        match &mut self.form {
            Form::AsTheyCome(list, count) => {
                *count += 1;
                list.push(&connection)?;
            }
            Form::Sorted(_, connections, ..) => connections.push(connection),
            Form::Groups(_, groups) => groups.push(&connection),
            Form::Count(_, count) => *count += 1,
        }
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(self) -> Result<()> {
        match self.form {
            Form::AsTheyCome(list, _) => drop(list.finish()?),
            Form::Sorted(list, mut connections, keys, now) => {
                sort(&mut connections, &keys, now);
                connections.truncate(self.limit.unwrap_or(usize::MAX));
                list.write_all(&connections)?;
            }
            Form::Groups(mut out, groups) => {
                groups.write(&mut out, self.titles, self.limit, Palette::for_stdout())?;
            }
            Form::Count(mut out, count) => {
                writeln!(out, "{count}")?;
                out.flush()?;
            }
        }
        Ok(())
    }
}
