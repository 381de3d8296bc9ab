//! Which ledger: the state folder's, or one that several machines share.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use clap::Args;
use shiplap_ledger::Address;
use shiplap_model::{LedgerError, Store};

use crate::world::state_dir;

/// The URL of a shared ledger.
const URL_VARIABLE: &str = "SHIPLAP_LEDGER";
/// A file that holds it.
const FILE_VARIABLE: &str = "SHIPLAP_LEDGER_FILE";
/// The key of a shared ledger, where it is not in the state folder.
const KEY_VARIABLE: &str = "SHIPLAP_LEDGER_KEY_FILE";

/// Where history is kept.
#[derive(Debug, Clone, Default, Args)]
pub struct LedgerArgs {
    /// Shared history: postgres://USER@HOST/DATABASE, without a password [default: the state folder]
    #[arg(long = "ledger", global = true, value_name = "URL", conflicts_with = "ledger_file")]
    pub ledger: Option<String>,
    /// File that holds the URL of a shared history, password and all
    #[arg(long, global = true, value_name = "FILE")]
    pub ledger_file: Option<PathBuf>,
}

/// The ledger of this run, and how those that it starts are told.
struct Chosen {
    address: Address,
    handed_over: Option<(&'static str, std::ffi::OsString)>,
}

static CHOSEN: OnceLock<Chosen> = OnceLock::new();

/// Why there is no ledger to choose.
#[derive(Debug)]
pub enum Unusable {
    /// Everybody on the machine can read arguments.
    PasswordInArgument,
    /// The file with the URL.
    File(PathBuf, io::Error),
    /// The URL.
    Url(LedgerError),
}

/// Chooses the ledger of this run, once.
///
/// # Errors
/// What is wrong with what was said of it.
pub fn choose(args: &LedgerArgs) -> Result<(), Unusable> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let (url, handed_over) = if let Some(url) = &args.ledger {
        (Some(url.clone()), Some((URL_VARIABLE, url.into())))
    } else if let Some(path) = &args.ledger_file {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        (Some(read(&path)?), Some((FILE_VARIABLE, path.into())))
    } else if let Some(url) = variable(URL_VARIABLE) {
        (Some(url.to_string_lossy().into_owned()), None)
    } else if let Some(path) = variable(FILE_VARIABLE) {
        (Some(read(Path::new(&path))?), None)
    } else {
        (None, None)
    };
    let address = match url {
        None => Address::folder(&state_dir()),
        Some(url) => {
            let key = variable(KEY_VARIABLE).map_or_else(|| state_dir().join("key"), PathBuf::from);
            Address::shared(&url, &key).map_err(Unusable::Url)?
        }
    };
    if args.ledger.is_some() && address.has_password() {
        return Err(Unusable::PasswordInArgument);
    }
    // Whoever chooses twice says the same twice: there is one command line.
    let _ = CHOSEN.set(Chosen { address, handed_over });
    Ok(())
}

fn read(path: &Path) -> Result<String, Unusable> {
    std::fs::read_to_string(path).map_err(|error| Unusable::File(path.to_owned(), error))
}

/// Where history is.
fn address() -> Address {
    CHOSEN.get().map_or_else(|| Address::folder(&state_dir()), |chosen| chosen.address.clone())
}

/// The ledger; made where there is none.
///
/// # Errors
/// As for [`shiplap_ledger::open`].
pub async fn open() -> Result<Arc<dyn Store>, LedgerError> {
    shiplap_ledger::open(&address()).await
}

/// The ledger, if there is one: those who only look make none in the state folder.
///
/// # Errors
/// As for [`open`].
pub async fn open_existing() -> Result<Option<Arc<dyn Store>>, LedgerError> {
    match address() {
        Address::Folder(folder) if !folder.join("ledger.db").exists() => Ok(None),
        Address::Folder(_) | Address::Shared { .. } => open().await.map(Some),
    }
}

/// Tells another run of this program which ledger is ours.
pub fn hand_over(command: &mut Command) {
    if let Some((variable, value)) = CHOSEN.get().and_then(|chosen| chosen.handed_over.as_ref()) {
        command.env_remove(URL_VARIABLE).env_remove(FILE_VARIABLE).env(variable, value);
    }
}
