//! Which addresses the legs have.

use super::*;
use crate::sockets::TrackedState;

fn socket(text: &str) -> std::net::SocketAddr {
    text.parse().expect("an address")
}

fn tracked(original: (&str, &str), reply: (&str, &str)) -> Tracked {
    Tracked {
        original: (socket(original.0), socket(original.1)),
        reply: (socket(reply.0), socket(reply.1)),
        state: TrackedState::Established,
    }
}

/// Whether this host has an address.
fn is_local(address: IpAddr) -> bool {
    ["10.1.0.2", "172.17.0.1"].map(|own| own.parse()).contains(&Ok(address))
}

impl Translations {
    fn learn(&self, tracked: &Tracked) -> Vec<(FlowKey, Leg)> {
        let legs: Vec<_> = Leg::on_the_wire(tracked, is_local).collect();
        self.legs.write().extend(legs.iter().copied());
        legs
    }
}

#[test]
fn local_is_where_the_sockets_are() {
    // Client and server of each connection: local or not.
    for (connection, expected) in [
        // A published port of a container.
        (tracked(("10.1.0.1:4", "10.1.0.2:80"), ("172.17.0.2:80", "10.1.0.1:4")), [false, false]),
        // The same, from this host.
        (tracked(("10.1.0.2:4", "10.1.0.2:80"), ("172.17.0.2:80", "172.17.0.1:4")), [true, false]),
        // Masquerade.
        (tracked(("172.17.0.2:4", "10.1.0.1:80"), ("10.1.0.1:80", "10.1.0.2:9")), [false, false]),
        // A port redirected to a socket of this host.
        (tracked(("10.1.0.1:4", "10.1.0.2:80"), ("10.1.0.2:8080", "10.1.0.1:4")), [false, true]),
    ] {
        let translations = Translations::default();
        for (key, leg) in translations.learn(&connection) {
            let local = translations.locality(&key, is_local).expect("a leg");
            let of_client_and_server = [local[leg.client as usize], local[leg.client.peer() as usize]];
            assert_eq!(of_client_and_server, expected, "{connection:?}");
        }
    }
}

#[test]
fn each_leg_leads_to_the_other() {
    let connection = tracked(("172.17.0.2:4", "10.1.0.1:80"), ("10.1.0.1:80", "10.1.0.2:9"));
    let [(original, near), (reply, far)] = Leg::on_the_wire(&connection, is_local).collect::<Vec<_>>()[..]
    else {
        panic!("two legs")
    };
    assert_eq!((near.other, far.other), (Some(reply), Some(original)));
    assert_eq!(far.socket_of(far.client), (socket("172.17.0.2:4"), socket("10.1.0.1:80")));
    assert_eq!(far.socket_of(far.client.peer()), (socket("10.1.0.1:80"), socket("10.1.0.2:9")));
}

#[test]
fn a_close_is_published_once() {
    let connection = tracked(("172.17.0.2:4", "10.1.0.1:80"), ("10.1.0.1:80", "10.1.0.2:9"));
    let translations = Translations::default();
    let [(original, near), (reply, far)] = translations.learn(&connection)[..] else { panic!("two legs") };
    assert!(translations.claim_close(&reply, &far));
    assert!(!translations.claim_close(&original, &near));
    // The next use of the same tuples.
    translations.learn(&connection);
    assert!(translations.claim_close(&original, &near));
}

#[test]
fn a_tuple_on_the_wire_belongs_to_the_connection_that_has_it_there() {
    // A container reaches another one by a published port, under the host's address and its own port. The host
    // connects from the same port: conntrack gives its connection another one.
    let container = tracked(("172.17.0.3:4", "10.1.0.2:8080"), ("172.17.0.2:80", "172.17.0.1:4"));
    let host = tracked(("172.17.0.1:4", "172.17.0.2:80"), ("172.17.0.2:80", "172.17.0.1:1024"));
    for order in [[&container, &host], [&host, &container]] {
        let translations = Translations::default();
        let legs: Vec<_> = order.into_iter().flat_map(|connection| translations.learn(connection)).collect();
        assert_eq!(legs.len(), 3);
        for (key, leg) in legs {
            assert_eq!(translations.leg(&key), Some(leg), "no leg has the key of another");
        }
        let (shared, client) = key(host.original);
        assert_eq!(translations.socket_of(&shared, client).map(|(own, _)| own), Some(socket("172.17.0.3:4")));
    }
}

#[test]
fn what_conntrack_does_not_translate_any_more_is_forgotten() {
    let translations = Translations::default();
    let masqueraded = tracked(("172.17.0.2:4", "10.1.0.1:80"), ("10.1.0.1:80", "10.1.0.2:9"));
    let [(key, _), _] = translations.learn(&masqueraded)[..] else { panic!("two legs") };
    assert!(translations.is_translated(&key));
    translations.forget(&key);
    assert!(!translations.is_translated(&key));
}
