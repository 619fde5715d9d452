//! Two independent RFC 9293 endpoints, a bad network between them, and a tap on the host of the first.
//!
//! Nothing here uses the machine under test: the endpoints unwrap every number to 64 bits and compare plainly. What is
//! shared are the words (`State`, `End`, `Segment`).
//!
//! A run follows a script of bytes, so that proptest can shrink it, a fuzzer can mutate it and a seed can make millions.

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
