//! Real programs and real traffic: nginx on one host, curl and wrk on the other. finwait's states and
//! counters equal those of both kernels, and after 2MSL no connection is left.

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::nginx::{LARGE, Nginx};
use common::oracle::{self, End};
use common::{Agent, FINWAIT, call, fresh_folder, spawn, transitions, until, until_within};
use finwait::lab::{Family, Lab};
use tcp_common::State;

/// Runs both in parallel, because each waits for the whole TIME-WAIT.
#[test]
#[ignore = "needs root"]
fn finwait_agrees_with_both_kernels_by_xdp_and_by_tc() {
    thread::scope(|scope| {
        let [xdp, tc] = ["xdp", "tc"].map(|ingress| scope.spawn(move || agrees(ingress)));
        let outcomes = [("xdp", xdp.join()), ("tc", tc.join())];
        let failed: Vec<_> =
            outcomes.iter().filter(|(_, outcome)| outcome.is_err()).map(|(name, _)| name).collect();
        assert!(failed.is_empty(), "see above; by {failed:?}");
    });
}

fn agrees(ingress: &str) {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let name = format!("traffic-{ingress}");
    let interface = lab.server.interface;
    let agent = Agent::start(&lab, &name, &["--ingress", ingress, "-i", interface, "--max-flows", "131072"]);
    let nginx = Nginx::start(&lab.server, &fresh_folder(&name));
    let traffic = Traffic { lab: &lab, agent: &agent, ingress };
    let unwatched = traffic.unwatched_packets();
    let families = lab.families();
    let webs: Vec<_> = families.map(|family| Web { traffic: &traffic, family }).collect();
    for web in &webs {
        web.one_request_a_connection();
        web.many_requests_a_connection();
        web.large_bodies();
        web.a_closed_port();
        web.connections_that_stay(&nginx);
    }
    for web in &webs {
        web.load();
    }
    drop(nginx);
    traffic.compare("nginx has ended");
    traffic.explain_every_packet(unwatched);
    traffic.wait_for_the_end_of_time_wait();
    traffic.compare_totals();
}

/// The traffic in one lab.
struct Traffic<'a> {
    lab: &'a Lab,
    agent: &'a Agent<'a>,
    ingress: &'a str,
}

