//! Resets as this host's kernel knows them, beside what their segments show.

use std::borrow::Cow;

use tcp_common::record::ResetEnds;
use tcp_common::{End, Flow, FlowKey};

use super::shared::Shared;
use crate::view::{ResetClass, ResetInfo};

/// Why a connection or its TIME-WAIT was reset.
#[derive(Clone, Debug)]
pub struct KnownReset {
    /// The class, settled by the kernel where segments leave two possibilities.
    pub class: ResetClass,
    /// The end whose RST it was.
    pub sender: Option<End>,
    kernel_reason: Option<String>,
}

impl Shared {
    /// Why a flow was reset, if it was.
    pub(super) fn reset_of(&self, key: &FlowKey, flow: &Flow) -> Option<KnownReset> {
        let (class, sender) = ResetClass::of(flow)?;
        let kernel_reason = sender.filter(|&end| flow.is_local(end)).and_then(|end| {
            let ends = ResetEnds::new(&key.endpoint(end), &key.endpoint(end.peer()));
            self.reset_reasons.as_ref().ok()?.reason(&ends, flow.last_ns()).map(str::to_owned)
        });
        let class = kernel_reason.as_deref().map_or(class, |reason| class.settled(reason));
        Some(KnownReset { class, sender, kernel_reason })
    }
}

impl KnownReset {
    /// Puts what the kernel says into the record of a connection.
    pub(super) fn complete(self, info: &mut ResetInfo) {
        info.class = self.class;
        info.kernel_reason = self.kernel_reason.map(Cow::Owned);
    }
}
