//! `token`: who may ask a control server for what.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use shiplap_execute::now_ms;
use shiplap_model::{LedgerError, Store, Token, TokenAction, TokenScope};
use shiplap_server::NewToken;

use super::{Exit, Format};
use crate::output::{table, time};

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one, and show it this once
    ///
    /// What is not limited is allowed: give a service repository a token for its environment, its
    /// service and its image.
    Create(CreateArgs),
    /// List them, without what proves them
    List,
    /// Make one not work any more
    Revoke {
        /// Its id, or its name where only one has it
        token: String,
    },
}

/// `token create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// A name, for history and the audit log
    pub name: String,
    /// What it may do
    #[arg(long, value_enum, value_delimiter = ',', required = true, value_name = "ACTION")]
    pub may: Vec<May>,
    /// Only these projects [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub projects: Vec<String>,
    /// Only these environments [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub environments: Vec<String>,
    /// Only these services [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub services: Vec<String>,
    /// Only services with an image of these repositories, and only tags of the same one, such as
    /// ghcr.io/shop/api [default: all]
    #[arg(long, value_delimiter = ',', value_name = "REPOSITORY")]
    pub images: Vec<String>,
    /// How long it works, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration)]
    pub expires: Option<Duration>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum May {
    /// See what runs and what happened
    Read,
    /// Deploy, promote, restart and scale
    Deploy,
    /// Go back to an earlier deployment
    Rollback,
    /// Everything
    Admin,
}

pub async fn token(command: &TokenCommand, format: Format) -> Exit {
    let store = match crate::ledger::open().await {
        Ok(store) => store,
        Err(error) => return failed(&error),
    };
    let result = match command {
        TokenCommand::Create(args) => create(store.as_ref(), args, format).await,
        TokenCommand::List => list(store.as_ref(), format).await,
        TokenCommand::Revoke { token } => revoke(store.as_ref(), token).await,
    };
    result.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &LedgerError) -> Exit {
    eprintln!("error[ledger]: {error}");
    Exit::Failed
}

async fn create(store: &dyn Store, args: &CreateArgs, format: Format) -> Result<Exit, LedgerError> {
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<String>>();
    if args.name.trim().is_empty() || args.name.chars().any(char::is_control) {
        eprintln!("error[usage]: a name is not empty, and one line");
        return Ok(Exit::Usage);
    }
    if let Some(tagged) = args.images.iter().find(|image| has_tag(image)) {
        eprintln!("error[usage]: `{tagged}` is an image; a repository has no tag");
        return Ok(Exit::Usage);
    }
    let action = |may: &May| match may {
        May::Read => TokenAction::Read,
        May::Deploy => TokenAction::Deploy,
        May::Rollback => TokenAction::Rollback,
        May::Admin => TokenAction::Admin,
    };
    let scope = TokenScope {
        actions: args.may.iter().map(action).collect(),
        projects: set(&args.projects),
        environments: set(&args.environments),
        services: set(&args.services),
        images: set(&args.images),
    };
    let now = now_ms();
    let life = args.expires.map(|life| i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
    let expires = life.map(|life| now.saturating_add(life));
    let new = match NewToken::make(args.name.trim(), scope, &crate::world::who(), now, expires) {
        Ok(new) => new,
        Err(error) => {
            eprintln!("error[token]: there is no randomness to make it of: {error}");
            return Ok(Exit::Failed);
        }
    };
    store.add_token(&new.token).await?;
    let shown = new.shown.expose();
    match format {
        Format::Json => {
            let mut view = view(&new.token);
            view["token"] = json!(shown);
            println!("{view:#}");
        }
        Format::Text => {
            println!("{shown}");
            eprintln!("it is shown this once; `shiplap token revoke {}` ends it", new.token.id);
        }
    }
    Ok(Exit::Done)
}

fn has_tag(image: &str) -> bool {
    image.contains('@') || image.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'))
}

async fn list(store: &dyn Store, format: Format) -> Result<Exit, LedgerError> {
    let tokens = store.tokens().await?;
    match format {
        Format::Json => {
            let all: Vec<Value> = tokens.iter().map(view).collect();
            println!("{:#}", json!({ "version": 1, "tokens": all }));
        }
        Format::Text if tokens.is_empty() => {
            println!("there are none; `shiplap token create NAME --may deploy` makes one");
        }
        Format::Text => {
            let head = ["ID", "NAME", "MAY", "ONLY", "USED", "WORKS"].map(str::to_owned).to_vec();
            let rows = std::iter::once(head).chain(tokens.iter().map(row));
            print!("{}", table::columns(&rows.collect::<Vec<_>>()));
        }
    }
    Ok(Exit::Done)
}

fn row(token: &Token) -> Vec<String> {
    let scope = &token.scope;
    let limits = [&scope.projects, &scope.environments, &scope.services, &scope.images];
    let limits: Vec<&str> = limits.into_iter().flatten().map(String::as_str).collect();
    let now = now_ms();
    let works = match (token.revoked_ms, token.expires_ms) {
        (Some(at), _) => format!("revoked {}", time::moment(at)),
        (None, Some(end)) if end <= now => format!("expired {}", time::moment(end)),
        (None, Some(end)) => format!("until {}", time::moment(end)),
        (None, None) => "yes".to_owned(),
    };
    vec![
        token.id.clone(),
        token.name.clone(),
        scope.actions.iter().map(|action| word(*action)).collect::<Vec<_>>().join(","),
        if limits.is_empty() { "-".to_owned() } else { limits.join(" ") },
        token.used_ms.map_or_else(|| "never".to_owned(), time::moment),
        works,
    ]
}

fn word(action: TokenAction) -> &'static str {
    match action {
        TokenAction::Read => "read",
        TokenAction::Deploy => "deploy",
        TokenAction::Rollback => "rollback",
        TokenAction::Admin => "admin",
    }
}

fn view(token: &Token) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "scope": token.scope,
        "made_by": token.made_by,
        "made": time::stamp(token.made_ms),
        "expires": token.expires_ms.map(time::stamp),
        "used": token.used_ms.map(time::stamp),
        "revoked": token.revoked_ms.map(time::stamp),
    })
}

async fn revoke(store: &dyn Store, named: &str) -> Result<Exit, LedgerError> {
    let tokens = store.tokens().await?;
    let live = |token: &&Token| token.revoked_ms.is_none();
    let by_name: Vec<&Token> =
        tokens.iter().filter(live).filter(|token| token.name == named).collect();
    let id = match (tokens.iter().find(|token| token.id == named), by_name.as_slice()) {
        (Some(token), _) => &token.id,
        (None, [only]) => &only.id,
        (None, []) => {
            eprintln!("error[token]: there is no token `{named}` that works");
            eprintln!("  = help: `shiplap token list`");
            return Ok(Exit::Failed);
        }
        (None, several) => {
            let ids: Vec<&str> = several.iter().map(|token| token.id.as_str()).collect();
            eprintln!("error[token]: several are called `{named}`: {}", ids.join(", "));
            return Ok(Exit::Failed);
        }
    };
    if store.revoke_token(id, now_ms()).await? {
        eprintln!("token {id} does not work any more");
        Ok(Exit::Done)
    } else {
        eprintln!("token {id} did not work before either");
        Ok(Exit::Done)
    }
}
