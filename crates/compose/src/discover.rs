//! Which files, which variables, which name: what `docker compose` finds out before it reads.

use std::path::{Path, PathBuf};

use crate::context::{Context, Environment, clean};
use crate::diagnostic::Diagnostic;
use crate::dotenv;
use crate::layers::dotenv_error;
use crate::node::Span;
use crate::request::{Request, Trust};

const NAMES: &[&str] =
    &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDE_NAMES: &[&str] = &[
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// The Compose file that a folder has by itself, without its override.
#[must_use]
pub fn default_file(folder: &Path, files: &dyn crate::FileSource) -> Option<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).find(|path| files.exists(path))
}

/// How many parent folders are looked into. No path is that deep.
const MAX_PARENTS: usize = 256;

/// What is to be loaded.
pub(crate) struct Found {
    pub files: Vec<PathBuf>,
    pub directory: PathBuf,
    pub environment: Environment,
    pub profiles: Vec<String>,
}

/// Finds files and variables; `None` if it was reported that there are none.
pub(crate) fn find(request: &Request, ctx: &mut Context<'_>) -> Option<Found> {
    let absolute = |path: &Path| clean(&request.working_dir.join(path));
    let given_directory = request.project_directory.as_deref().map(absolute);
    let mut files: Vec<PathBuf> = request.files.iter().map(|path| absolute(path)).collect();
    let first_guess = directory_of(&given_directory, &files, &request.working_dir);
    let mut environment = variables(request, &first_guess, ctx);
    ctx.root = first_guess.clone();
    ctx.given = files.clone();

    if files.is_empty() {
        files = match environment.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
            Some(list) => {
                let separator = environment
                    .get("COMPOSE_PATH_SEPARATOR")
                    .filter(|separator| !separator.is_empty())
                    .map_or(":", String::as_str);
                list.split(separator).map(|path| absolute(Path::new(path))).collect()
            }
            None => {
                let files = default_files(&first_guess, ctx)?;
                ctx.root = directory_of(&given_directory, &files, &request.working_dir);
                files
            }
        };
    }
    let directory = directory_of(&given_directory, &files, &request.working_dir);
    if directory != first_guess {
        environment = variables(request, &directory, ctx);
    }
    let mut profiles = request.profiles.clone();
    if profiles.is_empty()
        && let Some(list) = environment.get("COMPOSE_PROFILES")
    {
        profiles.extend(list.split(',').map(|profile| profile.trim().to_string()));
    }
    Some(Found { files, directory, environment, profiles })
}

fn directory_of(given: &Option<PathBuf>, files: &[PathBuf], working_dir: &Path) -> PathBuf {
    match (given, files.first().and_then(|file| file.parent())) {
        (Some(given), _) => given.clone(),
        (None, Some(parent)) => parent.to_path_buf(),
        (None, None) => clean(working_dir),
    }
}

/// The variables of the process, then those of the files.
fn variables(request: &Request, directory: &Path, ctx: &mut Context<'_>) -> Environment {
    let process = &request.environment;
    let mut files: Vec<PathBuf> = request.env_files.clone();
    if files.is_empty()
        && let Some(list) = process.get("COMPOSE_ENV_FILES").filter(|list| !list.is_empty())
    {
        files.extend(list.split(',').map(PathBuf::from));
    }
    let mut files: Vec<PathBuf> = files.iter().map(|file| request.working_dir.join(file)).collect();
    if files.is_empty() {
        let default = directory.join(".env");
        if ctx.files.exists(&default) && !ctx.files.is_dir(&default) {
            files.push(default);
        }
    }
    let mut variables = dotenv::Variables::new();
    let lookup = |name: &str| process.get(name).cloned();
    // The user named these files, so they may stand anywhere.
    let trust = std::mem::replace(&mut ctx.trust, Trust::Trusted);
    for file in files {
        let shown = ctx.display(&file).display().to_string();
        match ctx.read(&file) {
            Ok(text) => {
                if ctx.mentioned.is_some() {
                    dotenv::mention(&text, &mut |name| ctx.mention(name));
                }
                if let Err(error) = dotenv::parse(&text, &mut variables, &lookup) {
                    dotenv_error(&shown, &error, Span::default(), ctx);
                    ctx.incomplete = true;
                }
            }
            Err(error) => {
                let message = format!("cannot read `{shown}`: {error}");
                ctx.error(error.code(), message, Span::default(), "");
                ctx.incomplete = true;
            }
        }
    }
    ctx.trust = trust;
    let mut environment = process.clone();
    for (name, value) in variables {
        // Names that start with a digit count for nothing in Compose.
        if !name.starts_with(|c: char| c.is_ascii_digit()) {
            environment.entry(name).or_insert(value);
        }
    }
    environment
}

fn default_files(start: &Path, ctx: &mut Context<'_>) -> Option<Vec<PathBuf>> {
    let first = |folder: &Path, names: &[&str]| {
        names
            .iter()
            .map(|name| folder.join(name))
            .find(|path| ctx.files.exists(path) && !ctx.files.is_dir(path))
    };
    for folder in start.ancestors().take(MAX_PARENTS) {
        if let Some(file) = first(folder, NAMES) {
            let mut files = vec![file];
            files.extend(first(folder, OVERRIDE_NAMES));
            return Some(files);
        }
    }
    let diagnostic = Diagnostic::error(
        "compose/no-file",
        format!("there is no Compose file in `{}` nor above it", start.display()),
    )
    .help("name one with `-f FILE`, or make a `compose.yaml`");
    ctx.push(diagnostic);
    None
}

/// Lower case letters, digits, `-` and `_`, not starting with the latter.
pub fn normal_name(text: &str) -> String {
    let kept: String = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    kept.trim_start_matches(['-', '_']).to_string()
}
