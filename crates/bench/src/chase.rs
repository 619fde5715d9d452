//! The cost of one dependent cache miss, which puts the cost of a table of the same size in proportion.

use anyhow::{Context as _, Result};
use memmap2::{Advice, MmapMut};

use crate::source::thread_ns;

/// Cache lines at equal distances in memory as large as a table, linked in random order.
pub(crate) struct Chase {
    memory: MmapMut,
    lines: u32,
    at: usize,
}

impl Chase {
    /// Allocates the memory in small pages, like that of BPF maps.
    pub(crate) fn new(lines: u32, bytes: usize) -> Result<Chase> {
        let bytes = bytes.max(lines as usize * LINE);
        let mut memory = MmapMut::map_anon(bytes).context("memory for a chase")?;
        memory.advise(Advice::NoHugePage).context("small pages for a chase")?;
        let distance = bytes / lines as usize / LINE * LINE;
        let mut order: Vec<u32> = (0..lines).collect();
        fastrand::shuffle(&mut order);
        let offset = |line: u32| line as usize * distance;
        for (&line, &next) in order.iter().zip(order.iter().cycle().skip(1)) {
            memory[offset(line)..][..8].copy_from_slice(&(offset(next) as u64).to_ne_bytes());
        }
        Ok(Chase { memory, lines, at: offset(order[0]) })
    }

    /// Mean CPU time of a step in ns.
    pub(crate) fn cost(&mut self, steps: u32) -> f64 {
        self.go(steps.min(self.lines));
        let before = thread_ns();
        self.go(steps);
        (thread_ns() - before) / f64::from(steps)
    }

    fn go(&mut self, steps: u32) {
        for _ in 0..steps {
            let mut next = [0; 8];
            next.copy_from_slice(&self.memory[self.at..][..8]);
            self.at = u64::from_ne_bytes(next) as usize;
        }
    }
}

const LINE: usize = 64;
