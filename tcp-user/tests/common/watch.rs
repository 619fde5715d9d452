//! A `finwait watch` in the background.

use std::fs::{self, File};
use std::process::{Child, Command};

use finwait::view::EventRecord;

use super::{Agent, FINWAIT};

/// A `finwait watch -o ndjson` that writes to a file. Dropping it kills the process.
pub struct Watch {
    process: Child,
    file: String,
}

impl Watch {
    /// Starts to watch everything, and waits until the agent knows of it. `name` is the name of the file.
    pub fn start(agent: &Agent<'_>, name: &str) -> Watch {
        let file = format!("{}/{name}.watch", env!("CARGO_TARGET_TMPDIR"));
        let before = agent.status().watchers;
        let process = Command::new(FINWAIT)
            .args(["watch", "-o", "ndjson", "--socket", &agent.socket])
            .stdout(File::create(&file).expect("creating a file"))
            .spawn()
            .expect("starting watch");
        agent.wait_for_watchers(before + 1);
        Watch { process, file }
    }

    /// Returns the events so far.
    pub fn events(&self) -> Vec<EventRecord> {
        let text = fs::read_to_string(&self.file).expect("reading what watch printed");
        // The last line may not be complete yet.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
