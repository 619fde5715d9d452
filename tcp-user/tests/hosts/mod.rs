//! Activity on the hosts around an agent: connections, a watcher, a third host, settings.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use etherparse::TcpHeader;
use finwait::lab::{Host, Lab, Namespace};
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::{Agent, FINWAIT, spawn, until};

/// A connection from the client's host to a listener on the agent's host, after one request and response.
pub(crate) struct Pair {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Pair {
    pub(crate) fn open(from: &Host, to: &Host, address: IpAddr) -> Pair {
        let listener = to.run(|| TcpListener::bind((address, 0))).expect("namespace").expect("listening");
        Pair::open_to(from, &listener, listener.local_addr().expect("its address"))
    }

    pub(crate) fn open_to(from: &Host, listener: &TcpListener, address: SocketAddr) -> Pair {
        let client = from.run(|| TcpStream::connect(address)).expect("namespace").expect("connecting");
        let (server, _) = listener.accept().expect("accepting");
        let mut pair = Pair { client, server };
        pair.client.write_all(b"question").expect("asking");
        pair.server.read_exact(&mut [0; 8]).expect("reading");
        pair
    }

    /// Opens a connection whose server socket is bound to its interface. A lookup by addresses alone does not
    /// find it.
    pub(crate) fn bound_to_device(lab: &Lab, address: IpAddr) -> Pair {
        let listener = lab.server.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind_device(Some(lab.server.interface.as_bytes()))?;
            socket.bind(&SocketAddr::new(address, 0).into())?;
            socket.listen(8)?;
            std::io::Result::Ok(TcpListener::from(socket))
        });
        let listener = listener.expect("namespace").expect("listening");
        let address = listener.local_addr().expect("its address");
        let pair = Pair::open_to(&lab.client, &listener, address);
        assert_eq!(lab.server.socket(pair.ends().0, pair.ends().1).expect("asking"), None);
        pair
    }

    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        let ends = (self.server.local_addr().expect("an end"), self.server.peer_addr().expect("an end"));
        (canonical(ends.0), canonical(ends.1))
    }

    /// Closes both ends, the server first, so that TIME-WAIT is on the agent's host.
    pub(crate) fn close_server_first(mut self) {
        drop(self.server);
        self.client.read_to_end(&mut Vec::new()).expect("the server's FIN");
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

pub(crate) fn sysctl(host: &Host, name: &str, value: &str) {
    host.namespace().sysctl(&format!("ipv4/{name}"), value).expect(name);
}

pub(crate) fn run(host: &Host, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let mut child = spawn(host, Command::new(words[0]).args(&words[1..]));
    assert!(child.wait().expect("waiting").success(), "{line}");
}

/// Adds rules to the table `t`, and creates the table if it does not exist.
pub(crate) fn nft(host: &Host, lines: &[&str]) {
    for line in ["add table ip t"].iter().chain(lines) {
        let mut child = spawn(host, Command::new("nft").arg(line));
        assert!(child.wait().expect("waiting").success(), "nft (Debian: nftables) {line}");
    }
}

/// A running `finwait watch` and the records that it has printed.
pub(crate) struct Watch {
    process: Child,
    file: String,
}

impl Watch {
    /// Starts `finwait watch` in the host's namespace, where the owners of its sockets are known.
    pub(crate) fn start(host: &Host, agent: &Agent<'_>, name: &str, filter: &[&str]) -> Watch {
        let file = format!("{}/{name}.watch", env!("CARGO_TARGET_TMPDIR"));
        let mut command = Command::new(FINWAIT);
        command.args(["watch", "-o", "ndjson", "--socket", &agent.socket]).args(filter);
        command.stdout(std::fs::File::create(&file).expect("a file"));
        let watchers = agent.status().watchers;
        let process = spawn(host, &mut command);
        agent.wait_for_watchers(watchers + 1);
        Watch { process, file }
    }

    pub(crate) fn has(&self, words: &[&str]) -> bool {
        let text = std::fs::read_to_string(&self.file).expect("what watch wrote");
        text.lines().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A third host, to which the server's host routes.
pub(crate) struct Far {
    pub(crate) namespace: Namespace,
    keeper: Child,
}

impl Far {
    pub(crate) fn behind(lab: &Lab) -> Far {
        let namespace = Namespace::new().expect("a namespace");
        // The command `ip` finds a namespace by a process in it.
        let keeper =
            namespace.run(|| Command::new("sleep").arg("600").spawn()).expect("namespace").expect("sleep");
        let id = keeper.id();
        let far = Far { namespace, keeper };
        sysctl(&lab.server, "ip_forward", "1");
        run(&lab.server, &format!("ip link add far type veth peer name near netns {id}"));
        run(&lab.server, "ip address add 10.9.1.2/24 dev far");
        run(&lab.server, "ip link set far up");
        run(&lab.client, "ip route add 10.9.1.0/24 via 10.9.0.2");
        for line in [
            "ip address add 10.9.1.3/24 dev near",
            "ip link set near up",
            "ip route add default via 10.9.1.2",
        ] {
            let mut words = line.split(' ');
            let mut command = Command::new(words.next().expect("a program"));
            command.args(words);
            let status = far.namespace.run(|| command.status()).expect("namespace").expect(line);
            assert!(status.success(), "{line}");
        }
        // A port without a listener answers as soon as packets pass.
        until("packets pass", || {
            let near = SocketAddr::from(([10, 9, 1, 3], 1));
            let answer = lab
                .client
                .run(|| TcpStream::connect_timeout(&near, Duration::from_millis(300)))
                .expect("namespace");
            answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        far
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Connects from this port of the caller's namespace, even if it is in TIME-WAIT; `None` for any port.
pub(crate) fn connect_from(port: Option<u16>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(port) = port {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
    }
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Sends an empty segment from a host, with numbers that nobody has agreed on unless `change` sets others.
pub(crate) fn inject(host: &Host, (from, to): (SocketAddr, SocketAddr), change: impl FnOnce(&mut TcpHeader)) {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { panic!("IPv4 only") };
    let mut header = TcpHeader::new(from.port(), to.port(), FORGED, 1000);
    header.acknowledgment_number = FORGED;
    change(&mut header);
    header.checksum =
        header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &[]).expect("a sum");
    let raw = host.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)));
    let raw = raw.expect("namespace").expect("a raw socket");
    raw.send_to(&header.to_bytes(), &SocketAddr::new(to.ip(), 0).into()).expect("sending");
}

/// No connection of the tests has this number in its window, save by a chance of one in 10,000.
const FORGED: u32 = 7;
