//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use shiplap_model::Limit;

pub use crate::commands::build::BuildArgs;
pub use crate::commands::ci::CiCommand;
pub use crate::commands::data::DataCommand;
pub use crate::commands::env::EnvCommand;
pub use crate::commands::init::InitArgs;
pub use crate::commands::maintenance::MaintenanceCommand;
pub use crate::commands::push::PushArgs;
pub use crate::commands::secrets::SecretsCommand;
pub use crate::commands::serve::ServeArgs;
pub use crate::commands::token::TokenCommand;
pub use crate::ledger::LedgerArgs;

/// Deploys Docker Compose projects with no failed request.
///
/// In a folder with a Compose file, `shiplap plan` shows what would happen and `shiplap deploy`
/// does it.
#[derive(Debug, Parser)]
#[command(name = "shiplap", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub project: ProjectArgs,
    #[command(flatten)]
    pub remote: crate::remote::RemoteArgs,
    #[command(flatten)]
    pub ledger: LedgerArgs,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Which project.
#[derive(Debug, Clone, Default, Args)]
pub struct ProjectArgs {
    /// Compose files, merged in order [default: as Compose finds them]
    #[arg(short = 'f', long = "file", global = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Files of variables instead of .env
    #[arg(long = "env-file", global = true, value_name = "FILE")]
    pub env_files: Vec<PathBuf>,
    /// Profiles to activate
    #[arg(long = "profile", global = true, value_name = "NAME")]
    pub profiles: Vec<String>,
    /// Project name [default: as Compose names it]
    #[arg(short = 'p', long = "project-name", global = true, value_name = "NAME")]
    pub project_name: Option<String>,
    /// Environment or group of shiplap.yaml [default: the only environment there is]
    // Without a name, `config --environment` prints variables, as with Compose.
    #[arg(
        short = 'e',
        long = "environment",
        global = true,
        value_name = "NAME",
        num_args = 0..=1,
        default_missing_value = ""
    )]
    pub environment: Option<String>,
    /// The configuration [default: shiplap.yaml here, or in a folder above]
    #[arg(
        long = "config-file",
        global = true,
        value_name = "FILE",
        env = crate::serve::OWN_FILE_VARIABLE,
        hide_env = true
    )]
    pub config: Option<PathBuf>,
    /// Folder that relative paths start from
    #[arg(long, global = true, value_name = "DIR")]
    pub project_directory: Option<PathBuf>,
    /// Leave out what only Coolify or Dokploy know, and say so
    #[arg(long, global = true)]
    pub tolerant: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a deployment would do, and change nothing
    Plan(PlanArgs),
    /// Make what the files say current, with no failed request, or undo it
    Deploy(DeployArgs),
    /// Make the images of one environment current in another, behind that one's gates
    Promote(PromoteArgs),
    /// Go back to an earlier deployment: its images, configuration and environment
    Rollback(RollbackArgs),
    /// Take up a deployment that did not end: on, back, or leave it as it is; or let requests go on
    /// that `pause` holds
    Resume(ResumeArgs),
    /// Hold requests from outside until `resume`, say for a backup: none is lost within the limit
    /// `hold`
    Pause(LimitArgs),
    /// Answer everybody with 503 and a page, or stop doing so
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Show what is running
    Status,
    /// Show live how much each service answers, of all that the edge routes to
    Top(TopArgs),
    /// List deployments, newest first
    History(HistoryArgs),
    /// Stop replicas that wait, frozen, for a rollback (a deployment starts this by itself)
    #[command(hide = true)]
    Retire {
        /// Ids of their containers
        #[arg(required = true)]
        containers: Vec<String>,
        /// When, as a duration from now
        #[arg(long, value_parser = duration)]
        after: Duration,
    },
    /// Be the ssh of a process, and end with it (whoever acts on another machine starts this)
    #[command(hide = true)]
    Link {
        /// The id of that process, and the words for ssh
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Show one deployment: what it made current, its plan and its journal
    Show {
        /// Its number [default: the newest]
        number: Option<u64>,
    },
    /// Print what services print
    Logs(LogsArgs),
    /// Run a command in a running service
    Exec(ExecArgs),
    /// Replace replicas by the same, with no failed request
    Restart(ServicesArgs),
    /// Change the number of replicas
    Scale(ScaleArgs),
    /// Stop and remove the project's containers and networks
    Down(DownArgs),
    /// Build the images that the Compose files describe, labelled with where they come from
    Build(BuildArgs),
    /// Bring an image from this engine to an environment's, with no registry: only layers that are
    /// missing there travel
    Push(PushArgs),
    /// Show, then free, images that no rollback needs
    Prune(PruneArgs),
    /// Print the normalised project, as `docker compose config` does
    Config(ConfigArgs),
    /// Check the files, shiplap.yaml too, and advise about what has cost people a night
    Check(CheckArgs),
    /// Write a shiplap.yaml for what is in this folder
    Init(InitArgs),
    /// Write what continuous integration needs
    #[command(subcommand)]
    Ci(CiCommand),
    /// Print the JSON Schema of shiplap.yaml, for editors
    Schema,
    /// Keep values that nobody else may see: encrypted, by environment, version by version
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Fill a database with a small, whole, anonymised copy of another
    #[command(subcommand)]
    Data(DataCommand),
    /// Look after environments
    #[command(subcommand)]
    Env(EnvCommand),
    /// Serve deployments to CI, registries and people elsewhere, by HTTP
    Serve(ServeArgs),
    /// Look after tokens: who may ask a control server for what
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look after the edge proxy
    #[command(subcommand)]
    Edge(EdgeCommand),
    /// Print a line for a file of `basic_auth`: a name, and the hash of a password read from stdin
    Htpasswd {
        /// The name
        name: String,
    },
}

