//! Opens and closes connections over a veth pair, as fast as one client can: CPU time and elapsed time of
//! each.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use finwait::lab::Family;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::background::cpu_ns;
use crate::report::Series;
use crate::size::Size;
use crate::source::thread_ns;
use crate::worlds::{CONNTRACK, NOTHING, World};

pub(crate) fn measure(worlds: &[World], size: &Size) -> Result<Value> {
    let mut cpu =
        Series::new(format!("Connect and close over veth, {} in a row, CPU time of each", size.connects));
    let mut time = Series::new("Connect and close over veth, elapsed time of each");
    let mut agents = Series::new("Connect and close over veth, CPU time of the agent");
    for _ in 0..size.long_rounds {
        for world in worlds {
            let count = size.connects as f64;
            let (burst, agent) = world.watched(|| burst(world, size.connects))?;
            cpu.add(world.name, (burst.cpu_ns + agent) / count);
            time.add(world.name, burst.time_ns / count);
            agents.add(world.name, agent / count);
        }
    }
    Ok(json!({
        "title": "Connect and close", "cpu": cpu.print(NOTHING, Some(CONNTRACK)),
        "time": time.print(NOTHING, None), "agent": agents.print(NOTHING, None),
    }))
}

struct Burst {
    /// CPU time of both sides' threads with the interrupts that they serve, and of the kernel's interrupt
    /// threads.
    cpu_ns: f64,
    time_ns: f64,
}

/// Opens and closes connections. The client closes first, the server as soon as it sees that.
fn burst(world: &World, count: usize) -> Result<Burst> {
    let address = world.lab.server.address(Family::Ipv4);
    let listeners = world.lab.server.run(|| -> Result<Vec<TcpListener>> {
        PORTS.map(|port| listen(SocketAddr::new(address, port))).collect()
    })??;
    let port = |number: usize| PORTS.start + (number % PORTS.len()) as u16;
    let (interrupts, ready) = (interrupts_ns()?, Barrier::new(2));
    let (server, client) = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            world.lab.server.run(|| -> Result<f64> {
                ready.wait();
                let before = thread_ns();
                for number in 0..count {
                    let (mut stream, _) = listeners[number % listeners.len()].accept()?;
                    stream.read_to_end(&mut Vec::new())?;
                }
                Ok(thread_ns() - before)
            })
        });
        let client = world.lab.client.run(|| -> Result<(f64, f64)> {
            ready.wait();
            let (before, begun) = (thread_ns(), Instant::now());
            for number in 0..count {
                TcpStream::connect((address, port(number))).context("connecting")?;
            }
            Ok((thread_ns() - before, begun.elapsed().as_nanos() as f64))
        });
        (server.join(), client)
    });
    let server = server.map_err(|_| anyhow!("the server has ended"))???;
    let (client, time_ns) = client??;
    Ok(Burst { cpu_ns: client + server + interrupts_ns()? - interrupts, time_ns })
}

/// Opens a listening socket whose queue no burst fills.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into()).context("binding the server")?;
    socket.listen(8192)?;
    Ok(socket.into())
}

/// CPU time of the kernel's interrupt threads so far, in ns.
fn interrupts_ns() -> Result<f64> {
    let mut all = 0.0;
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            all += cpu_ns(id)?;
        }
    }
    Ok(all)
}

const PORTS: std::ops::Range<u16> = 9000..9016;
