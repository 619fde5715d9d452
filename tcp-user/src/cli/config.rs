//! The configuration file.

use super::machine::{self, MachineArgs, Timeout};
use super::run::{MAX_FLOWS, RunArgs};
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A mistake in the configuration file; names line and column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration file is not understood: {0}")]
pub struct ConfigError(String);

/// Reads the file's text. Its keys are the names of the options.
pub(super) fn parse(text: &str) -> Result<RunArgs, ConfigError> {
    let file: File =
        toml::from_str(text).map_err(|error| ConfigError(error.to_string().trim_end().to_owned()))?;
    Ok(RunArgs {
        interface: file.interface,
        listen: file.listen,
        socket: file.socket,
        ingress: file.ingress,
        max_flows: file.max_flows,
        user: file.user,
        audit_interval: file.audit_interval,
        machine: MachineArgs {
            msl: file.msl,
            rfc1337: file.rfc1337,
            tw_restart: file.tw_restart,
            timeouts: file.timeout,
        },
        config: None,
        dry_run: false,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "one_or_many")]
    interface: Vec<String>,
    listen: Option<SocketAddr>,
    socket: Option<PathBuf>,
    ingress: Option<super::Ingress>,
    #[serde(default, deserialize_with = "max_flows")]
    max_flows: Option<u32>,
    user: Option<String>,
    #[serde(default, deserialize_with = "audit_interval")]
    audit_interval: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    msl: Option<Duration>,
    rfc1337: Option<bool>,
    tw_restart: Option<super::TwRestart>,
    #[serde(default, deserialize_with = "timeouts")]
    timeout: Vec<Timeout>,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected the name of an interface or a list of names")]
    enum Names {
        One(String),
        Many(Vec<String>),
    }
    Names::deserialize(deserializer).map(|names| match names {
        Names::One(name) => vec![name],
        Names::Many(names) => names,
    })
}

fn max_flows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let value = u32::deserialize(deserializer)?;
    if MAX_FLOWS.contains(&value) {
        Ok(Some(value))
    } else {
        let (least, most) = MAX_FLOWS.into_inner();
        Err(de::Error::custom(format_args!("{value} is not in {least}..={most}")))
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    machine::limit(&text).map(Some).map_err(de::Error::custom)
}

fn audit_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    super::run::audit_interval(&text).map(Some).map_err(de::Error::custom)
}

fn timeouts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Timeout>, D::Error> {
    let table = BTreeMap::deserialize(deserializer)?;
    Timeout::table(&table).map_err(de::Error::custom)
}
