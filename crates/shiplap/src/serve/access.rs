//! What a command needs of whoever asks a control server for it.

use shiplap_model::TokenAction;

use crate::cli::{Cli, Command, EdgeCommand, EnvCommand};

/// Why a command is not run on a server, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotThere(pub String);

/// What a command does, in the terms of tokens.
///
/// # Errors
/// Commands that make sense only where they are typed, and options that name files.
pub fn needed(cli: &Cli, words: &[String]) -> Result<TokenAction, NotThere> {
    let project = &cli.project;
    let names_files = !project.files.is_empty()
        || !project.env_files.is_empty()
        || project.project_directory.is_some()
        // A variable may name it as well, which is the server's own.
        || words.iter().any(|word| word.starts_with("--config-file"));
    if names_files {
        let message = "the server's projects have their files there: -f, --env-file, --config-file \
                       and --project-directory are for this machine";
        return Err(NotThere(message.to_owned()));
    }
    if project.project_name.is_some() {
        return Err(NotThere(
            "-p is for this machine; on a server it is --project NAME".to_owned(),
        ));
    }
    let here = || Err(NotThere("this command is for the machine where it is typed".to_owned()));
    Ok(match &cli.command {
        Command::Plan(_)
        | Command::Status
        | Command::Top(_)
        | Command::History(_)
        | Command::Show { .. }
        | Command::Logs(_)
        | Command::Check(_)
        | Command::Env(EnvCommand::List | EnvCommand::Show { .. } | EnvCommand::Diff { .. })
        | Command::Edge(EdgeCommand::Status) => TokenAction::Read,
        Command::Deploy(_)
        | Command::Promote(_)
        | Command::Resume(_)
        | Command::Restart(_)
        | Command::Scale(_)
        | Command::Pause(_)
        | Command::Maintenance(_)
        | Command::Env(EnvCommand::Verify(_)) => TokenAction::Deploy,
        Command::Rollback(_) => TokenAction::Rollback,
        Command::Retire { .. }
        | Command::Link { .. }
        | Command::Init(_)
        | Command::Schema
        | Command::Serve(_)
        | Command::Ci(_)
        | Command::Htpasswd { .. }
        | Command::Edge(EdgeCommand::Supervise | EdgeCommand::HoldNames | EdgeCommand::Work)
        | Command::Env(EnvCommand::Probe { .. }) => return here(),
        // Its output has values of plain `.env` files.
        Command::Config(_) => TokenAction::Admin,
        Command::Exec(_)
        | Command::Down(_)
        | Command::Prune(_)
        | Command::Secrets(_)
        | Command::Data(_)
        | Command::Token(_)
        | Command::Push(_)
        | Command::Build(_)
        | Command::Env(_)
        | Command::Edge(_) => TokenAction::Admin,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn of(line: &str) -> Result<TokenAction, NotThere> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        needed(&Cli::try_parse_from(&words).expect("a command line"), &words)
    }

    #[test]
    fn looking_deploying_and_all_else_need_different_tokens() {
        assert_eq!(of("shiplap -e prod status"), Ok(TokenAction::Read));
        assert_eq!(of("shiplap -e prod deploy --set api=v2"), Ok(TokenAction::Deploy));
        assert_eq!(of("shiplap promote dev prod"), Ok(TokenAction::Deploy));
        assert_eq!(of("shiplap -e prod rollback api"), Ok(TokenAction::Rollback));
        assert_eq!(of("shiplap -e prod exec api -- sh"), Ok(TokenAction::Admin));
        assert_eq!(of("shiplap config"), Ok(TokenAction::Admin));
        assert_eq!(of("shiplap secrets list"), Ok(TokenAction::Admin));
    }

    #[test]
    fn files_of_the_server_cannot_be_named() {
        for line in [
            "shiplap -f /etc/passwd config",
            "shiplap --env-file /etc/shadow status",
            "shiplap --config-file /x status",
            "shiplap --project-directory / status",
            "shiplap -p shop status",
            "shiplap init",
            "shiplap edge work",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