impl Traffic<'_> {
    /// Waits until neither the kernels nor finwait change, then asserts that both list equal ends.
    fn compare(&self, when: &str) -> Vec<End> {
        let look = || Some((oracle::ends(self.lab)?, oracle::ends_of(&self.agent.connections())));
        let mut seen = look();
        until("the hosts are quiet", || {
            thread::sleep(QUIET);
            let before = std::mem::replace(&mut seen, look());
            seen.is_some() && before == seen
        });
        let (kernels, ours) = seen.expect("a quiet moment");
        let only = |these: &[End], those: &[End]| -> Vec<End> {
            these.iter().filter(|end| those.binary_search(end).is_err()).copied().collect()
        };
        assert!(
            kernels == ours,
            "{}, {when}: {} ends; only in the kernels: {:#?}, only in finwait: {:#?}",
            self.ingress,
            kernels.len(),
            only(&kernels, &ours),
            only(&ours, &kernels)
        );
        call(&self.lab.server, FINWAIT, &["audit", "--socket", &self.agent.socket]);
        println!("{}, {when}: {} ends agree", self.ingress, kernels.len());
        kernels
    }

    /// Returns the number of packets that passed before the agent was attached.
    fn unwatched_packets(&self) -> u64 {
        self.at_rest(|| oracle::interface_packets(&self.lab.server) - self.agent.stats().packets_seen)
    }

    /// Queries a number until two results in a row are equal.
    fn at_rest(&self, ask: impl Fn() -> u64) -> u64 {
        let mut answer = ask();
        until("the numbers rest", || {
            thread::sleep(QUIET);
            let before = std::mem::replace(&mut answer, ask());
            before == answer
        });
        answer
    }

    fn explain_every_packet(&self, unwatched: u64) {
        let missed = self.at_rest(|| {
            oracle::interface_packets(&self.lab.server) - unwatched - self.agent.stats().packets_seen
        });
        assert_eq!(missed, 0, "packets that the interface counted and no program ran for");
        let stats = self.agent.stats();
        let ignored: u64 = stats.packets_ignored.values().sum();
        assert_eq!(stats.packets_seen, stats.packets_tracked + ignored);
        // Only ARP and ICMPv6 also pass on this link.
        let unexpected: Vec<_> = stats
            .packets_ignored
            .iter()
            .filter(|(reason, count)| **count > 0 && reason.as_str() != "not_tcp")
            .collect();
        assert!(unexpected.is_empty(), "{}: ignored for {unexpected:?}", self.ingress);
        assert_eq!((stats.events_lost, stats.resyncs), (0, 0));
        println!(
            "{}: {} packets, {ignored} not TCP, {} deferred",
            self.ingress, stats.packets_seen, stats.deferred
        );
    }

    fn wait_for_the_end_of_time_wait(&self) {
        let limit = Duration::from_secs(300);
        until_within(limit, "the kernels have no connection left", || {
            thread::sleep(Duration::from_secs(1));
            oracle::ends(self.lab).is_some_and(|ends| ends.is_empty())
        });
        until("finwait lists none", || self.lists_nothing(&["ls", "-o", "ndjson"]));
        until_within(limit, "finwait has forgotten them", || {
            self.lists_nothing(&["ls", "--all", "-o", "ndjson"])
        });
    }

    fn lists_nothing(&self, command: &[&str]) -> bool {
        let output = self.agent.cli(command);
        output.stdout.is_empty() && output.status.code() == Some(1)
    }

    /// Compares the numbers of TIME-WAITs. Linux counts those that ran out, and among them orphans in FIN-WAIT-2
    /// (`tcp_time_wait`), which a RST may end. A failure also shows the TIME-WAITs that a RST ended.
    fn compare_time_waits(&self) {
        // Read first, because the scrape itself is a connection over `lo`.
        let hosts = [("remote", "local", &self.lab.client), ("local", "remote", &self.lab.server)];
        let counted = hosts.map(|(side, peer, host)| (side, peer, oracle::counter(host, "TcpExt", "TW")));
        let page = self.agent.scrape();
        for (side, peer, kernel) in counted {
            let entered = transitions(&page, side, None, State::TimeWait);
            let reset = transitions(&page, side, Some(State::FinWait2), State::Closed);
            let ended_by_rst = time_waits_ended_by_rst(&page, peer);
            assert!(
                (entered..=entered + reset).contains(&kernel),
                "{}, {side}: {kernel} TIME-WAIT sockets; in finwait {entered} ends in TIME-WAIT, {ended_by_rst} of them \
                 ended by a RST, {reset} from FIN-WAIT-2 to CLOSED",
                self.ingress
            );
        }
    }

    /// Compares the kernels' counters, which began with their namespaces, with finwait's.
    fn compare_totals(&self) {
        let [client, server] = [&self.lab.client, &self.lab.server];
        let stats = self.agent.stats();
        let opened: u64 = stats.opened["server"].values().sum();
        let closed: u64 = stats.closed.values().flat_map(|closers| closers.values()).sum();
        assert_eq!(stats.opened["client"].values().sum::<u64>(), 0);
        assert_eq!(opened, oracle::counter(server, "Tcp", "PassiveOpens"), "opened");
        assert_eq!(closed, oracle::counter(client, "Tcp", "ActiveOpens"), "closed: {:#?}", stats.closed);
        self.compare_time_waits();
        for (direction, host) in [("ingress", client), ("egress", server)] {
            let resets = oracle::counter(host, "Tcp", "OutRsts");
            assert_eq!(stats.segments[direction]["rst"], resets, "RSTs, {direction}");
        }
        println!("{}: {opened} opened, {closed} closed, TIME-WAITs {:?}", self.ingress, stats.time_wait);
    }
}

/// The web server by IPv4 or IPv6, with its clients.
struct Web<'a> {
    traffic: &'a Traffic<'a>,
    family: Family,
}

