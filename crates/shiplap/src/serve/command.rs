//! Commands that a control server runs for others: processes of this program, by the words that
//! they would have typed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clap::{CommandFactory as _, Parser as _};
use shiplap_compose::OsFiles;
use shiplap_config::Config;
use shiplap_model::{Scope, TokenAction};
use shiplap_server::{
    Catalog, CommandCaller, CommandEvent, CommandRefusal, CommandRequest, Commands, RunningCommand,
};

use super::access::{self, NotThere};
use super::process::{Process, forget_old};
use super::works::Local;
use super::{OWN_FILE_VARIABLE, WHO_VARIABLE};
use crate::cli::{Cli, Command, EnvCommand};
use crate::remote::ASKS_VARIABLE;

/// How often it is looked what a command has printed.
const LOOK: Duration = Duration::from_millis(50);
/// Commands whose output is kept.
const KEPT: usize = 50;

/// Runs them.
pub struct Shell {
    program: PathBuf,
    /// One folder per command.
    folder: PathBuf,
    local: Arc<Local>,
    last: AtomicU64,
}

impl Shell {
    /// One that keeps what commands print below a folder.
    ///
    /// # Errors
    /// When it is not known where this program is.
    pub fn new(folder: PathBuf, local: Arc<Local>) -> std::io::Result<Self> {
        // Numbers of an earlier life are not given again.
        let began = u64::try_from(shiplap_execute::now_ms()).unwrap_or_default();
        Ok(Self { program: std::env::current_exe()?, folder, local, last: AtomicU64::new(began) })
    }
}

#[async_trait]
impl Commands for Shell {
    async fn start(
        &self,
        request: &CommandRequest,
        caller: CommandCaller<'_>,
    ) -> Result<Arc<dyn RunningCommand>, CommandRefusal> {
        let words = std::iter::once("shiplap").chain(request.words.iter().map(String::as_str));
        let cli = Cli::try_parse_from(words)
            .map_err(|error| CommandRefusal::Usage(error.to_string().trim_end().to_owned()))?;
        let action = access::needed(&cli, &request.words)
            .map_err(|NotThere(why)| CommandRefusal::Usage(why))?;
        let catalog = self.local.projects().catalog().await;
        let project = project(&catalog, request, caller)?;
        let config = self.local.projects().config_of(&project);
        let config =
            config.ok_or_else(|| CommandRefusal::Hidden(format!("project `{project}`")))?;
        for about in about(&cli, &catalog, &project, &config) {
            if !is_allowed(caller, action, &project, &about) {
                return Err(CommandRefusal::Hidden(match about {
                    About::Environment(name) => format!("environment `{project}/{name}`"),
                    About::Project | About::Everything => format!("project `{project}`"),
                }));
            }
        }
        let config = config.display().to_string();
        let asks = if request.asks { "1" } else { "" };
        let variables = [
            (OWN_FILE_VARIABLE, config.as_str()),
            (WHO_VARIABLE, caller.who),
            (ASKS_VARIABLE, asks),
        ];
        let failed = |error: std::io::Error| {
            CommandRefusal::Failed(format!("the command could not be started: {error}"))
        };
        forget_old(&self.folder, KEPT);
        let folder = self.folder.join(self.last.fetch_add(1, Ordering::Relaxed).to_string());
        let mut process =
            Process::start(&self.program, folder, &request.words, &variables, Stdio::piped())
                .map_err(failed)?;
        let mut stdin = process.input();
        if !request.asks
            && let Some(mut pipe) = stdin.take()
        {
            let input = request.input.clone();
            // It may be more than a pipe holds, and the command may never read it.
            std::thread::spawn(move || pipe.write_all(input.as_bytes()));
        }
        Ok(Arc::new(Running {
            label: label(&cli, &request.words),
            process: Mutex::new(process),
            stdin: Mutex::new(stdin),
            only_looks: action == TokenAction::Read,
            has_ended: AtomicBool::new(false),
        }))
    }
}

/// The project that is meant: the one that was named, or the only one that the caller may see.
fn project(
    catalog: &Catalog,
    request: &CommandRequest,
    caller: CommandCaller<'_>,
) -> Result<String, CommandRefusal> {
    let sees = |name: &&String| {
        caller.scope.projects.is_empty() || caller.scope.projects.contains(name.as_str())
    };
    let mut seen = catalog.projects.keys().filter(sees);
    match &request.project {
        Some(name) => seen
            .find(|known| *known == name)
            .cloned()
            .ok_or_else(|| CommandRefusal::Hidden(format!("project `{name}`"))),
        None => match (seen.next(), seen.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => Err(CommandRefusal::Hidden("project".to_owned())),
            (Some(one), Some(other)) => Err(CommandRefusal::Usage(format!(
                "which project? There are {one}, {other} and maybe more: --project {one}, for one"
            ))),
        },
    }
}

/// What a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum About {
    /// One environment of the project.
    Environment(String),
    /// All of them.
    Project,
    /// Other projects too: what engines and the server itself have.
    Everything,
}

