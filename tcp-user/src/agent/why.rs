//! The answer to `finwait why`: one connection, explained from what the agent remembers of it.

use jiff::Timestamp;

use super::history::EndedFlow;
use super::shared::Shared;
use crate::api::WhyAnswer;
use crate::filter::Filter;
use crate::kernel::Entry;
use crate::view::Connection;
use crate::view::describe::client_end;
use crate::why::{Explanation, History};

impl Shared {
    /// Explains the connection that the filter selects, among those in the flow table first, then among those that have
    /// left it.
    pub(super) fn explain(&self, filter: &Filter) -> WhyAnswer {
        let answer = self.explain_one_of(filter, self.table.entries().map(|entry| (entry, None)));
        if answer.count > 0 {
            return answer;
        }
        self.explain_one_of(filter, self.ended().into_iter().map(|ended| (ended.entry, Some(ended))))
    }

    /// A copy of the connections that have left the flow table, the latest first, so that the tracker waits no longer
    /// than that takes.
    pub(super) fn ended(&self) -> Vec<EndedFlow> {
        self.histories.lock().ended().copied().collect()
    }

    fn explain_one_of(
        &self,
        filter: &Filter,
        entries: impl Iterator<Item = (Entry, Option<EndedFlow>)>,
    ) -> WhyAnswer {
        let (describer, as_of) = (self.describer(), Timestamp::now());
        let (mut count, mut candidates, mut first) = (0, Vec::new(), None);
        for (entry, ended) in entries {
            if self.own.includes(&entry.key, &entry.flow) {
                continue;
            }
            let Some(connection) = self.listed(&describer, &entry, true) else { continue };
            if !filter.matches(&connection, as_of) {
                continue;
            }
            count += 1;
            if candidates.len() < WhyAnswer::LISTED {
                candidates.push(connection);
            }
            first.get_or_insert((entry, ended));
        }
        let explanation = match (first, &candidates[..]) {
            (Some((entry, ended)), [only]) => {
                let histories = self.histories.lock();
                let history = match &ended {
                    Some(ended) => histories.of_ended(ended),
                    None => histories.of(&entry),
                };
                drop(histories);
                Some(self.explanation(only, &entry, &history, as_of))
            }
            _ => None,
        };
        WhyAnswer { count, candidates, as_of, explanation }
    }

    fn explanation(
        &self,
        connection: &Connection,
        entry: &Entry,
        history: &History,
        as_of: Timestamp,
    ) -> Explanation {
        let client = self.translations.client(&entry.key);
        let client = client.unwrap_or_else(|| client_end(&entry.key, &entry.flow));
        Explanation::new(connection.clone(), &entry.flow, history, client, *self.clock.lock(), as_of)
    }
}
