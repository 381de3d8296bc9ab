//! `edge certificates`: what the edge shows to clients of TLS, where it comes from, and its renewal.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use shiplap_certificates::{
    Acme, Became, ChallengeKind, ExternalAccount, Keeper, KeeperError, Kept, LETS_ENCRYPT,
    LETS_ENCRYPT_STAGING, Outcome, Renewal, Source, Wanted,
};
use shiplap_config::{Certificates, Settings};
use shiplap_model::RouteTable;

use super::{Exit, Format};
use crate::cli::ProjectArgs;
use crate::output::time::moment;
use crate::world::Place;

/// `edge certificates`.
#[derive(Debug, Clone, Args)]
pub struct CertificatesArgs {
    /// Renew what is due, take up files that have changed, and see to it that the edge shows it
    /// all: for a timer, each hour or so
    #[arg(long)]
    renew: bool,
    /// With --renew: all of them, whether it is time or not
    #[arg(long, requires = "renew")]
    now: bool,
    #[command(subcommand)]
    command: Option<CertificatesCommand>,
}

#[derive(Debug, Clone, Subcommand)]
enum CertificatesCommand {
    /// Get a certificate for these names, and keep it renewed
    Add(Box<AddArgs>),
    /// Show it no more, and delete its key
    Remove {
        /// The first of its names
        name: String,
    },
    /// Open ports for the routes of the edge: HTTP, and HTTPS with these certificates
    Listen {
        /// For routes of the entry `http`, and for authorities that ask by HTTP-01
        #[arg(long, value_name = "PORT")]
        http: Option<u16>,
        /// For routes of the entry `https`
        #[arg(long, value_name = "PORT")]
        https: Option<u16>,
        /// Close them instead
        #[arg(long, conflicts_with_all = ["http", "https"])]
        close: bool,
    },
    /// Say how clients are made to believe certificates of --internal
    Trust,
}

