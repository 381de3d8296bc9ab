//! `secrets`: set, get, list, rotate, import, remove.

mod input;
mod show;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use shiplap_compose::OsFiles;
use shiplap_model::{DeploymentState, Outcome, Scope, Secret};
use shiplap_secrets::magic::Recipe;
use shiplap_secrets::{Name, Origin, Store, StoreError, Written, random};

use super::{Exit, Format, show_diagnostics};
use crate::cli::ProjectArgs;
use crate::load::DEFAULT_ENVIRONMENT;

/// How many characters a generated value has: 192 bits.
const LENGTH: u16 = 32;
/// How far back is looked for the deployment that runs.
const LOOK_BACK: u32 = 100;

/// `secrets …`
#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// Set a secret to a value from standard input, or from a file
    ///
    /// At a terminal the value is asked for and not shown. Of a value from standard input one line
    /// break at its end is left out; a file is taken byte by byte. What runs keeps the version that
    /// it was deployed with until the next deployment.
    Set(SetArgs),
    /// Print a secret's value
    Get(GetArgs),
    /// List secrets: names, versions, when they were set and which version runs; never values
    List(ListArgs),
    /// Set a secret to a new random value
    ///
    /// Letters, digits, `-` and `_`; the values that Coolify's variables stand for
    /// (SERVICE_PASSWORD_DB) are made by its rules.
    Rotate(RotateArgs),
    /// Set secrets to the values of a file in the form of .env, which stays as it is
    Import(ImportArgs),
    /// Take a secret out of use; its versions stay, for rollbacks
    Remove(RemoveArgs),
}

/// `secrets set`.
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// The secret, named like a variable
    pub name: OsString,
    /// File with its value
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// Catches a value that is given as an argument, to say why it must not be.
    #[arg(hide = true)]
    pub refused: Vec<OsString>,
}

/// `secrets get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// The secret
    pub name: OsString,
    /// Which version [default: the current one]
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<u32>,
    /// Print it even to a terminal
    #[arg(long)]
    pub show: bool,
}

/// `secrets list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Also older versions, and secrets that were removed
    #[arg(long)]
    pub versions: bool,
}

/// `secrets rotate`.
#[derive(Debug, Clone, Args)]
pub struct RotateArgs {
    /// The secret; one that is not there yet is made
    pub name: OsString,
    /// How many characters [default: 32, or what Coolify's rules say]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(8..=1024))]
    pub length: Option<u16>,
    /// Take the new value from standard input instead of a random one
    #[arg(long, conflicts_with = "length")]
    pub from_stdin: bool,
}

/// `secrets import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The file
    pub file: PathBuf,
    /// Only these variables, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
}

/// `secrets remove`.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    /// The secret
    pub name: OsString,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub yes: bool,
}

pub async fn secrets(project: &ProjectArgs, command: &SecretsCommand, format: Format) -> Exit {
    let ran = async {
        let desk = Desk { store: crate::secrets::store(), scope: scope(project).await?, format };
        match command {
            SecretsCommand::Set(args) => desk.set(args),
            SecretsCommand::Get(args) => desk.get(args),
            SecretsCommand::List(args) => desk.list(args).await,
            SecretsCommand::Rotate(args) => desk.rotate(args),
            SecretsCommand::Import(args) => desk.import(args),
            SecretsCommand::Remove(args) => desk.remove(args),
        }
    };
    ran.await.unwrap_or_else(|exit| exit)
}

/// Which environment. The files are asked for the project's name alone: they may well refuse to
/// load until the secret that is about to be set is there.
async fn scope(args: &ProjectArgs) -> Result<Scope, Exit> {
    match crate::load::settings(args) {
        Ok(Some(settings)) => return Ok(crate::load::scope_of(&settings).await),
        Ok(None) => {}
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Err(Exit::Failed);
        }
    }
    let environment = args.environment.clone().unwrap_or(DEFAULT_ENVIRONMENT.to_owned());
    let survey = crate::load::request(args).and_then(|r| shiplap_compose::survey(&r, &OsFiles));
    match (survey, &args.project_name) {
        (Ok(survey), _) if survey.services.is_empty() && !args.files.is_empty() => {
            eprintln!("error[usage]: what --file names is no Compose file");
            eprintln!("  = help: a value's file is named with --from-file");
            Err(Exit::Usage)
        }
        (Ok(survey), _) => Ok(Scope { project: survey.project, environment }),
        (Err(_), Some(name)) => Ok(Scope { project: name.clone(), environment }),
        (Err(diagnostics), None) => {
            show_diagnostics(&diagnostics);
            eprintln!("  = help: with `-p PROJECT` this command needs no files");
            Err(Exit::Failed)
        }
    }
}

