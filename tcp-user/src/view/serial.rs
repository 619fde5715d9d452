//! How values of other crates are written in the records.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tcp_common::{CloseKind, State};

/// A value of `tcp-common` that has a name in machine output.
pub(crate) trait Named: Copy + 'static {
    /// What the value is, for messages.
    const WHAT: &'static str;

    /// Every value.
    fn all() -> impl Iterator<Item = Self>;

    /// The name in machine output.
    fn word(self) -> &'static str;
}

impl Named for State {
    const WHAT: &'static str = "state";

    fn all() -> impl Iterator<Item = Self> {
        State::ALL.into_iter()
    }

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Named for CloseKind {
    const WHAT: &'static str = "close kind";

    fn all() -> impl Iterator<Item = Self> {
        CloseKind::ALL.into_iter()
    }

    fn word(self) -> &'static str {
        self.name()
    }
}

/// `schemars(with)`: the schema of a [`Named`] value that is written by its name.
pub(crate) struct ByName<T>(PhantomData<T>);

impl<T: Named> JsonSchema for ByName<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::WHAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": T::all().map(T::word).collect::<Vec<_>>() })
    }
}

/// `serde(with)`: a [`Named`] value by its name.
pub(crate) mod by_name {
    use super::*;

    pub(crate) fn serialize<T: Named, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.word())
    }

    pub(crate) fn deserialize<'de, T: Named, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        T::all()
            .find(|value| value.word() == word)
            .ok_or_else(|| de::Error::custom(format_args!("unknown {} `{word}`", T::WHAT)))
    }

    /// The same where the value may be unknown.
    pub(crate) mod option {
        use super::*;

        #[derive(Deserialize)]
        #[serde(bound = "T: Named")]
        struct Name<T: Named>(#[serde(with = "super")] T);

        pub(crate) fn serialize<T: Named, S: Serializer>(
            value: &Option<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            value.map(T::word).serialize(serializer)
        }

        pub(crate) fn deserialize<'de, T: Named, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<T>, D::Error> {
            Ok(Option::<Name<T>>::deserialize(deserializer)?.map(|Name(value)| value))
        }
    }
}

/// `serde(with)`: a value as the text that it prints and parses.
pub(crate) mod by_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `serde(with)`: the state of an end by its name, or `null` for [`State::Unknown`].
pub(crate) mod known_state {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
        by_name::option::serialize(&Some(*state).filter(|&state| state != State::Unknown), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
        Ok(by_name::option::deserialize(deserializer)?.unwrap_or(State::Unknown))
    }
}

/// `serde(with)`: a moment as RFC 3339 in UTC, always with six digits of a second.
pub(crate) mod micros {
    use super::*;
    use jiff::Timestamp;

    pub(crate) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{at:.6}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(deserializer)
    }

    /// The same where the moment may be unknown.
    pub(crate) mod option {
        use super::*;

        #[derive(Serialize)]
        struct Micros<'a>(#[serde(with = "super")] &'a Timestamp);

        pub(crate) fn serialize<S: Serializer>(
            at: &Option<Timestamp>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            at.as_ref().map(Micros).serialize(serializer)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            Option::deserialize(deserializer)
        }
    }
}