impl Web<'_> {
    fn one_request_a_connection(&self) {
        let opened = self.opened();
        for _ in 0..3 {
            self.curl(&["--header", "Connection: close", &self.url("/small")]);
            self.curl(&[&self.url("/small")]);
        }
        self.compare("six curls");
        self.wait_for_opens(opened, 6);
    }

    fn many_requests_a_connection(&self) {
        let opened = self.opened();
        let urls = vec![self.url("/small"); 5];
        self.curl(&urls.iter().map(String::as_str).collect::<Vec<_>>());
        self.compare("one curl, five requests");
        self.wait_for_opens(opened, 1);
    }

    fn large_bodies(&self) {
        let opened = self.opened();
        let body = self.curl(&[&self.url("/large")]);
        assert_eq!(body.len(), LARGE);
        let file = fresh_folder(&format!("upload-{}", self.traffic.ingress)).join("file");
        std::fs::write(&file, &body).expect("writing a file");
        self.curl(&["--upload-file", &file.to_string_lossy(), &self.url("/upload/file")]);
        self.compare("8 MB down, 8 MB up");
        self.wait_for_opens(opened, 2);
    }

    fn a_closed_port(&self) {
        let opened = self.opened();
        let mut curl = self.curl_command(&[&format!("http://{}/", self.server(CLOSED_PORT))]);
        let refused = spawn(&self.traffic.lab.client, &mut curl).wait().expect("waiting for curl");
        assert_eq!(refused.code(), Some(7), "curl's code for a refused connection");
        self.compare("a refused connection");
        self.wait_for_opens(opened, 0);
    }

    fn load(&self) {
        for keep_alive in [true, false] {
            let (opened, passive) = (self.opened(), self.passive_opens());
            let mut wrk = Command::new("wrk");
            wrk.args(["--threads", "2", "--connections", "16", "--duration", "1s"]);
            if !keep_alive {
                wrk.args(["--header", "Connection: close"]);
            }
            wrk.arg(self.url("/small")).stdout(Stdio::null());
            let status = spawn(&self.traffic.lab.client, &mut wrk).wait().expect("waiting for wrk");
            assert!(status.success(), "wrk: {status}");
            self.compare(if keep_alive { "wrk, keep-alive" } else { "wrk, no keep-alive" });
            self.wait_for_opens(opened, self.passive_opens() - passive);
        }
    }

    /// Compares uploads while they wait for data, while nginx is stopped, and after they have ended.
    fn connections_that_stay(&self, nginx: &Nginx) {
        let opened = self.opened();
        let mut uploads: Vec<_> = (0..4).map(|number| self.begin_upload(number)).collect();
        let count = |ends: &[End], state| ends.iter().filter(|end| end.is(state)).count();
        self.wait_for_opens(opened, 4);
        let open = self.compare("four uploads wait for data");
        assert_eq!(count(&open, State::Established), 8);

        let frozen = nginx.freeze();
        let killed = uploads.pop().expect("an upload");
        end(killed, |upload| upload.kill().expect("killing curl"));
        let unread = self.begin_upload(4);
        self.wait_for_opens(opened, 5);
        let states = self.compare("nginx does not run, one curl was killed, another came");
        assert_eq!(count(&states, State::CloseWait), 1);
        assert_eq!(count(&states, State::FinWait2), 1);
        drop(frozen);

        uploads.push(unread);
        for upload in uploads {
            // curl ends when its input ends.
            end(upload, |upload| drop(upload.stdin.take()));
        }
        let over = self.compare("the uploads are over");
        assert_eq!(count(&over, State::Established), 0);
        self.wait_for_opens(opened, 5);
    }

    fn begin_upload(&self, number: usize) -> Child {
        let url = self.url(&format!("/upload/{number}"));
        let mut curl = self.curl_command(&["--upload-file", "-", &url]);
        spawn(&self.traffic.lab.client, curl.stdin(Stdio::piped()))
    }

    fn compare(&self, when: &str) -> Vec<End> {
        self.traffic.compare(&format!("{:?}, {when}", self.family))
    }

    /// Waits until finwait has counted `count` opens more than `before`. An event that finds its flow locked
    /// leaves the count to the scan, which runs once a second. Opens counted twice show in the totals.
    fn wait_for_opens(&self, before: u64, count: u64) {
        until(&format!("{count} opens are counted"), || self.opened() - before == count);
    }

    /// Returns finwait's number of opens in this family.
    fn opened(&self) -> u64 {
        let family = match self.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        self.traffic.agent.stats().opened["server"][family]
    }

    /// Returns the number of opens of the server's kernel in both families.
    fn passive_opens(&self) -> u64 {
        oracle::counter(&self.traffic.lab.server, "Tcp", "PassiveOpens")
    }

    fn curl(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = self.curl_command(arguments);
        let curl = spawn(&self.traffic.lab.client, command.stdout(Stdio::piped()));
        let output = curl.wait_with_output().expect("waiting for curl");
        assert!(output.status.success(), "{command:?}: {}", output.status);
        output.stdout
    }

    fn curl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--fail", "--http1.1", "--noproxy", "*"])
            .args(arguments)
            .stdout(Stdio::null());
        command
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server(80))
    }

    fn server(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.traffic.lab.server.address(self.family), port)
    }
}

/// Ends a program and waits for its exit.
fn end(mut process: Child, how: impl FnOnce(&mut Child)) {
    how(&mut process);
    process.wait().expect("waiting for a program");
}

/// No server listens there.
const CLOSED_PORT: u16 = 9;
/// Long compared with a round trip, the delayed ACK (40 ms) and the agent's loop (5 ms).
const QUIET: Duration = Duration::from_millis(200);

/// Returns the number of TIME-WAITs that a RST ended, by the side that the metric gives as its origin.
fn time_waits_ended_by_rst(page: &str, origin: &str) -> u64 {
    let series = format!("finwait_resets_total{{reason=\"time_wait_assassination\",origin=\"{origin}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series)).expect("the series");
    value.parse().expect("a count")
}
