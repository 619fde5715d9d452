//! The wire parser against `conformance/parse_cases.jsonl`, against frames built here for what the cases leave out, and
//! against noise.

mod cases;
mod datagrams;
mod ipv4;
mod ipv6;
mod link;
mod noise;
mod options;
