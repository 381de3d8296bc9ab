//! `init`: a `shiplap.yaml` for what is in a folder.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use shiplap_compose::{OsFiles, default_file};
use shiplap_config::{Config, FILE_NAMES};

use super::{Exit, show_diagnostics};
use crate::cli::ProjectArgs;
use crate::init::{Folder, Front, Plan};

/// `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Another proxy has ports 80 and 443: the edge listens at 127.0.0.1:7080, and the few lines
    /// that the other one needs once are printed
    #[arg(long, value_enum, value_name = "PROXY")]
    pub behind: Option<Front>,
}

pub async fn init(project: &ProjectArgs, args: &InitArgs) -> Exit {
    let here = project.project_directory.clone().unwrap_or_else(|| PathBuf::from("."));
    let here = std::path::absolute(&here).unwrap_or(here);
    if let Some(there) = FILE_NAMES.iter().map(|name| here.join(name)).find(|path| path.exists()) {
        eprintln!("error[init]: `{}` is there already, and stays as it is", there.display());
        eprintln!("  = help: `shiplap check` tells what is wrong with it");
        return Exit::Failed;
    }
    if default_file(&here, &OsFiles).is_none() {
        eprintln!("error[compose/no-file]: there is no Compose file in {}", here.display());
        eprintln!("  = help: go to the project's folder first");
        return Exit::Failed;
    }
    let plan = Plan::of(&Folder::read(&here), args.behind);
    let path = here.join(FILE_NAMES[0]);
    let text = plan.text();
    if let Err(problems) = Config::parse(&path, &text) {
        // Whatever a folder holds, what is written must be right.
        show_diagnostics(&problems);
        return Exit::OurBug;
    }
    if let Err(error) = write(&path, &text) {
        eprintln!("error[init]: `{}` cannot be written: {error}", path.display());
        return Exit::Failed;
    }
    eprintln!("{} is written: {}", path.display(), plan.names().join(", "));
    if let Some(front) = args.behind {
        eprintln!("what {front} needs, once:");
        println!("{}", plan.lines_for(front));
    }
    eprintln!("`shiplap check` looks at it, `shiplap -e {} plan` shows more", plan.names()[0]);
    Exit::Done
}

/// Never over something that is there.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
