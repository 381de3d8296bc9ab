//! `data`: plan, init, sample.

mod show;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use shiplap_data::app::{self, Job, Problem};
use shiplap_data::config::Config;
use shiplap_data::diagnostic::Diagnostic;
use shiplap_data::postgres::{KEYS_AT_ONCE, Server};

use super::{Exit, Format};

/// Names the URL of the database that is sampled.
const SOURCE: &str = "SHIPLAP_DATA_SOURCE";
/// Names the URL of the database that is filled.
const TARGET: &str = "SHIPLAP_DATA_TARGET";
/// Names the secret under which rows are drawn and values masked.
const KEY: &str = "SHIPLAP_DATA_KEY";
/// A shorter secret could be guessed.
const KEY_BYTES: usize = 16;

/// `data …`
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Show what a sample would hold, by reading keys and a few rows
    Plan(DataArgs),
    /// Write a configuration for what the source's schema holds
    Init(InitArgs),
    /// Fill the target with a masked sample; what is there answers until the new one is whole
    Sample(SampleArgs),
}

/// What every subcommand needs.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// What to take and how to mask it
    #[arg(long, value_name = "FILE", default_value = "data.yaml")]
    pub config: PathBuf,
    #[command(flatten)]
    pub access: AccessArgs,
}

/// How the source is reached. URLs and keys are never arguments: others could read those.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// File with the source's URL [default: SHIPLAP_DATA_SOURCE]
    #[arg(long, value_name = "FILE")]
    pub source_file: Option<PathBuf>,
    /// File with the secret under which rows are drawn and values masked, which stays with the
    /// source [default: SHIPLAP_DATA_KEY]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Sessions at the same time, on each side
    #[arg(long, value_name = "NUMBER", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub sessions: u8,
}

/// `data init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The table whose rows are chosen
    #[arg(long, value_name = "TABLE")]
    pub root: String,
    /// How many of them
    #[arg(long, value_name = "RATE", default_value = "10%")]
    pub rate: String,
    #[command(flatten)]
    pub access: AccessArgs,
}

/// `data sample`.
#[derive(Debug, Clone, Args)]
pub struct SampleArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// File with the target's URL [default: SHIPLAP_DATA_TARGET]
    #[arg(long, value_name = "FILE")]
    pub target_file: Option<PathBuf>,
}

pub async fn data(command: &DataCommand, format: Format) -> Exit {
    let ran = match command {
        DataCommand::Plan(args) => plan(args, format).await,
        DataCommand::Init(args) => init(args, format).await,
        DataCommand::Sample(args) => sample(args, format).await,
    };
    ran.unwrap_or_else(|exit| exit)
}

async fn plan(args: &DataArgs, format: Format) -> Result<Exit, Exit> {
    let file = ConfigFile::read(&args.config)?;
    let access = Access::read(&args.access)?;
    let progress = show::Progress::new(format);
    let job = access.job(&file.config, &progress);
    let plan = app::plan(&job).await.map_err(|problem| file.refuse(&problem))?;
    show::plan(&plan, format);
    Ok(if plan.passed.is_empty() && plan.unclassified.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn init(args: &InitArgs, format: Format) -> Result<Exit, Exit> {
    let access = Access::read(&args.access)?;
    let progress = show::Progress::new(format);
    let config = Config::default();
    let job = access.job(&config, &progress);
    let text =
        app::init(&job, &args.root, &args.rate).await.map_err(|problem| show::refuse(&problem))?;
    print!("{text}");
    Ok(Exit::Done)
}

async fn sample(args: &SampleArgs, format: Format) -> Result<Exit, Exit> {
    let file = ConfigFile::read(&args.data.config)?;
    let access = Access::read(&args.data.access)?;
    let target = server(TARGET, args.target_file.as_deref(), "the target's URL")?;
    let progress = show::Progress::new(format);
    let job = access.job(&file.config, &progress);
    let report = app::sample(&job, &target).await.map_err(|problem| file.refuse(&problem))?;
    show::report(&report, format);
    Ok(Exit::Done)
}

/// The configuration, and where it stands.
struct ConfigFile {
    name: String,
    text: String,
    config: Config,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self, Exit> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            eprintln!("error[data/no-configuration]: {name}: {error}");
            eprintln!("  = help: `shiplap data init --root TABLE > {name}` writes one");
            Exit::Failed
        })?;
        match Config::parse(&text) {
            Ok(config) => Ok(Self { name, text, config }),
            Err(diagnostic) => {
                eprintln!("{}", diagnostic.in_file(&name, &text));
                Err(Exit::Failed)
            }
        }
    }

    fn refuse(&self, problem: &Problem) -> Exit {
        match problem {
            Problem::Configuration(diagnostics) => {
                let show = |d: &Diagnostic| eprintln!("{}\n", d.in_file(&self.name, &self.text));
                diagnostics.iter().for_each(show);
                Exit::Failed
            }
            Problem::Unclassified { .. }
            | Problem::Changed { .. }
            | Problem::Limits(_)
            | Problem::Leaks(_)
            | Problem::Files(_)
            | Problem::World(_) => show::refuse(problem),
        }
    }
}

/// The source, and the secret.
struct Access {
    source: Server,
    key: Vec<u8>,
    sessions: usize,
}

impl Access {
    fn read(args: &AccessArgs) -> Result<Self, Exit> {
        let source = server(SOURCE, args.source_file.as_deref(), "the source's URL")?;
        let key =
            secret(KEY, args.key_file.as_deref(), "the secret key")?.trim().as_bytes().to_vec();
        if key.len() < KEY_BYTES {
            eprintln!("error[data/key]: the key has fewer than {KEY_BYTES} bytes");
            eprintln!(
                "  = help: `head -c 32 /dev/urandom | base64` makes one; keep it with the source's secrets"
            );
            return Err(Exit::Usage);
        }
        Ok(Self { source, key, sessions: args.sessions.into() })
    }

    fn job<'a>(&'a self, config: &'a Config, listener: &'a show::Progress) -> Job<'a> {
        Job {
            source: &self.source,
            config,
            secret: &self.key,
            sessions: self.sessions,
            keys_at_once: KEYS_AT_ONCE,
            listener,
        }
    }
}

fn server(variable: &str, file: Option<&Path>, what: &str) -> Result<Server, Exit> {
    Server::parse(&secret(variable, file, what)?).map_err(|error| {
        eprintln!("error[data/url]: {error}");
        Exit::Usage
    })
}

/// From a file, else from the environment.
fn secret(variable: &str, file: Option<&Path>, what: &str) -> Result<String, Exit> {
    let Some(file) = file else {
        return std::env::var(variable).map_err(|_| {
            eprintln!("error[data/not-given]: {what} is not given");
            eprintln!("  = help: set {variable}, or name a file that holds it");
            Exit::Usage
        });
    };
    std::fs::read_to_string(file).map_err(|error| {
        eprintln!("error[data/not-given]: {what}: {}: {error}", file.display());
        Exit::Usage
    })
}
