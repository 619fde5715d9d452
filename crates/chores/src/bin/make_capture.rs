//! Makes a large capture to measure `finwait replay` with: many connections at once, each opened, used and
//! closed.
//!
//! `cargo run --release --package chores --bin make_capture -- FILE [MEGABYTES]`

use std::fs::File;
use std::io::{self, BufWriter, Write};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("make_capture FILE [MEGABYTES]")?;
    let megabytes: u64 = arguments.next().map_or(Ok(1_000), |text| text.parse()).context("MEGABYTES")?;
    let mut capture = Capture::new(BufWriter::with_capacity(1 << 20, File::create(&path)?))?;
    let mut random = Random(1);
    let mut connections: Vec<Connection> = (0..AT_ONCE).map(|n| Connection::new(n, &mut random)).collect();
    let mut opened = AT_ONCE;
    while capture.written < megabytes * 1_000_000 {
        let index = random.below(u64::from(AT_ONCE)) as usize;
        if !connections[index].next(&mut capture, &mut random)? {
            connections[index] = Connection::new(opened, &mut random);
            opened += 1;
        }
    }
    capture.out.flush()?;
    println!("{path}: {} bytes, {} frames, {opened} connections", capture.written, capture.frames);
    Ok(())
}

/// A classic pcap file, little-endian, microseconds, Ethernet.
struct Capture<W> {
    out: W,
    written: u64,
    frames: u64,
    frame: Vec<u8>,
}

impl<W: Write> Capture<W> {
    fn new(mut out: W) -> io::Result<Capture<W>> {
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
            out.write_all(&word.to_le_bytes())?;
        }
        Ok(Capture { out, written: 24, frames: 0, frame: Vec::new() })
    }

    fn push(&mut self) -> io::Result<()> {
        let at_us = 1_700_000_000_000_000 + self.frames * FRAME_EVERY_US;
        let len = self.frame.len() as u32;
        for word in [(at_us / 1_000_000) as u32, (at_us % 1_000_000) as u32, len, len] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(&self.frame)?;
        self.written += 16 + u64::from(len);
        self.frames += 1;
        self.frame.clear();
        Ok(())
    }
}

struct Connection {
    addresses: [[u8; 4]; 2],
    ports: [u16; 2],
    /// Next sequence number of client and server.
    next: [u32; 2],
    step: u32,
    /// Steps of payload.
    length: u32,
}

impl Connection {
    fn new(number: u32, random: &mut Random) -> Connection {
        let client = (number / 50_000).to_be_bytes();
        Connection {
            addresses: [[10, client[1], client[2], client[3]], [192, 0, 2, (number % 200) as u8 + 1]],
            ports: [10_000 + (number % 50_000) as u16, 443],
            next: [random.next() as u32, random.next() as u32],
            step: 0,
            length: 2 + random.below(40) as u32,
        }
    }

    /// Writes the next segment. Returns whether there is one more.
    fn next<W: Write>(&mut self, capture: &mut Capture<W>, random: &mut Random) -> io::Result<bool> {
        let step = self.step;
        self.step += 1;
        let last = self.length + 3;
        let (sender, syn, fin, payload) = match step {
            0 => (0, true, false, 0),
            1 => (1, true, false, 0),
            2 => (0, false, false, 0),
            _ if step < last => match random.below(4) {
                0 => (0, false, false, 0),
                1 => (0, false, false, 1 + random.below(600) as usize),
                _ => (1, false, false, MSS),
            },
            _ if step == last => (0, false, true, 0),
            _ if step == last + 1 => (1, false, true, 0),
            _ => (0, false, false, 0),
        };
        let peer = 1 - sender;
        let [a, b] = [self.addresses[sender], self.addresses[peer]];
        let mut tcp = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4(a, b, 64)
            .tcp(self.ports[sender], self.ports[peer], self.next[sender], 65_000)
            .options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1])
            .map_err(io::Error::other)?;
        if step != 0 {
            tcp = tcp.ack(self.next[peer]);
        }
        if syn {
            tcp = tcp.syn();
        }
        if fin {
            tcp = tcp.fin();
        }
        tcp.write(&mut capture.frame, &PAYLOAD[..payload]).map_err(io::Error::other)?;
        capture.push()?;
        self.next[sender] = self.next[sender].wrapping_add(payload as u32 + u32::from(syn) + u32::from(fin));
        Ok(step < last + 2)
    }
}

/// xorshift64: the same capture every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

/// Connections open at a time.
const AT_ONCE: u32 = 5_000;
/// A gigabyte is then some five minutes.
const FRAME_EVERY_US: u64 = 200;
const MSS: usize = 1_448;
static PAYLOAD: [u8; MSS] = [0x5a; MSS];