/// How long things may take.
#[derive(Debug, Clone, Default, Args)]
pub struct LimitArgs {
    /// How long something may take, such as gate=2m; may be repeated. An unknown name is answered
    /// with all there are
    #[arg(long = "limit", value_name = "NAME=DURATION", value_parser = crate::limits::pair)]
    pub limits: Vec<(Limit, Duration)>,
}

/// What to deploy.
#[derive(Debug, Clone, Default, Args)]
pub struct Selected {
    /// Only these services [default: all]
    pub services: Vec<String>,
    /// Use another tag (or a whole reference) for a service, which is then the only one touched
    #[arg(long, value_name = "SERVICE=TAG")]
    pub set: Vec<String>,
    /// Ask registries again for images that are here
    #[arg(long, conflicts_with = "build")]
    pub pull: bool,
    /// Build again what has a `build` section
    #[arg(long)]
    pub build: bool,
    /// Remove services that are not in the file any more
    #[arg(long)]
    pub remove_orphans: bool,
    /// Replace replicas even where nothing changed
    #[arg(long)]
    pub force_recreate: bool,
    /// How long new replicas are watched after the switch, such as 30s, where the file does not
    /// say `monitor`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub watch: Option<Duration>,
    /// How long a new replica may take to work, beyond its start_period, such as 2m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub gate: Option<Duration>,
    /// How long old replicas may finish their requests, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub drain: Option<Duration>,
}

/// `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub selected: Selected,
    /// Exit with 5 when there is something to do
    #[arg(long)]
    pub exit_code: bool,
    /// Show each step
    #[arg(long)]
    pub steps: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// How to carry out.
#[derive(Debug, Clone, Args)]
pub struct Carry {
    /// Do not ask
    #[arg(short = 'y', long)]
    pub yes: bool,
    /// Why, for history
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,
    /// How long replicas of the release before stay frozen, so that a rollback needs no boot;
    /// then they are stopped. 0 stops them at once
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub standby: Duration,
    /// Keep replicas that failed, stopped and renamed, for a look
    #[arg(long)]
    pub keep_failed: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Which way a deployment that did not end is taken, where it has to be settled first: `auto`
    /// (on, if all that it started works; else back), `forward` or `back`
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value_t = Way::Auto,
        hide_possible_values = true,
        env = "SHIPLAP_ON_INTERRUPTED",
        hide_env = true
    )]
    pub on_interrupted: Way,
}

/// Which way a deployment that did not end is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    Auto,
    Forward,
    Back,
}

/// `deploy`.
#[derive(Debug, Clone, Args)]
pub struct DeployArgs {
    #[command(flatten)]
    pub selected: Selected,
    #[command(flatten)]
    pub carry: Carry,
    /// Who says yes to this plan, where the environment asks for approval
    #[arg(long, value_name = "NAME")]
    pub approve: Option<String>,
}

