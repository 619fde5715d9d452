//! The configuration file: TOML whose keys are the names of the options.

use std::any::TypeId;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{Arg, ArgAction, Args as _, Command};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::{Options, Timeout};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration file {} (--config)", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It has a mistake.
    #[error("{}, line {line}: {message}: `{text}`", path.display())]
    Mistake {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// The text of the line.
        text: String,
    },
}

/// The settings of a configuration file, each checked by the parser of its option.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    settings: Vec<Setting>,
}

/// The values of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// clap's id of the option.
    id: String,
    values: Vec<String>,
}

impl ConfigFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        ConfigFile::parse(path, &text)
    }

    /// Parses the text of a file; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
        let source = Source { path, text };
        let table = DeTable::parse(text)
            .map_err(|error| source.mistake(error.span().unwrap_or_default(), error.message()))?;
        let mut settings = Vec::new();
        for (key, value) in table.get_ref() {
            let name: &str = key.get_ref();
            let option = find(name).ok_or_else(|| source.mistake(key.span(), &unknown(name)))?;
            let values = values_of(&option, value.get_ref()).ok_or_else(|| {
                source.mistake(key.span(), &format!("{name} cannot have a value of this type"))
            })?;
            for (value, span) in &values {
                let span = span.clone().unwrap_or(key.span());
                check(name, value).map_err(|message| source.mistake(span, &message))?;
            }
            settings.push(Setting {
                id: option.get_id().to_string(),
                values: values.into_iter().map(|(value, _)| value).collect(),
            });
        }
        Ok(ConfigFile { settings })
    }

    /// Makes the file's settings the defaults of the command's options.
    pub fn as_defaults(&self, command: Command) -> Command {
        self.settings.iter().fold(command, |command, setting| {
            command.mut_arg(&setting.id, |option| option.default_values(&setting.values))
        })
    }

    /// The timeouts of the file, for states that no other source names.
    pub fn timeouts(&self) -> Vec<Timeout> {
        let timeouts = self.settings.iter().filter(|setting| setting.id == "timeouts");
        timeouts.flat_map(|setting| &setting.values).filter_map(|value| value.parse().ok()).collect()
    }
}

/// The text of a file and where it is.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn mistake(&self, span: Range<usize>, message: &str) -> ConfigError {
        let index = self.text.get(..span.start).unwrap_or_default().matches('\n').count();
        ConfigError::Mistake {
            path: self.path.into(),
            line: index + 1,
            message: message.replace('\n', ", "),
            text: self.text.lines().nth(index).unwrap_or_default().trim().to_owned(),
        }
    }
}

/// Options that a file cannot set.
const COMMAND_LINE_ONLY: [&str; 2] = ["config", "dry-run"];

/// `finwait run` without the environment: a file is right or wrong by itself.
fn options() -> Command {
    let command = Options::augment_args(Command::new("finwait").no_binary_name(true));
    command.disable_help_flag(true).mut_args(|option| option.env(None::<&str>))
}

/// The option with this name, if a file can set it.
fn find(name: &str) -> Option<Arg> {
    let all = options();
    let mut settable = all.get_arguments().filter(|option| is_settable(option));
    settable.find(|option| option.get_long() == Some(name)).cloned()
}

fn is_settable(option: &Arg) -> bool {
    option.get_long().is_some_and(|name| !COMMAND_LINE_ONLY.contains(&name))
}

fn unknown(name: &str) -> String {
    let all = options();
    let known = all.get_arguments().filter(|option| is_settable(option)).filter_map(Arg::get_long);
    let known: Vec<_> = known.map(|known| format!("`{known}`")).collect();
    format!("unknown option `{name}`, expected one of {}", known.join(", "))
}

type Value = (String, Option<Range<usize>>);

/// A TOML value as the values of an option; `None` if options have no values of its type.
fn values_of(option: &Arg, value: &DeValue<'_>) -> Option<Vec<Value>> {
    match value {
        DeValue::Array(values) if matches!(option.get_action(), ArgAction::Append) => {
            let value_of = |value: &Spanned<DeValue<'_>>| {
                Some((scalar_of(option, value.get_ref())?, Some(value.span())))
            };
            values.iter().map(value_of).collect()
        }
        DeValue::Table(table) if option.get_long() == Some("timeout") => table
            .iter()
            .map(|(state, limit)| {
                let state: &DeString<'_> = state.get_ref();
                Some((format!("{state}={}", scalar(limit.get_ref())?), Some(limit.span())))
            })
            .collect(),
        value => Some(vec![(scalar_of(option, value)?, None)]),
    }
}

/// A TOML value as a value of an option. Names and paths are strings: `3` is more likely a mistake than the name "3".
fn scalar_of(option: &Arg, value: &DeValue<'_>) -> Option<String> {
    let of = option.get_value_parser().type_id();
    let is_text = of == TypeId::of::<String>() || of == TypeId::of::<PathBuf>();
    if is_text && !matches!(value, DeValue::String(_)) { None } else { scalar(value) }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Checks a value with the parser of its option.
fn check(name: &str, value: &str) -> Result<(), String> {
    let Err(error) = options().try_get_matches_from([format!("--{name}={value}")]) else { return Ok(()) };
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (message, _) = text.split_once("\n\nFor more information").unwrap_or((text, ""));
    Err(message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", "))
}