/// What a command is about, all of it.
fn about(cli: &Cli, catalog: &Catalog, project: &str, config: &Path) -> Vec<About> {
    let named =
        |names: &[&String]| names.iter().map(|name| About::Environment((*name).clone())).collect();
    match &cli.command {
        Command::Promote(args) => return named(&[&args.from, &args.to]),
        Command::Env(EnvCommand::Diff { one, other }) => return named(&[one, other]),
        Command::Env(EnvCommand::Show { name }) => return named(&[name]),
        Command::Env(_) => return vec![About::Project],
        Command::Edge(_) | Command::Prune(_) | Command::Top(_) | Command::Token(_) => {
            return vec![About::Everything];
        }
        _ => {}
    }
    let known = catalog.projects.get(project).map(|entry| &entry.environments);
    if let Some(name) = cli.project.environment.as_ref().filter(|name| !name.is_empty()) {
        if known.is_some_and(|known| known.contains_key(name)) {
            return named(&[name]);
        }
        // A token is for environments: one that is good for all of a group is good for the group.
        // Files that cannot be read, the command itself complains of.
        let config = Config::read(config, &OsFiles).ok();
        let members = config.as_ref().and_then(|config| config.group(name));
        return members.map_or_else(
            || named(&[name]),
            |members| members.iter().cloned().map(About::Environment).collect(),
        );
    }
    match known.map(|known| known.keys().collect::<Vec<_>>()).as_deref() {
        Some([only]) => vec![About::Environment((*only).clone())],
        _ => vec![About::Project],
    }
}

/// Whether a caller may do this there. Commands are about all services: whoever may only set the
/// tag of one has the other ways to ask for it.
fn is_allowed(
    caller: CommandCaller<'_>,
    action: TokenAction,
    project: &str,
    about: &About,
) -> bool {
    let allowed = caller.scope;
    let place = match about {
        About::Everything => allowed.projects.is_empty() && allowed.environments.is_empty(),
        About::Project => {
            allowed.environments.is_empty()
                && (allowed.projects.is_empty() || allowed.projects.contains(project))
        }
        About::Environment(environment) => {
            let (project, environment) = (project.to_owned(), environment.clone());
            allowed.covers(&Scope { project, environment })
        }
    };
    place && allowed.may(action) && allowed.covers_all_services()
}

/// The command's name and its environment: words behind options may be values.
fn label(cli: &Cli, words: &[String]) -> String {
    let known = Cli::command();
    let mut names = words.iter().filter_map(|word| known.find_subcommand(word));
    let name = names.next().map_or("?", clap::Command::get_name);
    match cli.project.environment.as_ref().filter(|name| !name.is_empty()) {
        Some(environment) => format!("{name} -e {environment}"),
        None => name.to_owned(),
    }
}

struct Running {
    label: String,
    process: Mutex<Process>,
    stdin: Mutex<Option<ChildStdin>>,
    only_looks: bool,
    has_ended: AtomicBool,
}

impl Running {
    fn process(&self) -> std::sync::MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to tell, if anything.
    fn look(&self) -> Option<CommandEvent> {
        let mut process = self.process();
        if self.has_ended.load(Ordering::Relaxed) {
            // What was printed without a line break at its end was told before.
            return Some(CommandEvent::Exit(exit(&mut process).unwrap_or(70)));
        }
        let code = exit(&mut process);
        let errors = process.errors();
        if !errors.is_empty() {
            return Some(CommandEvent::Err(errors));
        }
        let output = process.output();
        if !output.is_empty() {
            return Some(CommandEvent::Out(output));
        }
        code?;
        let (output, errors) = process.rest();
        self.has_ended.store(true, Ordering::Relaxed);
        match (output.is_empty(), errors.is_empty()) {
            (true, true) => code.map(CommandEvent::Exit),
            (false, true) => Some(CommandEvent::Out(output)),
            (_, false) => Some(CommandEvent::Err(format!("{output}{errors}"))),
        }
    }
}

/// The exit code of a process that has ended; 4 for one that was killed, since nobody knows what it
/// left.
fn exit(process: &mut Process) -> Option<u8> {
    match process.ended() {
        Ok(None) => None,
        Ok(Some(Some(code))) => Some(code),
        Ok(Some(None)) | Err(_) => Some(4),
    }
}

#[async_trait]
impl RunningCommand for Running {
    fn label(&self) -> &str {
        &self.label
    }

    async fn next(&self) -> CommandEvent {
        loop {
            if let Some(event) = self.look() {
                return event;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn input(&self, text: &str, is_last: bool) -> bool {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pipe) = stdin.as_mut() else { return false };
        let written = pipe.write_all(text.as_bytes()).and_then(|()| pipe.flush());
        if is_last {
            *stdin = None;
        }
        written.is_ok()
    }

    fn interrupt(&self) {
        self.process().interrupt();
    }

    fn abandoned(&self) {
        // One that changes something goes on; one that only looks, such as `logs --follow`, would do
        // so for nobody.
        if self.only_looks {
            self.process().interrupt();
        }
    }
}

#[cfg(test)]
mod tests {
    use shiplap_server::{EnvironmentEntry, ProjectEntry};

    use super::*;

    #[test]
    fn a_group_is_all_of_its_environments() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("shiplap.yaml");
        let text = "project: shop\n\
                    environments: { core: {}, proxy: {}, dev: {} }\n\
                    groups: { prod: [core, proxy] }\n";
        std::fs::write(&config, text).expect("written");
        let names = ["core", "proxy", "dev"];
        let environments = names.map(|name| (name.to_owned(), EnvironmentEntry::default())).into();
        let shop = ProjectEntry { environments, ..ProjectEntry::default() };
        let catalog = Catalog { projects: [("shop".to_owned(), shop)].into() };
        let of = |name: &str| {
            let cli = Cli::try_parse_from(["shiplap", "-e", name, "deploy"]).expect("words");
            about(&cli, &catalog, "shop", &config)
        };
        let environment = |name: &str| About::Environment(name.to_owned());
        assert_eq!(of("prod"), [environment("core"), environment("proxy")]);
        assert_eq!(of("dev"), [environment("dev")]);
        assert_eq!(of("nowhere"), [environment("nowhere")]);
    }
}
