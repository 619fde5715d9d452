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

#[test]
fn local_is_where_the_sockets_are() {
    let is_local = |address: IpAddr| ["10.1.0.2", "172.17.0.1"].map(|own| own.parse()).contains(&Ok(address));
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
        for (key, leg) in Leg::both(&connection) {
            translations.learn(&key, &connection);
            let local = translations.locality(&key, is_local).expect("a leg");
            let of_client_and_server = [local[leg.client as usize], local[leg.client.peer() as usize]];
            assert_eq!(of_client_and_server, expected, "{connection:?}");
        }
    }
}

#[test]
fn each_leg_leads_to_the_other() {
    let connection = tracked(("172.17.0.2:4", "10.1.0.1:80"), ("10.1.0.1:80", "10.1.0.2:9"));
    let [(original, near), (reply, far)] = Leg::both(&connection);
    assert_eq!((near.other(), far.other()), (reply, original));
    assert_eq!(far.socket_of(far.client), (socket("172.17.0.2:4"), socket("10.1.0.1:80")));
    assert_eq!(far.socket_of(far.client.peer()), (socket("10.1.0.1:80"), socket("10.1.0.2:9")));
}

#[test]
fn a_close_is_published_once() {
    let connection = tracked(("172.17.0.2:4", "10.1.0.1:80"), ("10.1.0.1:80", "10.1.0.2:9"));
    let translations = Translations::default();
    let [(original, near), (reply, far)] = Leg::both(&connection);
    translations.learn(&original, &connection);
    assert!(translations.claim_close(&reply, &far));
    assert!(!translations.claim_close(&original, &near));
    // The next use of the same tuples.
    translations.learn(&original, &connection);
    assert!(translations.claim_close(&original, &near));
}

#[test]
fn what_conntrack_does_not_translate_any_more_is_forgotten() {
    let translations = Translations::default();
    let masqueraded = tracked(("172.17.0.2:4", "10.1.0.1:80"), ("10.1.0.1:80", "10.1.0.2:9"));
    let [(key, _), _] = Leg::both(&masqueraded);
    translations.learn(&key, &masqueraded);
    assert!(translations.is_translated(&key));
    translations.learn(&key, &tracked(("172.17.0.2:4", "10.1.0.1:80"), ("10.1.0.1:80", "172.17.0.2:4")));
    assert!(!translations.is_translated(&key));
}