/// `promote`.
#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    /// The environment whose images are promoted
    pub from: String,
    /// The environment that gets them
    pub to: String,
    /// The deployment in FROM whose images they are [default: the current one]
    #[arg(long, value_name = "NUMBER")]
    pub deployment: Option<u64>,
    /// Show what would happen, and change nothing
    #[arg(long)]
    pub plan: bool,
    /// Show each step
    #[arg(long, requires = "plan")]
    pub steps: bool,
    /// Who says yes to this plan, where TO asks for approval
    #[arg(long, value_name = "NAME")]
    pub approve: Option<String>,
    #[command(flatten)]
    pub carry: Carry,
}

/// `rollback`.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// Only these services [default: all]
    pub services: Vec<String>,
    /// The deployment to go back to [default: the one before]
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<u64>,
    /// Show what it would do, and change nothing
    #[arg(long)]
    pub plan: bool,
    /// How long replicas are watched after the switch
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub watch: Option<Duration>,
    #[command(flatten)]
    pub carry: Carry,
}

/// `resume`.
#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    /// On to what it was to make current; where that fails, back
    #[arg(long, conflicts_with_all = ["back", "abandon"])]
    pub forward: bool,
    /// Back to what was current before it
    #[arg(long, conflicts_with = "abandon")]
    pub back: bool,
    /// Neither: what it left stays, requests that it holds are released, and it counts as ended
    #[arg(long)]
    pub abandon: bool,
    #[command(flatten)]
    pub carry: Carry,
}

/// `history`.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    pub limit: u32,
    /// Check the hash chain of the whole ledger
    #[arg(long)]
    pub verify: bool,
}

/// `logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Only these services [default: all]
    pub services: Vec<String>,
    /// Go on printing
    #[arg(long)]
    pub follow: bool,
    /// How many of the last lines of each container [default: all]
    #[arg(short = 'n', long)]
    pub tail: Option<u32>,
    /// Show when each line was printed
    #[arg(short = 't', long)]
    pub timestamps: bool,
    /// Also containers that are kept aside
    #[arg(short = 'a', long)]
    pub all: bool,
}

/// `exec`.
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// The service
    pub service: String,
    /// Which replica
    #[arg(long, default_value_t = 1)]
    pub index: u32,
    /// No terminal
    #[arg(short = 'T', long)]
    pub no_tty: bool,
    /// User to run as
    #[arg(short = 'u', long)]
    pub user: Option<String>,
    /// Folder to run in
    #[arg(short = 'w', long)]
    pub workdir: Option<String>,
    /// Variables
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `restart`.
#[derive(Debug, Clone, Args)]
pub struct ServicesArgs {
    /// Only these services [default: all]
    pub services: Vec<String>,
    #[command(flatten)]
    pub carry: Carry,
}

/// `scale`.
#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// How many of which
    #[arg(required = true, value_name = "SERVICE=NUMBER")]
    pub replicas: Vec<String>,
    #[command(flatten)]
    pub carry: Carry,
}

/// `down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Remove the project's volumes too: their data is lost
    #[arg(short = 'v', long)]
    pub volumes: bool,
    #[command(flatten)]
    pub carry: Carry,
}

/// `prune`.
#[derive(Debug, Clone, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short = 'y', long)]
    pub yes: bool,
}

/// `config`.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Only these services, and what they need
    pub only: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = ConfigFormat::Yaml)]
    pub format: ConfigFormat,
    /// Only the names of services
    #[arg(long)]
    pub services: bool,
    /// Only the names of images
    #[arg(long)]
    pub images: bool,
    /// Only the names of volumes
    #[arg(long)]
    pub volumes: bool,
    /// Only the names of networks
    #[arg(long)]
    pub networks: bool,
    /// Only the names of profiles
    #[arg(long = "profiles", id = "list-profiles")]
    pub list_profiles: bool,
    /// Leave variables as they stand
    #[arg(long)]
    pub no_interpolate: bool,
    /// Leave short forms and missing defaults as they stand
    #[arg(long)]
    pub no_normalize: bool,
    /// Leave relative paths as they stand
    #[arg(long)]
    pub no_path_resolution: bool,
    /// Do not check that what is named exists
    #[arg(long)]
    pub no_consistency: bool,
    /// Leave env_file entries as they stand
    #[arg(long)]
    pub no_env_resolution: bool,
    /// Print a hash of each service, `*` for all
    #[arg(long, value_name = "SERVICES")]
    pub hash: Option<String>,
    /// Print nothing, only check
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