/// An environment's secrets, and how to answer.
struct Desk {
    store: Store,
    scope: Scope,
    format: Format,
}

impl Desk {
    fn set(&self, args: &SetArgs) -> Result<Exit, Exit> {
        if !args.refused.is_empty() {
            eprintln!("error[usage]: a value is never an argument");
            eprintln!(
                "  = help: arguments can be read by everybody on this machine, and shells keep \
                 them; give it on standard input, or with --from-file"
            );
            return Err(Exit::Usage);
        }
        let name = name(&args.name)?;
        let value = match &args.from_file {
            Some(file) => input::file(file)?,
            None => input::standard(&name)?,
        };
        let written = self.write(&name, &value, Origin::Given)?;
        show::written(&self.scope, &[(name, written)], self.format);
        Ok(Exit::Done)
    }

    fn get(&self, args: &GetArgs) -> Result<Exit, Exit> {
        let name = name(&args.name)?;
        let to_terminal = std::io::stdout().is_terminal();
        if to_terminal && !args.show {
            eprintln!("error[usage]: standard output is a terminal, which would show the value");
            eprintln!(
                "  = help: --show prints it; `… > FILE` and `… | PROGRAM` keep it off the screen"
            );
            return Err(Exit::Usage);
        }
        let stored = self.store.get(&self.scope, &name, args.version).map_err(refuse)?;
        let mut out = std::io::stdout().lock();
        let mut printed = out.write_all(stored.value.expose());
        if to_terminal {
            printed = printed.and_then(|()| out.write_all(b"\n"));
        }
        printed.and_then(|()| out.flush()).map_err(|error| {
            eprintln!("error[secrets]: the value could not be printed: {error}");
            Exit::Failed
        })?;
        Ok(Exit::Done)
    }

    async fn list(&self, args: &ListArgs) -> Result<Exit, Exit> {
        let entries = self.store.list(&self.scope).map_err(refuse)?;
        let running = self.running().await?;
        let list = show::List { scope: &self.scope, entries: &entries, running: &running };
        match self.format {
            Format::Json => println!("{:#}", list.json(args.versions)),
            Format::Text => print!("{}", list.text(args.versions)),
        }
        Ok(Exit::Done)
    }

    /// The versions that the deployment was made with which is current now.
    async fn running(&self) -> Result<BTreeMap<String, u32>, Exit> {
        let found = match crate::ledger::open_existing().await {
            Ok(Some(ledger)) => ledger.deployments(&self.scope, LOOK_BACK).await,
            Ok(None) => return Ok(BTreeMap::new()),
            Err(error) => Err(error),
        };
        let history = found.map_err(|error| super::refuse(&error.into(), None))?;
        let is_done = |state: &DeploymentState| {
            matches!(state, DeploymentState::Ended { outcome: Outcome::Done, .. })
        };
        let current = history.into_iter().find(|deployment| is_done(&deployment.state));
        let request = current.and_then(|deployment| deployment.request);
        Ok(request.map(|request| request.secrets).unwrap_or_default())
    }

    fn rotate(&self, args: &RotateArgs) -> Result<Exit, Exit> {
        let name = name(&args.name)?;
        let (value, origin) = if args.from_stdin {
            (input::standard(&name)?, Origin::Given)
        } else {
            let made = match (args.length, Recipe::of(name.as_str())) {
                (None, Some(recipe)) => recipe.make(),
                (length, _) => random::text(length.unwrap_or(LENGTH).into(), random::URL_SAFE),
            };
            (made.map_err(refuse)?, Origin::Generated)
        };
        let written = self.write(&name, &value, origin)?;
        show::written(&self.scope, &[(name, written)], self.format);
        Ok(Exit::Done)
    }

