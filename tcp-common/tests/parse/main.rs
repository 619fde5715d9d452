//! The wire parser, tested with `conformance/parse_cases.jsonl`, with frames made here for what the
//! cases leave out, and with noise.

mod cases;
mod datagrams;
mod fragments;
mod icmp;
mod ip_options;
mod ipv4;
mod ipv6;
mod link;
mod noise;
mod options;
