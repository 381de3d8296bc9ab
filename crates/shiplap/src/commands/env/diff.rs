//! `env diff`: in what two environments differ.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_compose::model::{Map, Project, Service};
use shiplap_model::{RouteSpec, StoredImage, StoredRelease};

use super::super::{opened, refuse};
use super::{Exit, Format, no_config};
use crate::cli::ProjectArgs;
use crate::load::Opened;
use crate::output::limited::Limited;
use crate::output::table::columns;
use crate::secrets::Missing;

/// Stands for the Compose project's name, so that what differs in it alone counts as equal.
const OWN: &str = "PROJECT";

/// One environment, made comparable.
struct Side {
    name: String,
    project: Project,
    release: Option<StoredRelease>,
    routes: Vec<RouteSpec>,
    limits: Limited,
    secrets: BTreeSet<String>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    /// The service; nothing for what is about all.
    service: Option<String>,
    /// What differs, such as `image` or `environment.LOG_LEVEL`.
    what: String,
    /// In the one; nothing where that must not be shown.
    one: Option<String>,
    /// In the other.
    other: Option<String>,
}

pub async fn diff(project: &ProjectArgs, one: &str, other: &str, format: Format) -> Exit {
    let (one, other) = match (side(project, one).await, side(project, other).await) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(exit), _) | (_, Err(exit)) => return exit,
    };
    let found = compare(&one, &other);
    match format {
        Format::Text => print!("{}", text(&one.name, &other.name, &found)),
        Format::Json => println!("{:#}", document(&one.name, &other.name, &found)),
    }
    Exit::Done
}

async fn side(project: &ProjectArgs, name: &str) -> Result<Side, Exit> {
    let Opened { source, settings, .. } =
        opened(&crate::load::with_environment(project, name), Missing::Pretend).await?;
    let Some(settings) = settings else { return Err(no_config()) };
    let ledger = crate::ledger::open().await;
    let ledger = ledger.map_err(|error| refuse(&error.into(), None))?;
    let current = crate::overview::release(ledger.as_ref(), &source.scope()).await;
    let current = current.map_err(|error| refuse(&error.into(), None))?;
    let loaded = source.loaded.project;
    Ok(Side {
        name: settings.name.clone(),
        release: current.map(|current| current.release),
        routes: source.routes.routes,
        limits: Limited::of(&settings, &loaded),
        secrets: settings.secrets.iter().cloned().collect(),
        project: comparable(loaded),
    })
}

/// A project without its own name in the names of what it makes.
fn comparable(mut project: Project) -> Project {
    let prefix = format!("{}_", project.name);
    let shorten = |name: &mut Option<String>| {
        if let Some(rest) = name.as_ref().and_then(|name| name.strip_prefix(&prefix)) {
            *name = Some(format!("{OWN}_{rest}"));
        }
    };
    project.networks.values_mut().for_each(|network| shorten(&mut network.name));
    project.volumes.values_mut().for_each(|volume| shorten(&mut volume.name));
    project
}

fn compare(one: &Side, other: &Side) -> Vec<Difference> {
    let mut found = Vec::new();
    let names: BTreeSet<&String> =
        one.project.services.keys().chain(other.project.services.keys()).collect();
    for name in names {
        deployed(one, other, name, &mut found);
        match (one.project.services.get(name), other.project.services.get(name)) {
            (Some(first), Some(second)) => services(one, other, name, first, second, &mut found),
            (first, second) => found.push(Difference {
                service: Some(name.clone()),
                what: "service".to_owned(),
                one: Some(presence(first)),
                other: Some(presence(second)),
            }),
        }
    }
    let keys = |what: &str, one: Vec<String>, other: Vec<String>, found: &mut Vec<Difference>| {
        if one != other {
            let show = |names: Vec<String>| Some(names.join(", "));
            let (one, other) = (show(one), show(other));
            found.push(Difference { service: None, what: what.to_owned(), one, other });
        }
    };
    let (a, b) = (&one.project, &other.project);
    let networks = |p: &Project| named(&p.networks, |n| (n.name.as_deref(), n.external));
    keys("networks", networks(a), networks(b), &mut found);
    let volumes = |p: &Project| named(&p.volumes, |v| (v.name.as_deref(), v.external));
    keys("volumes", volumes(a), volumes(b), &mut found);
    let secrets = |side: &Side| side.secrets.iter().cloned().collect();
    keys("secrets", secrets(one), secrets(other), &mut found);
    keys("routes", routes(&one.routes), routes(&other.routes), &mut found);
    let budget = |side: &Side| side.limits.budget().into_iter().collect();
    keys("limits", budget(one), budget(other), &mut found);
    found
}