    fn import(&self, args: &ImportArgs) -> Result<Exit, Exit> {
        let variables = input::dotenv(&args.file)?;
        let mut missing =
            args.only.iter().filter(|only| !variables.iter().any(|(n, _)| n == *only));
        if let Some(missing) = missing.next() {
            eprintln!("error[usage]: {} has no variable `{missing}`", args.file.display());
            return Err(Exit::Usage);
        }
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for (variable, value) in variables {
            if !args.only.is_empty() && !args.only.contains(&variable) {
                continue;
            }
            match variable.parse::<Name>() {
                Ok(_) if value.is_empty() => left.push((variable, "it is empty".to_owned())),
                Ok(name) => {
                    let value = Secret::new(value.into_bytes());
                    let written = self.write(&name, &value, Origin::Given)?;
                    taken.push((name, written));
                }
                Err(why) => left.push((variable, why.to_string())),
            }
        }
        show::written(&self.scope, &taken, self.format);
        for (variable, why) in &left {
            eprintln!("`{variable}` was not taken: {why}");
        }
        if !taken.is_empty() {
            eprintln!(
                "{} still holds what was taken: once a deployment works, remove those lines",
                args.file.display()
            );
        }
        Ok(Exit::Done)
    }

    fn remove(&self, args: &RemoveArgs) -> Result<Exit, Exit> {
        let name = name(&args.name)?;
        if !self.store.versions(&self.scope).map_err(refuse)?.contains_key(&name) {
            return Err(refuse(StoreError::NoSuchSecret(self.scope.clone(), name)));
        }
        if !args.yes {
            if !crate::remote::can_ask() {
                eprintln!("error[usage]: there is no terminal to ask on");
                eprintln!("  = help: add --yes");
                return Err(Exit::Usage);
            }
            eprint!("take `{name}` of {} out of use? [y/N] ", self.scope);
            let mut answer = String::new();
            let _ = std::io::stdin().read_line(&mut answer);
            if !matches!(answer.trim(), "y" | "Y" | "yes" | "Yes") {
                eprintln!("nothing was changed");
                return Ok(Exit::Failed);
            }
        }
        self.store.remove(&self.scope, &name).map_err(refuse)?;
        show::removed(&self.scope, &name, self.format);
        Ok(Exit::Done)
    }

    fn write(&self, name: &Name, value: &Secret<Vec<u8>>, origin: Origin) -> Result<Written, Exit> {
        if value.expose().is_empty() {
            eprintln!("error[secrets]: the value of `{name}` is empty");
            eprintln!("nothing was changed");
            return Err(Exit::Failed);
        }
        self.store.set(&self.scope, name, value, origin).map_err(refuse)
    }
}

/// A secret's name. What is none is not shown: it may be a value, or hold one.
fn name(text: &OsString) -> Result<Name, Exit> {
    let name = text.to_str().map_or(Err(shiplap_secrets::BadName::Form), str::parse);
    name.map_err(|error| {
        eprintln!("error[usage]: {error}");
        Exit::Usage
    })
}

fn refuse(error: StoreError) -> Exit {
    eprintln!("error[secrets]: {error}");
    let help = match &error {
        StoreError::NoSuchSecret(..) => Some("`shiplap secrets list` shows what there is"),
        StoreError::NoSuchVersion { .. } => Some("`shiplap secrets list --versions` shows them"),
        StoreError::DiskFull { .. } => Some("free some space; the secret is what it was before"),
        StoreError::KeyOpen { .. } => Some("`chmod 600` it, and rotate what others may have read"),
        StoreError::Busy(_) => Some("try again; the lock ends with the process that holds it"),
        StoreError::TooLarge { .. }
        | StoreError::BadScope(_)
        | StoreError::Damaged { .. }
        | StoreError::KeyMissing(_)
        | StoreError::Files { .. }
        | StoreError::NoRandomness(_) => None,
    };
    if let Some(help) = help {
        eprintln!("  = help: {help}");
    }
    Exit::Failed
}