/// `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Exit with 1 on warnings and advice too
    #[arg(long)]
    pub strict: bool,
}

/// How `config` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ConfigFormat {
    /// As a Compose file
    Yaml,
    /// As JSON
    Json,
}

/// `top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// How long between two looks
    #[arg(long, value_parser = interval, default_value = "1s")]
    pub interval: Duration,
    /// End after so many
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

/// A duration in which something can be counted.
fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_millis(100) { Err("at least 100ms".to_owned()) } else { Ok(time) }
}

/// `edge`.
#[derive(Debug, Clone, Subcommand)]
pub enum EdgeCommand {
    /// Show its version, its ports and whom it routes to
    Status,
    /// Replace it by this version, with no failed request
    Upgrade,
    /// Show, get and renew the certificates that it shows to clients of TLS
    Certificates(crate::commands::certificates::CertificatesArgs),
    /// Remove it; refused while it holds ports, unless forced
    Remove {
        /// Even if it holds ports
        #[arg(long)]
        force: bool,
    },
    /// Be the edge's supervisor (its container runs this)
    #[command(hide = true)]
    Supervise,
    /// Be a name holder (its container runs this)
    #[command(hide = true)]
    HoldNames,
    /// Be the edge's worker (its supervisor runs this)
    #[command(hide = true)]
    Work,
}

/// Reads `500ms`, `30s`, `2m`, `1h30m`, `3d`, `0`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration such as 500ms, 30s, 2m or 3d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let amount: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| n + digits);
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(24 * 3600),
            _ => return Err(wrong()),
        };
        total += unit * amount;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    /// Its help, and those of all below it, each under its name.
    fn helps(command: &mut clap::Command, name: &str, found: &mut Vec<(String, String)>) {
        // The page shows the whole of the first, and the others as briefly as `-h`.
        let help = match name {
            "shiplap" => command.render_long_help().to_string(),
            _ => command.render_help().to_string(),
        };
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        found.push((name.to_owned(), lines.join("\n")));
        for inner in command.get_subcommands_mut() {
            if !inner.is_hide_set() && inner.get_name() != "help" {
                let name = format!("{name} {}", inner.get_name());
                helps(inner, &name, found);
            }
        }
    }

    /// A page with the help of each command in the first block of its section. Sections that are not
    /// there come after those of the commands before them.
    fn with_helps(page: &str, helps: &[(String, String)]) -> String {
        let mut sections: Vec<String> = Vec::new();
        for line in page.lines() {
            match sections.last_mut() {
                Some(section) if !line.starts_with("## ") => {
                    section.push('\n');
                    section.push_str(line);
                }
                _ => sections.push(line.to_owned()),
            }
        }
        let mut after = 0;
        for (name, help) in helps {
            let title = format!("## {name}");
            let there = sections.iter().position(|s| s.lines().next() == Some(title.as_str()));
            match there {
                Some(index) => {
                    after = index;
                    let section = &sections[index];
                    let (before, rest) =
                        section.split_once("```text\n").expect("a section has its help");
                    let (_, behind) = rest.split_once("\n```").expect("a block has an end");
                    sections[index] = format!("{before}```text\n{help}\n```{behind}");
                }
                None => {
                    after += 1;
                    sections.insert(after, format!("{title}\n\n```text\n{help}\n```\n"));
                }
            }
        }
        format!("{}\n", sections.join("\n"))
    }

    #[test]
    fn the_documentation_has_the_help_of_every_command() {
        use clap::CommandFactory as _;
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/commands.md");
        let page = std::fs::read_to_string(path).expect("the page is there");
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut found = Vec::new();
        helps(&mut command, "shiplap", &mut found);
        let expected = with_helps(&page, &found);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(path, expected).expect("the page can be written");
            return;
        }
        for (is, wanted) in page.lines().zip(expected.lines()) {
            assert_eq!(is, wanted, "UPDATE_EXPECT=1 writes docs/commands.md anew");
        }
        assert_eq!(page, expected, "UPDATE_EXPECT=1 writes docs/commands.md anew");
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("3d12h"), Ok(Duration::from_secs(84 * 3600)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("").is_err() && duration("5").is_err() && duration("x").is_err());
    }
}
