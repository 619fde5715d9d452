//! The phase in which a flow's slot is unlocked.

use super::Tag;
use crate::flow::{Flow, Prediction};

/// Renews the prediction and returns the flow's phase.
#[inline(always)]
pub fn phase_of(prediction: &mut Prediction, flow: &Flow) -> u64 {
    if prediction.renew(flow) { Tag::PREDICTED } else { phase_without_prediction(flow) }
}

/// Returns the phase of a flow whose next segments are not predicted.
#[inline(always)]
pub fn phase_without_prediction(flow: &Flow) -> u64 {
    if flow.is_over() {
        Tag::CLOSED
    } else if flow.is_half_open() {
        Tag::HALF_OPEN
    } else if flow.is_finished() {
        Tag::TIME_WAIT
    } else {
        Tag::LIVE
    }
}
