//! Whether the parts of a project fit together.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::context::{Context, nearest};
use crate::diagnostic::Diagnostic;
use crate::model::{FileObject, MountKind, Project, Resources, Service};
use crate::node::{Node, Span};
use crate::request::Tolerance;
use crate::spans::find;

/// What the checks look at.
pub(crate) struct Subject<'a> {
    pub project: &'a Project,
    /// Services that no profile asks for.
    pub inactive: &'a HashMap<String, Service>,
    /// The merged tree, for places.
    pub tree: &'a Node,
}

impl Subject<'_> {
    fn span(&self, path: &[&str]) -> Span {
        find(self.tree, path).unwrap_or_default()
    }
}

/// Checks what must hold for every service and resource, active or not.
pub(crate) fn everything(project: &Project, tree: &Node, ctx: &mut Context<'_>) {
    let inactive = HashMap::new();
    let subject = Subject { project, inactive: &inactive, tree };
    for (name, volume) in &project.volumes {
        let extra = [
            ("driver", volume.driver.is_some()),
            ("driver_opts", !volume.driver_opts.is_empty()),
            ("labels", !volume.labels.is_empty()),
        ];
        for (key, there) in extra {
            if volume.external && there {
                let span = subject.span(&["volumes", name, key]);
                let message = format!("the volume `{name}` is external and cannot have `{key}`");
                ctx.error("compose/external-conflict", message, span, "not with `external`");
            }
        }
    }
    for (name, secret) in &project.secrets {
        let given = [("file", &secret.file), ("environment", &secret.environment)];
        check_source(&subject, "secrets", name, secret, &given, ctx);
    }
    for (name, config) in &project.configs {
        let given = [
            ("file", &config.file),
            ("environment", &config.environment),
            ("content", &config.content),
        ];
        check_source(&subject, "configs", name, config, &given, ctx);
    }
    for (name, service) in &project.services {
        check_values(&subject, name, service, ctx);
    }
}

/// A secret or config comes from exactly one place.
fn check_source(
    subject: &Subject<'_>,
    section: &str,
    name: &str,
    object: &FileObject,
    given: &[(&str, &Option<String>)],
    ctx: &mut Context<'_>,
) {
    let used: Vec<&str> =
        given.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| *key).collect();
    let keys: Vec<String> = given.iter().map(|(key, _)| format!("`{key}`")).collect();
    let span = subject.span(&[section, name]);
    let kind = section.trim_end_matches('s');
    if used.len() > 1 {
        let message = format!("the {kind} `{name}` can have only one of {}", keys.join(", "));
        ctx.error("compose/one-source", message, span, "has several");
    }
    if used.is_empty() && !object.external {
        let diagnostic = Diagnostic::error(
            "compose/one-source",
            format!("the {kind} `{name}` needs one of {}", keys.join(", ")),
        )
        .at(ctx.at(span), "has none")
        .help("or write `external: true` if it exists already");
        ctx.push(diagnostic);
    }
}

