//! Two independent RFC 9293 endpoints, a bad network between them, and a tap on the host of the first.
//!
//! Nothing here uses the machine under test: the endpoints unwrap every sequence number to 64 bits and
//! compare plainly. Only the vocabulary is shared (`State`, `End`, `Segment`).
//!
//! A run follows a script of bytes: proptest can shrink it, a fuzzer can mutate it, and a seed can
//! generate millions.

mod endpoint;
mod hostile;
mod script;
mod witness;
mod world;

pub use endpoint::Endpoint;
pub use hostile::Hostile;
pub use script::{Script, random_bytes};
pub use witness::Witness;
pub use world::{Seen, World};
