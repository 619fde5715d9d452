//! Waits for conditions, never for a fixed time.

use std::thread;
use std::time::{Duration, Instant};

use super::LabError;

/// How long one operation in the lab may take before it fails.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Calls `check` repeatedly until it returns `Ok(Ok(value))`. `Ok(Err((expected, found)))` means "not yet".
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

/// Pause between two checks: short compared with the delayed ACK (40 ms), long compared with one check.
const PAUSE: Duration = Duration::from_millis(1);