#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["given", "internal", "acme"]))]
struct AddArgs {
    /// shop.example, or *.shop.example; the first one names the certificate
    #[arg(required = true)]
    names: Vec<String>,
    /// Somebody else puts it, and newer ones, into these files: PEM, the chain and its key
    // Not `files`: so are called the project's.
    #[arg(long = "files", num_args = 2, value_names = ["CHAIN", "KEY"])]
    given: Option<Vec<PathBuf>>,
    /// From an authority of our own, for development; see `trust`
    #[arg(long)]
    internal: bool,
    /// From an authority that looks at the host: Let's Encrypt unless --directory names another.
    /// Its terms of service are agreed to
    #[arg(long)]
    acme: bool,
    /// The address of the authority's directory
    #[arg(long, value_name = "URL", requires = "acme", conflicts_with = "staging")]
    directory: Option<String>,
    /// Let's Encrypt's directory for trying things
    #[arg(long, requires = "acme")]
    staging: bool,
    /// How the authority looks: at port 80, or at port 443
    #[arg(long, requires = "acme", default_value = "http-01")]
    challenge: Challenge,
    /// Where the authority may write to, such as ops@shop.example
    #[arg(long, value_name = "ADDRESS", requires = "acme")]
    contact: Option<String>,
    /// Believe these too when talking to the directory: PEM
    #[arg(long, value_name = "FILE", requires = "acme")]
    roots: Option<PathBuf>,
    /// Bind the account to one that the authority knows us by: the name of its key
    #[arg(long, value_name = "ID", requires = "acme", requires = "eab_key_file")]
    eab_key_id: Option<String>,
    /// The key itself, in base64url
    #[arg(long, value_name = "FILE", requires = "eab_key_id")]
    eab_key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Challenge {
    #[value(name = "http-01")]
    Http01,
    #[value(name = "tls-alpn-01")]
    TlsAlpn01,
}

pub async fn certificates(project: &ProjectArgs, args: &CertificatesArgs, format: Format) -> Exit {
    let place = match super::machine(project) {
        Ok(place) => place,
        Err(exit) => return exit,
    };
    let (edge, _world) = match super::edge::edge_at(&place).await {
        Ok(found) => found,
        Err(error) => return super::refuse(&error, None),
    };
    let keeper = Keeper::new(shiplap_certificates::folder(&place.state_dir()), edge);
    let outcome = match &args.command {
        None if args.renew => {
            keeper.renew(if args.now { Renewal::Now } else { Renewal::Due }).await
        }
        None => return list(&keeper, format),
        Some(CertificatesCommand::Add(args)) => keeper.add(wanted(args)).await,
        Some(CertificatesCommand::Remove { name }) => keeper.remove(name).await,
        Some(CertificatesCommand::Listen { http, https, close }) => {
            if http.is_none() && https.is_none() && !close {
                eprintln!("error[usage]: which ports? --http 80 --https 443, or --close");
                return Exit::Usage;
            }
            return match keeper.listen(*http, *https).await {
                Ok(()) => Exit::Done,
                Err(error) => failed(&error),
            };
        }
        Some(CertificatesCommand::Trust) => return trust(&keeper, format),
    };
    match outcome {
        Ok(outcome) => tell(&outcome, format),
        Err(error) => failed(&error),
    }
}

/// Gets the certificates that an environment's routes want, where there are none yet. It is no part of
/// a deployment: until there is one for a host, requests without TLS are answered there.
pub async fn provide(place: &Place, settings: &Settings, routes: &RouteTable) {
    let Some(tls) = &settings.tls else { return };
    let mut hosts: Vec<String> = routes.routes.iter().filter_map(|r| r.host.clone()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    if hosts.is_empty() {
        return;
    }
    let source = match &tls.from {
        Certificates::Internal => Source::Internal,
        Certificates::Files { certificate, key } => {
            Source::Files { chain: whole(certificate), key: whole(key) }
        }
        Certificates::Acme(acme) => Source::Acme(Acme {
            directory: acme.directory.clone(),
            challenge: match acme.challenge {
                shiplap_config::Challenge::Http01 => ChallengeKind::Http01,
                shiplap_config::Challenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
            },
            contact: acme.email.clone(),
            roots: acme.roots.as_ref().map(whole),
            external_account: None,
        }),
    };
    // One for each host, so that one that fails takes no other with it; files are for all that they
    // are for.
    let groups: Vec<Vec<String>> = match source {
        Source::Files { .. } => vec![hosts],
        Source::Internal | Source::Acme(_) => hosts.into_iter().map(|host| vec![host]).collect(),
    };
    let (edge, _world) = match super::edge::edge_at(place).await {
        Ok(found) => found,
        Err(error) => {
            eprintln!("! no certificates are got: {error}");
            return;
        }
    };
    let keeper = Keeper::new(shiplap_certificates::folder(&place.state_dir()), edge);
    let kept = keeper.list().unwrap_or_default();
    for names in groups {
        let wanted = Wanted { names, source: source.clone() };
        let is_kept = kept.iter().any(|kept| kept.wanted == wanted && kept.not_after.is_some());
        // A file may have been replaced by a newer one.
        if is_kept && !matches!(wanted.source, Source::Files { .. }) {
            continue;
        }
        match keeper.add(wanted).await {
            Ok(outcome) => {
                tell_beside(&outcome);
            }
            Err(error) => {
                let _ = failed(&error);
            }
        }
    }
}

/// What became of them, for whoever watches a deployment: its own standard output is data.
fn tell_beside(outcome: &Outcome) {
    for (name, became) in &outcome.became {
        match became {
            Became::Kept => {}
            Became::Renewed => eprintln!("{name}: new certificate"),
            Became::Waiting { until } => {
                eprintln!(
                    "! {name}: no certificate yet; tried again from {} on",
                    moment(ms(*until))
                );
            }
            Became::Failed { error, try_again_at } => {
                let at = moment(ms(*try_again_at));
                eprintln!("! {name}: no certificate: {error}");
                eprintln!("  = help: `shiplap edge certificates --renew` tries again from {at} on");
            }
        }
    }
    if let Err(error) = &outcome.shown {
        eprintln!("! the edge does not show the certificates that there are: {error}");
    }
}

fn wanted(args: &AddArgs) -> Wanted {
    let source = match (args.given.as_deref(), args.internal) {
        (Some([chain, key]), _) => Source::Files { chain: whole(chain), key: whole(key) },
        (_, true) => Source::Internal,
        (_, false) => Source::Acme(Acme {
            directory: match (&args.directory, args.staging) {
                (Some(given), _) => given.clone(),
                (None, true) => LETS_ENCRYPT_STAGING.to_owned(),
                (None, false) => LETS_ENCRYPT.to_owned(),
            },
            challenge: match args.challenge {
                Challenge::Http01 => ChallengeKind::Http01,
                Challenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
            },
            contact: args.contact.clone(),
            roots: args.roots.as_ref().map(whole),
            external_account: match (&args.eab_key_id, &args.eab_key_file) {
                (Some(key_id), Some(key_file)) => {
                    Some(ExternalAccount { key_id: key_id.clone(), key_file: whole(key_file) })
                }
                (Some(_), None) | (None, Some(_)) | (None, None) => None,
            },
        }),
    };
    Wanted { names: args.names.iter().map(|name| name.to_ascii_lowercase()).collect(), source }
}

/// A timer has another folder to start from.
fn whole(path: &PathBuf) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.clone())
}