fn check_values(subject: &Subject<'_>, name: &str, service: &Service, ctx: &mut Context<'_>) {
    for (index, port) in service.ports.iter().enumerate() {
        let bad = port.host_ip.as_ref().filter(|ip| ip.parse::<IpAddr>().is_err());
        if bad.is_some_and(|ip| !ip.is_empty()) {
            let span = subject.span(&["services", name, "ports", &index.to_string(), "host_ip"]);
            let message = format!("`services.{name}.ports[{index}].host_ip` must be an IP address");
            ctx.error("compose/bad-port", message, span, "is none");
        }
    }
    let watches = service.develop.iter().flat_map(|develop| &develop.watch);
    for (index, watch) in watches.enumerate() {
        if watch.path.as_deref().is_none_or(str::is_empty) {
            let span = subject.span(&["services", name, "develop", "watch", &index.to_string()]);
            let message = format!("a watch of `{name}` needs a `path`");
            ctx.error("compose/missing-key", message, span, "no path");
        }
    }
    let reserved = service
        .deploy
        .iter()
        .filter_map(|deploy| deploy.resources.as_ref()?.reservations.as_ref())
        .flat_map(|reservations| &reservations.devices);
    for request in reserved.chain(&service.gpus) {
        if request.count.is_some() && !request.device_ids.is_empty() {
            let span = subject.span(&["services", name, "deploy", "resources", "reservations"]);
            let message =
                format!("`{name}` asks for devices by `count` and by `device_ids`: only one goes");
            ctx.error("compose/exclusive", message, span, "here");
        }
    }
    if let Some(container) = &service.container_name {
        let start = |c: &u8| c.is_ascii_alphanumeric();
        let rest = |c: &u8| start(c) || matches!(c, b'_' | b'.' | b'-');
        if !container.as_bytes().windows(2).any(|pair| start(&pair[0]) && rest(&pair[1])) {
            let span = subject.span(&["services", name, "container_name"]);
            let message = format!(
                "`services.{name}.container_name` must have two or more letters, digits, `_`, `.` or `-`"
            );
            ctx.error("compose/bad-name", message, span, "not allowed as a name");
        }
    }
    if let Some(policy) = &service.pull_policy
        && !is_pull_policy(policy)
    {
        let span = subject.span(&["services", name, "pull_policy"]);
        let diagnostic = Diagnostic::error(
            "compose/unknown-word",
            format!(
                "`services.{name}.pull_policy` must be one of `always`, `never`, `missing`, \
                     `build`, `daily`, `weekly`, `every_12h`"
            ),
        )
        .at(ctx.at(span), "not one of them");
        ctx.push(diagnostic);
    }
}

