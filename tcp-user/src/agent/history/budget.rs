//! How much memory the event rings and the histories may have.

use nix::sys::sysinfo::sysinfo;

/// Memory of the event rings and of the histories, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) struct MemoryBudget {
    pub(in crate::agent) rings: u32,
    pub(in crate::agent) histories: u64,
}

impl MemoryBudget {
    /// The budget on this host. `histories` is the size that was chosen for these, in bytes, if one was.
    pub(in crate::agent) fn of_host(histories: Option<u64>) -> MemoryBudget {
        let ram = sysinfo().map_or(u64::MAX, |info| info.ram_total());
        let budget = MemoryBudget::of_ram(ram);
        MemoryBudget { histories: histories.unwrap_or(budget.histories), ..budget }
    }

    /// One half percent of the host's memory for both, at most [`MOST`].
    fn of_ram(bytes: u64) -> MemoryBudget {
        let both = (bytes / 200).min(MOST.histories + u64::from(MOST.rings));
        let rings = (both * u64::from(MOST.rings) / (MOST.histories + u64::from(MOST.rings))) as u32;
        MemoryBudget { rings, histories: both - u64::from(rings) }
    }
}

/// What a large host gives: 262,144 moments in 16 MiB and 65,536 ended connections in 20 MiB, beside rings of 16 MiB.
const MOST: MemoryBudget = MemoryBudget { rings: 16 << 20, histories: 36 << 20 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_hosts_give_half_a_percent() {
        assert_eq!(MemoryBudget::of_ram(64 << 30), MOST);
        let MemoryBudget { rings, histories } = MemoryBudget::of_ram(1 << 30);
        assert_eq!(u64::from(rings) + histories, (1 << 30) / 200);
        assert_eq!(histories / u64::from(rings), 2, "the same parts as on a large host");
    }
}
