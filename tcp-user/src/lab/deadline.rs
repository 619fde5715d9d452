//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

use super::LabError;

/// How long anything in the lab may take before it is given up.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Asks `check` again and again until it says `Ok(Ok(value))`. `Ok(Err((expected, found)))` means "not yet".
pub(super) fn wait_until<T>(
    mut check: impl FnMut() -> Result<Result<T, (String, String)>, LabError>,
) -> Result<T, LabError> {
    let begun = Instant::now();
    loop {
        match check()? {
            Ok(value) => return Ok(value),
            Err((expected, found)) if begun.elapsed() >= LIMIT => {
                return Err(LabError::Timeout { waited_ms: begun.elapsed().as_millis(), expected, found });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Short beside the shortest timer of TCP that matters here (40 ms, the delayed ACK), long beside one question.
const PAUSE: Duration = Duration::from_millis(1);