fn is_pull_policy(text: &str) -> bool {
    let words =
        ["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
    let every = || {
        text.match_indices("every_").any(|(at, found)| {
            let rest = &text[at + found.len()..];
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && rest[digits..].starts_with(['w', 'd', 'h', 'm', 's'])
        })
    };
    words.iter().any(|word| text.contains(word)) || every()
}

/// Checks the active services against each other and the resources.
pub(crate) fn consistency(subject: &Subject<'_>, ctx: &mut Context<'_>) {
    for (name, service) in &subject.project.services {
        check_source_of_image(subject, name, service, ctx);
        check_networks(subject, name, service, ctx);
        check_dependencies(subject, name, service, ctx);
        check_resources(subject, name, service, ctx);
        check_twins(subject, name, service, ctx);
        check_rest(subject, name, service, ctx);
    }
    container_names(subject, ctx);
    cycles(subject, ctx);
}

fn check_source_of_image(
    subject: &Subject<'_>,
    name: &str,
    service: &Service,
    ctx: &mut Context<'_>,
) {
    let span = subject.span(&["services", name, "image"]);
    let no_image = service.image.as_deref().is_none_or(str::is_empty);
    if service.build.is_none() && no_image && service.provider.is_none() {
        // Something was wrong with it already: then that is what must be put right.
        let reported = ctx.diagnostics.iter().any(|diagnostic| {
            diagnostic.message.contains(&format!("services.{name}.image"))
                || diagnostic.message.contains(&format!("services.{name}.build"))
                || diagnostic.message.contains(&format!("`services.{name}` has no attribute"))
                || diagnostic.message.contains(&format!("`{name}` extends"))
        }) || ctx.diagnostics.iter().any(|diagnostic| {
            diagnostic.code.starts_with("compose/unknown-extends")
                || diagnostic.code.starts_with("compose/extends-cycle")
        });
        if !reported {
            let diagnostic = Diagnostic::error(
                "compose/no-image",
                format!("`{name}` has neither an `image` nor a `build`"),
            )
            .at(ctx.at(span), "nothing to run")
            .help("add `image: …` or `build: .`");
            ctx.push(diagnostic);
        }
    }
    let Some(build) = &service.build else { return };
    let (file, inline) = (&build.dockerfile, &build.dockerfile_inline);
    if inline.as_deref().is_some_and(|text| !text.is_empty())
        && file.as_deref().is_some_and(|text| !text.is_empty())
    {
        let span = subject.span(&["services", name, "build", "dockerfile_inline"]);
        let message = format!("`{name}` has both `dockerfile` and `dockerfile_inline`");
        ctx.error("compose/exclusive", message, span, "only one goes");
    }
    if let Some(platform) = &service.platform
        && !build.platforms.is_empty()
        && !build.platforms.contains(platform)
    {
        let span = subject.span(&["services", name, "build", "platforms"]);
        let message = format!("`build.platforms` of `{name}` lacks its `platform`");
        ctx.error("compose/platform", message, span, "add it here");
    }
}

fn unknown(
    subject: &Subject<'_>,
    (kind, code): (&str, &'static str),
    service: &str,
    wanted: (&str, Span),
    known: &[&String],
    ctx: &mut Context<'_>,
) {
    let (name, span) = wanted;
    // The name may come from a variable, whose value stays hidden.
    let shown = ctx.shown(name, span);
    let mut diagnostic = Diagnostic::error(
        code,
        format!("`{service}` uses the {kind} `{shown}`, which this project does not define"),
    )
    .at(ctx.at(span), format!("no such {kind}"));
    let section = format!("{kind}s");
    match nearest(name, known.iter().map(|name| name.as_str())) {
        Some(near) => {
            let place = ctx.at(subject.span(&[&section, near]));
            let at =
                place.map_or(String::new(), |at| format!(" ({}:{})", at.file.display(), at.line));
            diagnostic = diagnostic.help(format!("did you mean `{near}`{at}?"));
        }
        None => diagnostic = diagnostic.help(format!("add it below `{section}`: `{shown}:`")),
    }
    ctx.push(diagnostic);
}

fn check_networks(subject: &Subject<'_>, name: &str, service: &Service, ctx: &mut Context<'_>) {
    let project = subject.project;
    if service.network_mode.is_some() && !service.networks.is_empty() {
        let span = subject.span(&["services", name, "network_mode"]);
        let diagnostic = Diagnostic::error(
            "compose/exclusive",
            format!("`{name}` has both `network_mode` and `networks`"),
        )
        .at(ctx.at(span), "only one goes")
        .related("the other", ctx.at(subject.span(&["services", name, "networks"])));
        ctx.push(diagnostic);
    }
    for network in service.networks.keys() {
        if !project.networks.contains_key(network) {
            let span = subject.span(&["services", name, "networks", network]);
            let known: Vec<&String> = project.networks.keys().collect();
            let what = ("network", "compose/unknown-network");
            unknown(subject, what, name, (network, span), &known, ctx);
        }
    }
}

fn check_dependencies(subject: &Subject<'_>, name: &str, service: &Service, ctx: &mut Context<'_>) {
    let services = &subject.project.services;
    for (wanted, dependency) in &service.depends_on {
        if services.contains_key(wanted) {
            continue;
        }
        let span = subject.span(&["services", name, "depends_on", wanted]);
        if let Some(inactive) = subject.inactive.get(wanted) {
            if !dependency.required {
                continue;
            }
            let profiles: Vec<_> =
                inactive.profiles.iter().map(|profile| format!("`--profile {profile}`")).collect();
            let diagnostic = Diagnostic::error(
                "compose/inactive-service",
                format!("`{name}` depends on `{wanted}`, which no active profile asks for"),
            )
            .at(ctx.at(span), "not active")
            .help(format!(
                "activate it with {}, or write `required: false`",
                profiles.join(" or ")
            ));
            ctx.push(diagnostic);
            continue;
        }
        let shown = ctx.shown(wanted, span);
        let mut diagnostic = Diagnostic::error(
            "compose/unknown-service",
            format!("`{name}` depends on `{shown}`, which this project does not define"),
        )
        .at(ctx.at(span), "no such service");
        if let Some(near) = nearest(wanted, services.keys().map(String::as_str)) {
            let place = ctx.at(subject.span(&["services", near]));
            let at =
                place.map_or(String::new(), |at| format!(" ({}:{})", at.file.display(), at.line));
            diagnostic = diagnostic.help(format!("did you mean `{near}`{at}?"));
        }
        ctx.push(diagnostic);
    }
}

fn check_resources(subject: &Subject<'_>, name: &str, service: &Service, ctx: &mut Context<'_>) {
    let project = subject.project;
    for (index, mount) in service.volumes.iter().enumerate() {
        let Some(volume) = mount.source.as_ref().filter(|source| !source.is_empty()) else {
            continue;
        };
        let known = project.volumes.contains_key(volume) || ctx.tolerance == Tolerance::Tolerant;
        if mount.kind == MountKind::Volume && !known {
            let span = subject.span(&["services", name, "volumes", &index.to_string()]);
            let known: Vec<&String> = project.volumes.keys().collect();
            let what = ("volume", "compose/unknown-volume");
            unknown(subject, what, name, (volume, span), &known, ctx);
        }
    }
    let built = service.build.as_ref().map_or(&[][..], |build| &build.secrets);
    let used = [
        ("secret", "compose/unknown-secret", "secrets", &service.secrets[..], &project.secrets),
        ("secret", "compose/unknown-secret", "build", built, &project.secrets),
        ("config", "compose/unknown-config", "configs", &service.configs[..], &project.configs),
    ];
    for (kind, code, attribute, references, defined) in used {
        for (index, reference) in references.iter().enumerate() {
            let source = reference.source.as_deref().unwrap_or_default();
            if !defined.contains_key(source) {
                let index = index.to_string();
                let path: &[&str] = if attribute == "build" {
                    &["services", name, "build", "secrets", &index]
                } else {
                    &["services", name, attribute, &index, "source"]
                };
                let span = subject.span(path);
                let known: Vec<&String> = defined.keys().collect();
                unknown(subject, (kind, code), name, (source, span), &known, ctx);
            }
        }
    }
    for model in service.models.keys() {
        if !project.models.contains_key(model) {
            let span = subject.span(&["services", name, "models", model]);
            let known: Vec<&String> = project.models.keys().collect();
            unknown(subject, ("model", "compose/unknown-model"), name, (model, span), &known, ctx);
        }
    }
}

/// Old attributes and their successors in `deploy` must agree.
fn check_twins(subject: &Subject<'_>, name: &str, service: &Service, ctx: &mut Context<'_>) {
    let Some(deploy) = &service.deploy else { return };
    let none = Resources::default();
    let resources = deploy.resources.as_ref().unwrap_or(&none);
    let (limits, reservations) = (&resources.limits, &resources.reservations);
    let differ = [
        (
            "scale",
            "replicas",
            service.scale.is_some()
                && deploy.replicas.is_some()
                && service.scale != deploy.replicas,
        ),
        (
            "cpus",
            "resources.limits.cpus",
            service.cpus.is_some_and(|cpus| {
                let twin = |cpus: Option<f64>| cpus.unwrap_or(0.0) as f32;
                cpus != 0.0 && limits.as_ref().is_some_and(|l| twin(l.cpus) != cpus as f32)
            }),
        ),
        (
            "mem_limit",
            "resources.limits.memory",
            service.mem_limit.is_some_and(|limit| {
                let twin = limits.as_ref().map(|limits| limits.memory.unwrap_or_default());
                limit.bytes() != 0 && twin.is_some_and(|twin| twin != limit)
            }),
        ),
        (
            "mem_reservation",
            "resources.reservations.memory",
            service.mem_reservation.is_some_and(|limit| {
                let twin = reservations.as_ref().map(|kept| kept.memory.unwrap_or_default());
                limit.bytes() != 0 && twin.is_some_and(|twin| twin != limit)
            }),
        ),
        (
            "pids_limit",
            "resources.limits.pids",
            service.pids_limit.is_some_and(|limit| {
                let twin = limits.as_ref().map(|limits| limits.pids.unwrap_or(0));
                limit != 0 && twin.is_some_and(|twin| twin != limit)
            }),
        ),
    ];
    for (old, new, differs) in differ {
        if differs {
            let mut path = vec!["services", name, "deploy"];
            path.extend(new.split('.'));
            let diagnostic = Diagnostic::error(
                "compose/twins",
                format!("`{name}` has different values for `{old}` and `deploy.{new}`"),
            )
            .at(ctx.at(subject.span(&["services", name, old])), "this one")
            .related("and this one", ctx.at(subject.span(&path)))
            .help(format!("keep only `deploy.{new}`"));
            ctx.push(diagnostic);
        }
    }
}

fn check_rest(subject: &Subject<'_>, name: &str, service: &Service, ctx: &mut Context<'_>) {
    if service.container_name.is_some() && service.replicas() > 1 {
        let span = subject.span(&["services", name, "container_name"]);
        let message = format!("`{name}` has a `container_name` and more than one replica");
        ctx.error("compose/container-name", message, span, "would be there several times");
    }
    let test = service.healthcheck.as_ref().and_then(|health| health.test.first());
    if test.is_some_and(|word| !matches!(word.as_str(), "CMD" | "CMD-SHELL" | "NONE")) {
        let span = subject.span(&["services", name, "healthcheck", "test"]);
        let diagnostic = Diagnostic::error(
            "compose/bad-healthcheck",
            format!("the health check of `{name}` must start with `CMD`, `CMD-SHELL` or `NONE`"),
        )
        .at(ctx.at(span), "starts with something else")
        .help("write `test: [\"CMD\", …]`, or a single text for the shell");
        ctx.push(diagnostic);
    }
    let watches = service.develop.iter().flat_map(|develop| &develop.watch);
    for (index, watch) in watches.enumerate() {
        let needs_target = watch.action.as_deref().is_some_and(|action| action.contains("sync"));
        if needs_target && watch.target.as_deref().is_none_or(str::is_empty) {
            let span = subject.span(&["services", name, "develop", "watch", &index.to_string()]);
            let message = format!("a watch of `{name}` needs a `target`");
            ctx.error("compose/missing-key", message, span, "no target");
        }
    }
}

fn container_names(subject: &Subject<'_>, ctx: &mut Context<'_>) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for (name, service) in &subject.project.services {
        let Some(container) = service.container_name.as_deref().filter(|text| !text.is_empty())
        else {
            continue;
        };
        if let Some(other) = seen.insert(container, name) {
            let there = ctx.at(subject.span(&["services", other, "container_name"]));
            let diagnostic = Diagnostic::error(
                "compose/container-name",
                format!("`{name}` and `{other}` have the same `container_name`"),
            )
            .at(ctx.at(subject.span(&["services", name, "container_name"])), "taken already")
            .related("taken here", there);
            ctx.push(diagnostic);
        }
    }
}

/// Services that wait for each other would wait for ever.
fn cycles(subject: &Subject<'_>, ctx: &mut Context<'_>) {
    let services = &subject.project.services;
    // 1: on the way, 2: done. The way is kept by hand, for a chain may be long.
    let mut state: HashMap<&str, u8> = HashMap::new();
    for start in services.keys() {
        if state.contains_key(start.as_str()) {
            continue;
        }
        let mut way: Vec<(&str, usize)> = vec![(start, 0)];
        state.insert(start, 1);
        while let Some((name, next)) = way.last_mut() {
            let name: &str = name;
            let dependency = services.get(name).and_then(|service| {
                let found = service.depends_on.get_index(*next);
                found.map(|(wanted, _)| wanted.as_str())
            });
            *next += 1;
            match dependency {
                Some(wanted) if state.get(wanted) == Some(&1) => {
                    let from = way.iter().position(|(name, _)| *name == wanted).unwrap_or(0);
                    let names: Vec<String> = way[from..]
                        .iter()
                        .map(|(name, _)| *name)
                        .chain([wanted])
                        .map(|name| format!("`{name}`"))
                        .collect();
                    let span = subject.span(&["services", name, "depends_on", wanted]);
                    let diagnostic = Diagnostic::error(
                        "compose/dependency-cycle",
                        format!("services wait for each other: {}", names.join(" → ")),
                    )
                    .at(ctx.at(span), "closes the circle");
                    ctx.push(diagnostic);
                }
                Some(wanted) if services.contains_key(wanted) && !state.contains_key(wanted) => {
                    state.insert(wanted, 1);
                    way.push((wanted, 0));
                }
                Some(_) => {}
                None => {
                    state.insert(name, 2);
                    way.pop();
                }
            }
        }
    }
}
