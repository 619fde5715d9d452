//! One connection explained: the choice among those that a name fits, and the output.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::live::owners;
use super::{NOT_UNDERSTOOD, found};
use crate::api::{WhyAnswer, client};
use crate::cli::{SocketArgs, UsageError, WhyArgs, WhyFormat};
use crate::output::{Format, ListWriter, Palette, write_ladder, write_mermaid};
use crate::view::Connection;
use crate::why::Explanation;

/// The connections that a name fits.
#[derive(Default)]
pub(super) struct Candidates {
    count: usize,
    /// The first ones, with the time that each is as of.
    first: Vec<(Connection, Timestamp)>,
    /// The explanation of the first one.
    explanation: Option<Explanation>,
}

/// Explains a connection of the agent.
pub(super) async fn run(agent: &SocketArgs, args: &WhyArgs) -> Result<ExitCode> {
    let flow = args.flow()?;
    if flow.filter().asks_for_process() {
        return Err(UsageError::PROCESS_IN_WHY.into());
    }
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("filter", &flow.filter().to_string())
        .finish();
    let body = client::get(agent.path(), &format!("/why?{query}")).await?.whole().await?;
    let mut answer: WhyAnswer = serde_json::from_slice(&body).context(NOT_UNDERSTOOD)?;
    if let Some(explanation) = &mut answer.explanation
        && let Some(owners) = owners(agent, Format::Wide, true, flow.filter()).await?
    {
        explanation.connection.process = owners.of(&explanation.connection);
    }
    let count = Candidates::from(answer).finish(&mut io::stdout().lock(), args.output)?;
    if count == 0 {
        eprintln!("finwait: no connection matches, also none of those that ended and are remembered");
    }
    Ok(found(count > 0))
}

impl From<WhyAnswer> for Candidates {
    fn from(answer: WhyAnswer) -> Candidates {
        let WhyAnswer { count, candidates, as_of, explanation } = answer;
        let first = candidates.into_iter().map(|connection| (connection, as_of)).collect();
        Candidates { count, first, explanation }
    }
}

impl Candidates {
    /// Adds one.
    pub(super) fn push(
        &mut self,
        connection: &Connection,
        as_of: Timestamp,
        explanation: Option<&Explanation>,
    ) {
        self.count += 1;
        if self.first.is_empty() {
            self.explanation = explanation.cloned();
        }
        if self.first.len() < WhyAnswer::LISTED {
            self.first.push((connection.clone(), as_of));
        }
    }

    /// Prints the explanation if there is one candidate, the candidates if there are several. Returns the
    /// number of explained connections.
    ///
    /// # Errors
    ///
    /// If the output fails, or there are several candidates.
    pub(super) fn finish(self, out: &mut impl Write, format: WhyFormat) -> Result<usize> {
        match (self.count, &self.explanation) {
            (0, _) | (1, None) => Ok(0),
            (1, Some(explanation)) => {
                print(explanation, out, format)?;
                out.flush()?;
                Ok(1)
            }
            (count, _) => {
                let mut list =
                    ListWriter::new(out, Format::Wide, Palette::for_stdout(), Timestamp::UNIX_EPOCH)?;
                for (connection, as_of) in &self.first {
                    list.set_now(*as_of);
                    list.push(connection)?;
                }
                list.finish()?;
                Err(UsageError::ambiguous(count, self.first.len()).into())
            }
        }
    }
}

fn print(explanation: &Explanation, out: &mut impl Write, format: WhyFormat) -> io::Result<()> {
    match format {
        WhyFormat::Mermaid => write_mermaid(explanation, out),
        WhyFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, explanation)?;
            writeln!(out)
        }
        WhyFormat::Table => write_ladder(explanation, out, Palette::for_stdout()),
    }
}
