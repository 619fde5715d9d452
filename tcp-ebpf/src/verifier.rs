//! What the verifier needs and the compiler would optimize away.

use core::arch::asm;

/// Returns the number, hidden from the compiler.
#[inline(always)]
pub(crate) fn opaque(mut number: usize) -> usize {
    // SAFETY: the instruction moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}

/// Returns the number of a one-byte enum. The compiler knows its range and would leave out the bounds check that the
/// verifier requires.
#[inline(always)]
pub(crate) fn number<T>(value: &T) -> usize {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: a reference to an initialized value of one byte, as just asserted.
    unsafe { core::ptr::read_volatile(core::ptr::from_ref(value).cast::<u8>()) as usize }
}

/// Returns a value that was just written to memory. The verifier forgets which path has written it, so that what follows is
/// verified once and not once for each path.
#[inline(always)]
pub(crate) fn reread<T: Copy>(value: &T) -> T {
    // SAFETY: a reference to an initialized value.
    unsafe { core::ptr::read_volatile(core::ptr::from_ref(value)) }
}
