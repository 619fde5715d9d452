//! Segments of other networks, as the programs remember them.

use aya::Ebpf;
use aya::Pod;
use aya::maps::{MapData, PerCpuArray};
use tcp_common::record::ForeignSegment;

use super::error::failed;
use super::{Kernel, KernelError, open};

/// The map.
pub(super) struct ForeignSegments(PerCpuArray<MapData, PodForeignSegment>);

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodForeignSegment(ForeignSegment);
// SAFETY: `#[repr(C)]` integers without padding, as its asserted size in tcp-common shows.
unsafe impl Pod for PodForeignSegment {}

impl ForeignSegments {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<ForeignSegments, KernelError> {
        Ok(ForeignSegments(open(ebpf, FOREIGN_SEGMENTS)?))
    }
}

impl Kernel {
    /// The latest segment that was ignored as one of another network.
    pub fn foreign_segment(&self) -> Result<Option<ForeignSegment>, KernelError> {
        let per_cpu = self.foreign.0.get(&0, 0);
        let per_cpu = per_cpu.map_err(|error| failed(format!("reading map {FOREIGN_SEGMENTS}"), error))?;
        let latest = per_cpu.iter().map(|cpu| cpu.0).max_by_key(|segment| segment.at_ns);
        Ok(latest.filter(|segment| segment.at_ns != 0))
    }
}

const FOREIGN_SEGMENTS: &str = "FOREIGN_SEGMENTS";
