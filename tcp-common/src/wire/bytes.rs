//! What a parser needs of a packet, wherever it lies.

/// The octets of a packet, from its link or IP header on.
pub trait Bytes {
    /// `N` octets at `offset`, `None` when they are not all there.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Octets on the wire, which may be more than can be read.
    fn wire_len(&self) -> usize;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.len()
    }
}

impl<B: Bytes + ?Sized> Bytes for &B {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        (**self).read(offset)
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        (**self).wire_len()
    }
}

/// A packet of which a capture kept only the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// The octets that were kept.
    pub bytes: &'a [u8],
    /// Octets that were on the wire.
    pub wire_len: usize,
}

impl Bytes for Captured<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.read(offset)
    }

    #[inline(always)]
    fn wire_len(&self) -> usize {
        self.wire_len
    }
}