fn presence(service: Option<&Service>) -> String {
    if service.is_some() { "there" } else { "not there" }.to_owned()
}

/// What was deployed, by its very content rather than by the name that it was asked for by.
fn deployed(one: &Side, other: &Side, name: &str, found: &mut Vec<Difference>) {
    let image = |side: &Side| {
        let release = side.release.as_ref()?;
        release.services.get(name).map(|service| service.image.clone())
    };
    let (first, second) = (image(one), image(other));
    let is_same = match (&first, &second) {
        (None, None) => true,
        (Some(first), Some(second)) => same_image(first, second),
        _ => false,
    };
    if !is_same {
        let words = |image: Option<StoredImage>| {
            Some(image.map_or_else(|| "not deployed".to_owned(), |image| short(&image)))
        };
        found.push(Difference {
            service: Some(name.to_owned()),
            what: "deployed image".to_owned(),
            one: words(first),
            other: words(second),
        });
    }
}

fn same_image(one: &StoredImage, other: &StoredImage) -> bool {
    let both = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    both(&one.digest, &other.digest) || both(&one.id, &other.id)
}

fn short(image: &StoredImage) -> String {
    let id = image.digest.as_ref().or(image.id.as_ref());
    let id: String =
        id.map_or("", String::as_str).trim_start_matches("sha256:").chars().take(12).collect();
    format!("{} ({id})", image.reference)
}

fn services(
    one: &Side,
    other: &Side,
    name: &str,
    first: &Service,
    second: &Service,
    found: &mut Vec<Difference>,
) {
    let mut shown = |what: &str, one: String, other: String| {
        if one != other {
            let (service, what) = (Some(name.to_owned()), what.to_owned());
            found.push(Difference { service, what, one: Some(one), other: Some(other) });
        }
    };
    let image = |service: &Service| service.image.clone().unwrap_or_else(|| "built".to_owned());
    shown("image", image(first), image(second));
    shown("replicas", first.replicas().to_string(), second.replicas().to_string());
    shown("ports", ports(first), ports(second));
    let secrets = |service: &Service| {
        let names = service.secrets.iter().filter_map(|secret| secret.source.clone());
        names.collect::<Vec<_>>().join(", ")
    };
    shown("secrets", secrets(first), secrets(second));
    let fields = |side: &Side, service| shiplap_plan::fields_of(&side.project, service, &[], &[]);
    let differing = fields(one, first).differing(&fields(other, second));
    found.extend(differing.into_iter().map(|what| Difference {
        service: Some(name.to_owned()),
        what,
        one: None,
        other: None,
    }));
}

fn ports(service: &Service) -> String {
    let port = |port: &shiplap_compose::model::Port| {
        let host = port.published.as_deref().unwrap_or("any");
        format!("{host}:{}", port.target)
    };
    service.ports.iter().map(port).collect::<Vec<_>>().join(", ")
}

/// Keys, with those names that are not made from them.
fn named<T>(all: &Map<T>, of: impl Fn(&T) -> (Option<&str>, bool)) -> Vec<String> {
    let mut names: Vec<String> = all
        .iter()
        .map(|(key, one)| match of(one) {
            (name, true) => format!("{key} ({}, external)", name.unwrap_or(key)),
            (Some(name), false) if name != format!("{OWN}_{key}") => format!("{key} ({name})"),
            (_, false) => key.clone(),
        })
        .collect();
    names.sort();
    names
}

fn routes(all: &[RouteSpec]) -> Vec<String> {
    let route = |route: &RouteSpec| {
        let words = route.policy.words();
        let words =
            if words.is_empty() { String::new() } else { format!(" [{}]", words.join(", ")) };
        format!("{route} → {}{words}", route.to)
    };
    all.iter().map(route).collect()
}

