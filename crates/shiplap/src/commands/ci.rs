//! `ci init`: the workflow of a repository that builds an image and has it deployed.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Exit;
use crate::ci::{Found, Host, Trigger, Workflow};
use crate::cli::ProjectArgs;

/// `ci …`
#[derive(Debug, Subcommand)]
pub enum CiCommand {
    /// Write the workflow of a service's repository: build, push, have it deployed, wait
    ///
    /// It holds no secret: those are named, and kept where the git host keeps secrets. It works
    /// with `triggers.dispatch` in shiplap.yaml, where `shiplap serve` runs.
    Init(InitArgs),
}

/// `ci init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Where the repository is
    #[arg(value_enum)]
    pub host: Host,
    /// The service [default: the repository's name]
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// The image, without tag [default: as the git host's own registry names it]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The input that carries the tag [default: SERVICE_image_tag]
    #[arg(long, value_name = "NAME")]
    pub input: Option<String>,
    /// The branch whose pushes are deployed [default: the one that is checked out]
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Scan the image with trivy before it is deployed
    #[arg(long)]
    pub scan: bool,
    /// Sign the image with cosign before it is deployed
    #[arg(long)]
    pub sign: bool,
    /// Over a file that is there
    #[arg(long)]
    pub force: bool,
}

pub fn ci(project: &ProjectArgs, command: &CiCommand) -> Exit {
    let CiCommand::Init(args) = command;
    let here = project.project_directory.clone().unwrap_or_else(|| PathBuf::from("."));
    match init(&here, args) {
        Ok(()) => Exit::Done,
        Err((message, help)) => {
            eprintln!("error[ci]: {message}");
            eprintln!("  = help: {help}");
            Exit::Failed
        }
    }
}

/// A message, and what to type.
type Problem = (String, String);

fn init(here: &Path, args: &InitArgs) -> Result<(), Problem> {
    let found = Found::look(here);
    let Some(dockerfile) = found.dockerfile.clone() else {
        let message = format!("there is no Dockerfile in {}", here.display());
        return Err((message, "go to the folder of the service's repository".to_owned()));
    };
    let trigger = Trigger {
        service: args.service.clone(),
        input: args.input.clone(),
        image: args.image.clone(),
        branch: args.branch.clone(),
    };
    let mut workflow = Workflow::new(args.host, &found, dockerfile, trigger)
        .map_err(|why| (why, "`shiplap ci init --help` shows what can be given".to_owned()))?;
    workflow.scan = args.scan;
    workflow.sign = args.sign;
    let root = found.root.clone().unwrap_or_else(|| here.to_path_buf());
    let path = root.join(workflow.path());
    write(&path, &workflow.text(), args.force).map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "`--force` writes over it",
            _ => "it is as it was before",
        };
        (format!("`{}` cannot be written: {error}", path.display()), help.to_owned())
    })?;
    eprintln!("{} is written; it needs, where {} keeps them:", path.display(), args.host);
    for (name, what) in workflow.needs() {
        eprintln!("  {name}  {what}");
    }
    eprintln!("and in shiplap.yaml, where `shiplap serve` runs:");
    println!("{}", workflow.trigger());
    Ok(())
}

/// Never over something that is there, unless that was asked for.
fn write(path: &Path, text: &str, force: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().expect("it is in a folder"))?;
    if force {
        return crate::versions::write_whole(path, text);
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}
