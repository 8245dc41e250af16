//! Flags of `serve` from the environment and from a file.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::builder::OsStr;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use super::Cli;

const SERVE: &str = "serve";
const FILE: &str = "config";

/// The command line as it is, which help, completions and manual pages are of.
pub(crate) fn command() -> Command {
    Cli::command().mut_subcommand(SERVE, |serve| serve.mut_args(from_environment))
}

/// Gives a flag a variable of its own name, where it has no other. One that is empty is as good as not set.
fn from_environment(flag: clap::Arg) -> clap::Arg {
    let Some(name) = flag.get_long().filter(|_| flag.get_env().is_none()) else { return flag };
    let variable = format!("VOXTRAL_SERVE_{}", name.replace('-', "_").to_uppercase());
    let is_empty = std::env::var_os(&variable).is_some_and(|value| value.is_empty());
    if is_empty { flag } else { flag.env(OsStr::from(variable)) }
}

/// What was typed, with what the environment and a file say where nothing was.
///
/// # Errors
/// What [`clap::Error`] says of the command line; or what is wrong with the file.
pub(crate) fn parse() -> anyhow::Result<Cli> {
    let mut line: Vec<OsString> = std::env::args_os().collect();
    let mut matches = command().try_get_matches_from(&line)?;
    if let Some((SERVE, serve)) = matches.subcommand()
        && let Some(path) = serve.get_one::<PathBuf>(FILE)
    {
        line.extend(flags_of(path, serve).with_context(|| path.display().to_string())?);
        matches = match command().try_get_matches_from(&line) {
            Ok(matches) => matches,
            // The line was right without what the file says.
            Err(error) => {
                let rendered = error.to_string();
                let first = rendered.lines().next().unwrap_or_default();
                bail!("{}: {}", path.display(), first.strip_prefix("error: ").unwrap_or(first));
            }
        };
    }
    Ok(Cli::from_arg_matches(&matches)?)
}

/// The flags that a file adds to those that were given.
fn flags_of(path: &Path, given: &ArgMatches) -> anyhow::Result<Vec<OsString>> {
    let table: Table = fs::read_to_string(path)?.parse().context("it is not TOML")?;
    let command = command();
    let serve = command.find_subcommand(SERVE).context("there is no command to configure")?;
    let mut flags = Vec::new();
    for (key, value) in table {
        let known = |flag: &&clap::Arg| flag.get_long() == Some(&key) && key != FILE;
        let Some(flag) = serve.get_arguments().find(known) else {
            bail!(
                "there is no setting {key:?}: settings are called as the flags of voxtral serve, without the dashes before them"
            );
        };
        if matches!(given.value_source(flag.get_id().as_str()), None | Some(ValueSource::DefaultValue)) {
            flags.extend(flags_for(&key, &value)?.into_iter().map(OsString::from));
        }
    }
    Ok(flags)
}

/// The flags that say what a key of a file says.
fn flags_for(key: &str, value: &Value) -> anyhow::Result<Vec<String>> {
    Ok(match value {
        Value::Boolean(true) => vec![format!("--{key}")],
        Value::Boolean(false) => vec![],
        Value::String(text) => vec![format!("--{key}={text}")],
        Value::Integer(number) => vec![format!("--{key}={number}")],
        Value::Float(number) => vec![format!("--{key}={number}")],
        Value::Array(values) => {
            let flags: anyhow::Result<Vec<_>> = values.iter().map(|value| flags_for(key, value)).collect();
            flags?.concat()
        }
        Value::Datetime(_) | Value::Table(_) => bail!("{key} is not a value, or a list of values"),
    })
}
