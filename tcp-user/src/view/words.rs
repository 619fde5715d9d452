//! The closed vocabularies of the records: each word once, for serde, for people and for whoever parses them.

/// Declares an enum whose variants are words: `name`, `ALL`, `FromStr`, `Display` and serde all speak the same list.
macro_rules! words {
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
            type Err = $crate::view::UnknownWord;

            fn from_str(text: &str) -> Result<$name, Self::Err> {
                $name::ALL.iter().copied().find(|value| value.name() == text).ok_or_else(|| {
                    $crate::view::UnknownWord {
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
pub(crate) use words;

/// A word outside a closed vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{found}`, expected one of: {}", .known.join(", "))]
pub struct UnknownWord {
    /// What was found.
    pub found: String,
    /// What it should have been.
    pub what: &'static str,
    /// The words there are.
    pub known: &'static [&'static str],
}

words! {
    /// The IP version.
    pub enum Family ("address family") {
        /// IPv4.
        Ipv4 = "ipv4",
        /// IPv6.
        Ipv6 = "ipv6",
    }
}

words! {
    /// One end, by its role in the connection.
    pub enum Side ("side") {
        /// The end that sent the first SYN; guessed where the beginning was not seen.
        Client = "client",
        /// The other one.
        Server = "server",
    }
}

words! {
    /// One end or both.
    pub enum Who ("end") {
        /// The client.
        Client = "client",
        /// The server.
        Server = "server",
        /// Both.
        Both = "both",
    }
}

words! {
    /// Who sent the first SYN.
    pub enum Opener ("opener") {
        /// The client.
        Client = "client",
        /// The end called server: the roles had been guessed before its SYN was seen.
        Server = "server",
        /// Both: a simultaneous open.
        Both = "both",
        /// Nobody saw it: client and server are guesses.
        Unknown = "unknown",
    }
}

words! {
    /// Whose FINs were seen.
    pub enum Fins ("set of FINs") {
        /// Nobody's.
        None = "none",
        /// The client's.
        Client = "client",
        /// The server's.
        Server = "server",
        /// Both ends'.
        Both = "both",
    }
}

words! {
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

impl Side {
    /// The end that is not this one.
    pub const fn peer(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

impl From<Side> for Who {
    fn from(side: Side) -> Who {
        match side {
            Side::Client => Who::Client,
            Side::Server => Who::Server,
        }
    }
}

impl Who {
    /// The one end, unless it is both.
    pub const fn one(self) -> Option<Side> {
        match self {
            Who::Client => Some(Side::Client),
            Who::Server => Some(Side::Server),
            Who::Both => None,
        }
    }
}
