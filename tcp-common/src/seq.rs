//! Serial arithmetic of sequence numbers: every comparison is modulo 2^32 (RFC 9293 3.4).

/// A TCP sequence number or acknowledgment number, in host byte order.
pub type Seq = u32;

/// Whether `a` comes before `b`.
#[inline(always)]
pub const fn before(a: Seq, b: Seq) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Whether `a` is `b` or comes before it.
#[inline(always)]
pub const fn at_or_before(a: Seq, b: Seq) -> bool {
    (a.wrapping_sub(b) as i32) <= 0
}

/// The later of two numbers.
#[inline(always)]
pub const fn later(a: Seq, b: Seq) -> Seq {
    if before(a, b) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_survives_the_wrap() {
        assert!(before(u32::MAX, 0));
        assert!(before(u32::MAX - 5, 10));
        assert!(!before(10, u32::MAX - 5));
        assert!(at_or_before(7, 7));
        assert_eq!(later(u32::MAX, 3), 3);
    }
}