fn list(keeper: &Keeper, format: Format) -> Exit {
    let all = match keeper.list() {
        Ok(all) => all,
        Err(error) => return failed(&error),
    };
    if format == Format::Json {
        let all: Vec<Value> = all.iter().map(as_json).collect();
        println!("{:#}", json!({"version": 1, "certificates": all}));
        return Exit::Done;
    }
    if all.is_empty() {
        println!("no certificates are kept; `shiplap edge certificates add` gets one");
    }
    for kept in &all {
        let valid = kept.not_after.map_or_else(
            || "none yet".to_owned(),
            |until| match until < SystemTime::now() {
                true => format!("EXPIRED {}", moment(ms(until))),
                false => format!("valid until {}", moment(ms(until))),
            },
        );
        println!("{}  {}  {valid}", kept.wanted.names.join(" "), source(&kept.wanted.source));
        if let Some(at) = renewal(kept) {
            println!("  renewed from {} on", moment(ms(at)));
        }
        if let Some(error) = &kept.last_error {
            let times = if kept.failures == 1 { "once" } else { "several times" };
            println!("  ! failed {times}: {error}");
        }
        if let Some(at) = kept.try_again_at {
            println!("  tried again from {} on", moment(ms(at)));
        }
    }
    Exit::Done
}

/// Files change when they do.
fn renewal(kept: &Kept) -> Option<SystemTime> {
    match kept.wanted.source {
        Source::Files { .. } => None,
        Source::Internal | Source::Acme(_) => kept.renew_at,
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Files { chain, .. } => format!("from {}", chain.display()),
        Source::Internal => "from our own authority".to_owned(),
        Source::Acme(acme) => format!("from {}", acme.directory),
    }
}

fn as_json(kept: &Kept) -> Value {
    json!({
        "names": kept.wanted.names,
        "source": kept.wanted.source,
        "not_after_ms": kept.not_after.map(ms),
        "renew_at_ms": renewal(kept).map(ms),
        "failures": kept.failures,
        "try_again_at_ms": kept.try_again_at.map(ms),
        "last_error": kept.last_error,
    })
}

fn tell(outcome: &Outcome, format: Format) -> Exit {
    let exit = if outcome.is_good() { Exit::Done } else { Exit::Failed };
    if format == Format::Json {
        let became: Vec<Value> = outcome
            .became
            .iter()
            .map(|(name, became)| match became {
                Became::Kept => json!({"name": name, "became": "kept"}),
                Became::Renewed => json!({"name": name, "became": "renewed"}),
                Became::Waiting { until } => {
                    json!({"name": name, "became": "waiting", "try_again_at_ms": ms(*until)})
                }
                Became::Failed { error, try_again_at } => json!({
                    "name": name,
                    "became": "failed",
                    "error": error,
                    "try_again_at_ms": ms(*try_again_at),
                }),
            })
            .collect();
        let error = outcome.shown.as_ref().err();
        println!("{:#}", json!({"version": 1, "certificates": became, "edge_error": error}));
        return exit;
    }
    for (name, became) in &outcome.became {
        match became {
            Became::Kept => {}
            Became::Renewed => println!("{name}: new certificate"),
            Became::Waiting { until } => {
                println!("{name}: failed before, tried again from {} on", moment(ms(*until)));
            }
            Became::Failed { error, try_again_at } => {
                eprintln!("error[edge/certificate]: {name}: {error}");
                let at = moment(ms(*try_again_at));
                eprintln!("  = help: `--renew` tries again from {at} on, `--renew --now` at once");
            }
        }
    }
    if let Err(error) = &outcome.shown {
        eprintln!("error[edge]: the edge does not show what there is: {error}");
        eprintln!("  = help: `shiplap edge certificates --renew` once it runs");
    }
    exit
}

fn trust(keeper: &Keeper, format: Format) -> Exit {
    let path = match keeper.authority() {
        Ok(path) => path,
        Err(error) => return failed(&error),
    };
    if format == Format::Json {
        println!("{:#}", json!({"version": 1, "authority": path}));
        return Exit::Done;
    }
    let path = path.display();
    println!("# Debian, Ubuntu");
    println!("sudo cp {path} /usr/local/share/ca-certificates/shiplap.crt");
    println!("sudo update-ca-certificates");
    println!("# Fedora, Arch");
    println!("sudo trust anchor --store {path}");
    println!("# macOS, with a copy of the file");
    println!("sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain ca.pem");
    println!("# Firefox: Settings, Certificates, Authorities, Import");
    println!("# only once");
    println!("curl --cacert {path} https://…");
    Exit::Done
}

fn failed(error: &KeeperError) -> Exit {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    eprintln!("error[edge/certificates]: {error}{}", cause.unwrap_or_default());
    match error {
        KeeperError::Wanted(_) | KeeperError::NameTaken { .. } | KeeperError::Unknown(_) => {
            Exit::Usage
        }
        KeeperError::Store(_) | KeeperError::Authority(_) | KeeperError::Edge(_) => Exit::Failed,
    }
}

fn ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
