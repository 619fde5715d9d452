//! The configuration file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Deserializer, de};

use super::machine::{self, MachineArgs, Timeout};
use super::run::{MAX_FLOWS, RunArgs};

/// What is wrong with the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("reading the configuration file {}: {source}. Name another one with --config", path.display())]
    Unreadable {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is a mistake in it.
    #[error("{}, line {line}: {message}: `{text}`", path.display())]
    Mistake {
        /// Where the file is.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
        /// What it says.
        text: String,
    },
}

impl ConfigError {
    fn at(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let index = before.matches('\n').count();
        ConfigError::Mistake {
            path: path.into(),
            line: index + 1,
            message: error.message().replace('\n', ", "),
            text: text.lines().nth(index).unwrap_or_default().trim().to_owned(),
        }
    }
}

/// Reads the file. Its keys are the names of the options.
pub(super) fn read(path: &Path) -> Result<RunArgs, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
    parse_config(path, &text)
}

/// Reads the text of the file that lies at `path`.
pub fn parse_config(path: &Path, text: &str) -> Result<RunArgs, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| ConfigError::at(path, text, &error))?;
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
