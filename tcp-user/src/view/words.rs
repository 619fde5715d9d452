//! The closed vocabularies of the records: each word once, for serde, for people and for programs.

/// Declares an enum whose variants are words: `name`, `ALL`, `FromStr`, `Display` and serde all speak the
/// same list.
macro_rules! string_enum {
    ($(#[$meta:meta])* $visibility:vis enum $name:ident ($what:literal) {
        $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, ::schemars::JsonSchema)]
        $visibility enum $name {
            $($(#[$variant_meta])* #[schemars(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            $visibility const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word in machine output.
            $visibility const fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::view::UnknownName;

            fn from_str(text: &str) -> Result<$name, Self::Err> {
                $name::ALL.iter().copied().find(|value| value.name() == text).ok_or_else(|| {
                    $crate::view::UnknownName {
                        found: text.to_owned(),
                        what: $what,
                        known: &[$($word),+],
                    }
                })
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let word = <::std::borrow::Cow<'de, str> as ::serde::Deserialize>::deserialize(deserializer)?;
                word.parse().map_err(::serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use string_enum;

/// A word outside a closed vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{found}`, expected one of: {}", .known.join(", "))]
pub struct UnknownName {
    /// What was found.
    pub found: String,
    /// What it should have been.
    pub what: &'static str,
    /// The words there are.
    pub known: &'static [&'static str],
}

string_enum! {
    /// The IP version.
    pub enum Family ("address family") {
        /// IPv4.
        Ipv4 = "ipv4",
        /// IPv6.
        Ipv6 = "ipv6",
    }
}

string_enum! {
    /// One end, by its role in the connection.
    pub enum Role ("side") {
        /// The end that sent the first SYN; guessed where the beginning was not seen.
        Client = "client",
        /// The other one.
        Server = "server",
    }
}

string_enum! {
    /// One end or both.
    pub enum Roles ("end") {
        /// The client.
        Client = "client",
        /// The server.
        Server = "server",
        /// Both.
        Both = "both",
    }
}

string_enum! {
    /// Who sent the first SYN.
    pub enum Opener ("opener") {
        /// The client.
        Client = "client",
        /// The end called server: the roles had been guessed before its SYN was seen.
        Server = "server",
        /// Both: a simultaneous open.
        Both = "both",
        /// The open was not seen: client and server are guesses.
        Unknown = "unknown",
    }
}

string_enum! {
    /// Whose FINs were seen.
    pub enum Fins ("set of FINs") {
        /// Of neither end.
        None = "none",
        /// The client's.
        Client = "client",
        /// The server's.
        Server = "server",
        /// Both ends'.
        Both = "both",
    }
}

string_enum! {
    /// How a TIME-WAIT ended.
    pub enum TimeWaitEnding ("end of a TIME-WAIT") {
        /// 2MSL passed.
        Expired = "expired",
        /// The next incarnation began.
        Reused = "reused",
        /// A RST of the peer ended it (RFC 1337).
        Assassinated = "assassinated",
        /// Its holder answered a FIN by a RST: it had lost its TIME-WAIT.
        StateLost = "state_lost",
        /// A check found no socket for it any more.
        SocketGone = "socket_gone",
        /// It was evicted from the flow table. It may go on.
        Evicted = "evicted",
    }
}

string_enum! {
    /// What shows that a connection goes on after a RST that was accepted.
    pub enum ReopenReason ("reason") {
        /// An end acknowledged bytes that the other had sent after the RST.
        DataAcknowledged = "data_acknowledged",
        /// A check found the socket of an end alive.
        SocketAlive = "socket_alive",
    }
}

string_enum! {
    /// How far a record can be trusted.
    pub enum Confidence ("confidence") {
        /// Everything was seen.
        Exact = "exact",
        /// The capture has holes.
        Gap = "gap",
        /// The beginning was not seen, so client and server are guesses.
        Midstream = "midstream",
        /// Only one direction was seen.
        OneWay = "one_way",
    }
}

string_enum! {
    /// What carries the packets of a connection, outermost, if it is not the link layer.
    pub enum Tunnel ("tunnel") {
        /// IPv4 in IPv4 (RFC 2003).
        Ipip = "ipip",
        /// IPv6 in IPv4 (RFC 4213).
        SixInFour = "6in4",
        /// IPv4 in IPv6 (RFC 2473).
        FourInSix = "4in6",
        /// IPv6 in IPv6 (RFC 2473).
        SixInSix = "6in6",
        /// GRE (RFC 2784), with IP, Ethernet or PPP inside.
        Gre = "gre",
        /// A mirrored frame in GRE: ERSPAN type I, II or III.
        Erspan = "erspan",
        /// MPLS labels (RFC 3032), with IP or a pseudowire.
        Mpls = "mpls",
        /// A PPPoE session (RFC 2516).
        Pppoe = "pppoe",
        /// VXLAN (RFC 7348), to UDP port 4789 or 8472.
        Vxlan = "vxlan",
        /// GENEVE (RFC 8926), to UDP port 6081.
        Geneve = "geneve",
        /// User data of GTP (3GPP TS 29.281), to UDP port 2152.
        GtpU = "gtp_u",
        /// Teredo (RFC 4380), at UDP port 3544.
        Teredo = "teredo",
    }
}

impl Role {
    /// The end that is not this one.
    pub const fn peer(self) -> Role {
        match self {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        }
    }
}

impl From<Role> for Roles {
    fn from(side: Role) -> Roles {
        match side {
            Role::Client => Roles::Client,
            Role::Server => Roles::Server,
        }
    }
}

impl Roles {
    /// The one end, unless it is both.
    pub const fn one(self) -> Option<Role> {
        match self {
            Roles::Client => Some(Role::Client),
            Roles::Server => Some(Role::Server),
            Roles::Both => None,
        }
    }
}
