//! Why something did not begin.

use shiplap_compose::Diagnostic;
use shiplap_execute::app::{AppError, Source};
use shiplap_model::{EngineError, EngineErrorKind, LedgerError, Refusal};

use super::time;
use crate::exit::Exit;
use crate::ledger::Unusable;

/// Prints an error, with its place in the files where it has one, and what to type.
pub fn show(error: &AppError, source: Option<&Source>) {
    match error {
        AppError::Refused(refusals) => refused(refusals, source),
        AppError::LeaseHeld(held) => {
            let since = time::moment(held.since_ms);
            eprintln!(
                "error[lease-held]: {} is deploying {} since {since}",
                held.holder, held.scope
            );
            let left = time::span((held.expires_ms - shiplap_execute::now_ms()).max(0));
            eprintln!("  = help: wait for it; if it died its lease ends within {left}");
        }
        AppError::Engine(error) => engine(error),
        AppError::Router(error) => eprintln!("error[edge]: {}", chain(error)),
        AppError::Ledger(error) => ledger(error),
        AppError::Interrupted(reason) => {
            eprintln!("error[interrupted]: {reason}");
            eprintln!("nothing was changed");
        }
        AppError::History { message, help } => {
            eprintln!("error[history]: {message}");
            eprintln!("  = help: {help}");
        }
    }
}

fn refused(refusals: &[Refusal], source: Option<&Source>) {
    for refusal in refusals {
        let path: Vec<&str> = refusal.path.iter().map(String::as_str).collect();
        let place = source.and_then(|source| source.loaded.span(&path));
        let mut diagnostic = Diagnostic::error(refusal.code, refusal.message.clone()).at(place, "");
        if let Some(help) = &refusal.help {
            diagnostic = diagnostic.help(help.clone());
        }
        eprintln!("{diagnostic}");
    }
    eprintln!("nothing was changed");
}

fn engine(error: &EngineError) {
    let code = match error.kind {
        EngineErrorKind::Unreachable => "engine-unreachable",
        EngineErrorKind::Broken => "engine-broken",
        EngineErrorKind::Denied => "engine-denied",
        EngineErrorKind::HostKey => "host-key",
        EngineErrorKind::TooOld => "engine-too-old",
        EngineErrorKind::NotFound => "engine-not-found",
        EngineErrorKind::Conflict => "engine-conflict",
        EngineErrorKind::DiskFull => "disk-full",
        EngineErrorKind::NoAddresses => "no-addresses",
        EngineErrorKind::PortTaken => "port-taken",
        EngineErrorKind::Invalid => "engine-invalid",
        EngineErrorKind::Timeout => "engine-timeout",
        EngineErrorKind::Internal => "engine",
        EngineErrorKind::LeaseLost => "lease-lost",
    };
    eprintln!("error[{code}]: {error}");
    if let Some(help) = &error.help {
        eprintln!("  = help: {help}");
    }
    eprintln!("nothing was changed");
}

/// Prints why there is no ledger to choose.
pub fn unusable(unusable: &Unusable) -> Exit {
    match unusable {
        Unusable::PasswordInArgument => {
            eprintln!("error[ledger]: the password in `--ledger` can be read by everybody here");
            eprintln!(
                "  = help: put the URL into SHIPLAP_LEDGER, or into a file for --ledger-file"
            );
            Exit::Usage
        }
        Unusable::File(path, error) => {
            let path = path.display();
            eprintln!("error[ledger]: the file `{path}` with the ledger's URL: {error}");
            Exit::Failed
        }
        Unusable::Url(error) => {
            eprintln!("error[ledger]: {error}");
            eprintln!(
                "  = help: such as postgres://shiplap@db.example/shiplap?sslmode=verify-full"
            );
            Exit::Usage
        }
    }
}

fn ledger(error: &LedgerError) {
    eprintln!("error[ledger]: {error}");
    let help = match error {
        LedgerError::TooNew { .. } => "use the newer shiplap that wrote it",
        LedgerError::Damaged(_) => {
            "it is left as it is; restore ledger.db and key from a backup, or move both away to \
             start a new history"
        }
        LedgerError::DiskFull(_) => "free some space; `shiplap prune` shows what it could free",
        LedgerError::LeaseLost(_) => "somebody else deployed meanwhile; look at `shiplap status`",
        LedgerError::Illegal { .. } => "`shiplap show` tells how far it has come",
        LedgerError::NoSuchDeployment(..) => "`shiplap history` lists them",
        LedgerError::Unreachable(_) => "trying again is safe, once the server answers",
        LedgerError::Storage(_) => "SHIPLAP_STATE_DIR names another folder",
    };
    eprintln!("  = help: {help}");
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
