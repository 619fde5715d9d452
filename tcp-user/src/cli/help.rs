//! Help texts below the options: the filter language, examples, exit status.

macro_rules! filter {
    () => {
        "\
FILTER:
  state NAME                  one end is in this state: time-wait, TIME_WAIT, or
                              a group of ss: connected, synchronized, bucket, big;
                              unknown: nothing was seen of the end
  client state NAME           this end is; also server, local, remote
  exclude NAME                neither end is in this state
  src ADDR[/LEN][:PORT]       the local end; dst is the remote end; also client,
                              server, local, remote. fe80::1%eth0 has the
                              interface of a link-local address. With NAT an
                              address or port matches before and after the
                              translation
  ADDR[/LEN][:PORT]           either end; also host ADDR
  dport OP :PORT              also sport, and port for either end; OP is one of
                              = != < <= > >= or eq ne lt le gt ge. A port may
                              be the name of a service: :https
  dport in PORT,PORT-PORT     one of these; also sport and port
  closer WHO                  the end whose FIN came first: client, server, both,
                              local, remote, none
  aborter WHO                 the end whose RST ended it
  opener WHO                  the end that sent the first SYN, or unknown
  holder WHO                  the end in TIME-WAIT
  kind KIND                   how it closed: fin_4seg, fin_3seg, simultaneous,
                              half_close, rst_abort, rst_after_fin, refused,
                              unreachable, syn_abort, syn_timeout, timeout,
                              superseded, unseen; open: neither end has begun to
                              close; closing: the close has begun and is not
                              complete
  reset CLASS                 why it was reset: refused, refused_icmp, syn_abort,
                              queue_full, abort, abort_unread, after_fin,
                              half_open, state_lost, refuted,
                              time_wait_assassination; abort_or_unread,
                              queue_full_or_half_open: one of the two; ignored: a
                              RST was not accepted
  age OP DURATION             time since the first SYN: age gt 30s
  idle OP DURATION            time since the last segment: idle ge 5m
  handshake OP DURATION       time until both ends were ESTABLISHED
  bytes OP SIZE               payload of both ends: bytes gt 1MB
  process NAME|PID            the owner of the local socket; `*` in a name
                              stands for any text. Also pid PID
  interface NAME              where the connection was first seen
  vlan ID                     one of its packets' VLAN tags has this id
  id HEX                      the connection with this id
  family ipv4|ipv6
  confidence WORD             exact, gap, midstream, one_way
  and or not ( ) && || !      two tests without a word between them: and. Quote
                              what the shell interprets: ( ) < > ! & |

`finwait glossary` explains these words."
    };
}

macro_rules! ls {
    () => {
        "\
Examples:
  finwait ls state time-wait and dst 10.0.0.0/8 and dport = :443
  finwait ls 'local state close-wait and idle > 5m' -o json
  finwait ls closer remote or kind rst_abort"
    };
}

macro_rules! why {
    () => {
        "\
Examples:
  finwait why :43210
  finwait why 10.0.0.5:443 -o json
  finwait why dst 10.0.0.0/8 and state close-wait"
    };
}

macro_rules! ports {
    () => {
        "\
Examples:
  finwait ports
  finwait ports --sort=-opening --limit 5
  finwait ports -o json"
    };
}

macro_rules! history {
    () => {
        "\
Examples:
  finwait history --since 2h closer remote
  finwait history --since 2026-12-01 kind refused -o csv
  finwait history --sql 'SELECT close_kind, count(*) FROM connections GROUP BY 1'"
    };
}

macro_rules! watch {
    () => {
        "\
Examples:
  finwait watch dport = :443
  finwait watch aborter remote -o ndjson"
    };
}

macro_rules! replay {
    () => {
        "\
Examples:
  finwait replay capture.pcapng
  finwait replay capture.pcap --events kind rst_after_fin
  tcpdump -U -w - -i eth0 tcp | finwait replay - --events -o ndjson"
    };
}

macro_rules! audit {
    () => {
        "\
Examples:
  finwait audit
  finwait audit local state fin-wait -o json
  finwait audit --conntrack"
    };
}

pub(super) const LS: &str = ls!();
pub(super) const LS_LONG: &str = concat!(filter!(), "\n\n", ls!());
pub(super) const WHY: &str = why!();
pub(super) const WHY_LONG: &str = concat!(filter!(), "\n\n", why!());
pub(super) const PORTS: &str = ports!();
pub(super) const PORTS_LONG: &str = concat!(
    "\
Columns:
  Live        ports of connections that are not in TIME-WAIT
  TimeWait    ports of connections in TIME-WAIT
  Free        ports that connect() can choose from at this moment
  Opening/s   connections opened per second
  Expiring/s  ports that TIME-WAIT gives back per second, in the next 10 s
  Left        time until no port is free, if this goes on; - if the ports
              suffice for a day
  Also with -o wide:
  Reusable    TIME-WAITs that connect() may take (tcp_tw_reuse)
  Capacity    ports that connect() could have for this destination
  Releasing/s connections closed per second without a TIME-WAIT at this end

Reserved ports and ports that bind() took are free for no destination.

Keys of --sort: local, remote, live, time_wait, free, opening, expiring, left

",
    ports!()
);
pub(super) const HISTORY: &str = history!();
pub(super) const HISTORY_LONG: &str = concat!(filter!(), "\n\n", history!());
pub(super) const WATCH: &str = watch!();
pub(super) const WATCH_LONG: &str = concat!(filter!(), "\n\n", watch!());
pub(super) const AUDIT_LONG: &str = concat!(filter!(), "\n\n", audit!());
pub(super) const REPLAY: &str = replay!();
pub(super) const REPLAY_LONG: &str = concat!(filter!(), "\n\n", replay!());

pub(super) const DOCTOR: &str = "\
Examples:
  finwait doctor
  finwait doctor --lasting 10m -o json
  finwait doctor capture.pcap";

pub(super) const RUN: &str = "\
Examples:
  finwait run
  finwait run -i eth0 -i eth1 --listen :9817
  finwait run --timeout close_wait=2h --timeout fin_wait=never
  finwait run --ingress tc --dry-run

A configuration file:
  interface = [\"eth0\", \"eth1\"]
  listen = \"127.0.0.1:9817\"
  max-flows = 1048576
  msl = \"30s\"
  [timeout]
  close_wait = \"2h\"";

pub(super) const EXIT_STATUS: &str = "\
Exit status:
  0  success
  1  nothing found, or a difference
  2  usage or configuration error
  3  agent not reachable
  4  not permitted, or not supported on this system
  5  any other failure";