fn text(one: &str, other: &str, found: &[Difference]) -> String {
    if found.is_empty() {
        return format!("{one} and {other} are alike\n");
    }
    let mut text = format!("{one} → {other}\n");
    let mut services: Vec<Option<&str>> = Vec::new();
    for difference in found {
        let service = difference.service.as_deref();
        if !services.contains(&service) {
            services.push(service);
        }
    }
    for service in services {
        let _ = writeln!(text, "{}", service.unwrap_or("the project"));
        let mine = found.iter().filter(|difference| difference.service.as_deref() == service);
        let rows: Vec<Vec<String>> = mine.map(row).collect();
        text.push_str(&columns(&rows));
    }
    text
}

fn row(difference: &Difference) -> Vec<String> {
    let show = |value: &Option<String>| match value.as_deref() {
        Some("") => "none".to_owned(),
        Some(value) => value.to_owned(),
        None => String::new(),
    };
    let what = format!("  {}", difference.what);
    match (&difference.one, &difference.other) {
        (None, None) => vec![what, "differs".to_owned()],
        (one, other) => vec![what, format!("{} → {}", show(one), show(other))],
    }
}

fn document(one: &str, other: &str, found: &[Difference]) -> Value {
    let difference = |difference: &Difference| {
        json!({
            "service": difference.service,
            "what": difference.what,
            "one": difference.one,
            "other": difference.other,
        })
    };
    json!({
        "version": 1,
        "one": one,
        "other": other,
        "alike": found.is_empty(),
        "differences": found.iter().map(difference).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shiplap_compose::{MemoryFiles, Request};
    use shiplap_model::StoredService;

    use super::*;

    fn side(name: &str, compose: &str, digest: &str) -> Side {
        let files = MemoryFiles::from([("/shop/compose.yaml", compose.to_owned())]);
        let request = Request {
            working_dir: Path::new("/shop").into(),
            project_name: Some(format!("shop-{name}")),
            ..Request::default()
        };
        let project = shiplap_compose::load(&request, &files).expect("it is right").project;
        let image = StoredImage {
            reference: "api:1".to_owned(),
            id: None,
            digest: Some(format!("sha256:{digest}")),
        };
        let services = [("api".to_owned(), StoredService { image, replicas: 1 })].into();
        Side {
            name: name.to_owned(),
            project: comparable(project),
            release: Some(StoredRelease { version: 1, services }),
            routes: Vec::new(),
            limits: Limited { cpus: None, memory_bytes: None, services: Vec::new() },
            secrets: BTreeSet::new(),
        }
    }

    const COMPOSE: &str = "
services:
  api:
    image: api:1
    environment: { LEVEL: info, PASSWORD: hunter2 }
    volumes: [\"data:/data\"]
volumes: { data: {} }
";

    #[test]
    fn names_that_the_project_gives_are_no_difference() {
        let (prod, dev) = (side("prod", COMPOSE, "aa"), side("dev", COMPOSE, "aa"));
        assert_eq!(compare(&prod, &dev), []);
        assert_eq!(text("prod", "dev", &[]), "prod and dev are alike\n");
    }

    #[test]
    fn differing_variables_are_named_and_their_values_are_not() {
        let other = COMPOSE
            .replace("hunter2", "s3cr3t")
            .replace("image: api:1", "image: api:2\n    deploy: { replicas: 3 }")
            .replace("{ data: {} }", "{ data: { name: store } }");
        let (prod, dev) = (side("prod", COMPOSE, "aa"), side("dev", &other, "bb"));
        let found = compare(&prod, &dev);
        assert_eq!(
            text("prod", "dev", &found),
            "prod → dev\n\
             api\n\
             \x20 deployed image        api:1 (aa) → api:1 (bb)\n\
             \x20 image                 api:1 → api:2\n\
             \x20 replicas              1 → 3\n\
             \x20 environment.PASSWORD  differs\n\
             \x20 volumes./data         differs\n\
             the project\n\
             \x20 volumes  data → data (store)\n"
        );
        let whole = document("prod", "dev", &found).to_string();
        assert!(!whole.contains("hunter2") && !whole.contains("s3cr3t"), "{whole}");
    }
}
