//! How long things may take, as the user says it: variables, then flags.

use std::time::Duration;

use shiplap_model::{Limit, Limits};

use crate::cli::{LimitArgs, duration};
use crate::exit::Exit;

/// `NAME=DURATION,…`, as `--limit` takes them.
const VARIABLE: &str = "SHIPLAP_LIMITS";
/// Short for `lease=…` in the other one.
const LEASE_VARIABLE: &str = "SHIPLAP_LEASE_TTL";
/// Below it a lease would be lost to a busy disk: a renewal is a write that is synced.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// The limits of commands that have no flags for them.
pub fn from_environment() -> Result<Limits, Exit> {
    read(&|name| std::env::var(name).ok(), &[]).map_err(usage)
}

/// The limits of a command, given by the environment and, over it, by flags.
pub fn with(args: &LimitArgs) -> Result<Limits, Exit> {
    read(&|name| std::env::var(name).ok(), &args.limits).map_err(usage)
}

fn usage(message: String) -> Exit {
    eprintln!("error[usage]: {message}");
    Exit::Usage
}

fn read(
    variable: &dyn Fn(&str) -> Option<String>,
    flags: &[(Limit, Duration)],
) -> Result<Limits, String> {
    let mut limits = Limits::default();
    let of = |name: &'static str| move |error| format!("{name}: {error}");
    if let Some(all) = variable(VARIABLE) {
        for text in all.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let (limit, to) = pair(text).map_err(of(VARIABLE))?;
            limits.set(limit, to);
        }
    }
    if let Some(text) = variable(LEASE_VARIABLE) {
        limits.lease = duration(&text).map_err(of(LEASE_VARIABLE))?;
    }
    for (limit, to) in flags {
        limits.set(*limit, *to);
    }
    if limits.lease < SHORTEST_LEASE {
        return Err(format!("the limit `lease` must be at least {}s", SHORTEST_LEASE.as_secs()));
    }
    Ok(limits)
}

/// Reads `gate=90s`.
pub fn pair(text: &str) -> Result<(Limit, Duration), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form NAME=DURATION"))?;
    let limit = Limit::parse(name.trim()).map_err(|error| error.to_string())?;
    Ok((limit, duration(value.trim())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(
        all: &str,
        lease: Option<&str>,
        flags: &[(Limit, Duration)],
    ) -> Result<Limits, String> {
        let variable = |name: &str| match name {
            VARIABLE => Some(all.to_owned()),
            _ => lease.map(str::to_owned),
        };
        read(&variable, flags)
    }

    #[test]
    fn flags_win_over_variables() {
        let flags = [(Limit::Gate, Duration::from_secs(5))];
        let limits = limits("pull=20m, gate=90s", Some("3s"), &flags).unwrap();
        assert_eq!(limits.pull, Duration::from_secs(20 * 60));
        assert_eq!(limits.gate, Duration::from_secs(5));
        assert_eq!(limits.lease, Duration::from_secs(3));
        assert_eq!(limits.drain, Limits::default().drain);
    }

    #[test]
    fn what_is_wrong_is_said_with_where_it_stands() {
        let error = limits("gates=1s", None, &[]).unwrap_err();
        assert!(
            error.starts_with("SHIPLAP_LIMITS: there is no limit `gates`; these are: "),
            "{error}"
        );
        let error = limits("gate", None, &[]).unwrap_err();
        assert_eq!(error, "SHIPLAP_LIMITS: `gate` is not of the form NAME=DURATION");
        let error = limits("", Some("1ms"), &[]).unwrap_err();
        assert_eq!(error, "the limit `lease` must be at least 1s");
    }

    #[test]
    fn the_documentation_lists_the_limits_as_they_are() {
        let documented = include_str!("../../../docs/commands.md");
        let mut table = String::from("| limit | default | bounds |\n|---|---|---|\n");
        for limit in Limit::ALL {
            let default = shiplap_model::Span(Limits::default().get(limit));
            table.push_str(&format!("| `{limit}` | {default} | {} |\n", limit.bounds()));
        }
        assert!(documented.contains(&table), "docs/commands.md should have:\n{table}");
    }
}
