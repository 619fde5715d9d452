//! What the verifier must be told where the compiler knows better.

use core::arch::asm;

/// The same number in one register, of which the compiler knows nothing.
#[inline(always)]
pub fn opaque(mut number: usize) -> usize {
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}

/// The number of an enum of one octet, as the verifier sees it: the compiler knows that it is small and would leave out
/// the check that the verifier asks for.
#[inline(always)]
pub fn number<T>(value: &T) -> usize {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: one octet, initialised.
    unsafe { core::ptr::read_volatile(core::ptr::from_ref(value).cast::<u8>()) as usize }
}
