//! Attributes that the specification knows and this program does not act on.

use shiplap_compose::Diagnostic;
use shiplap_compose::model::{Deploy, Service, UpdateConfig};
use shiplap_execute::app::Source;

/// An attribute that has no effect, and why.
struct Finding {
    path: Vec<String>,
    why: &'static str,
}

/// Names every attribute that has no effect, with its place.
pub fn warn(source: &Source) {
    for (name, service) in &source.loaded.project.services {
        for finding in findings(service) {
            let mut path = vec!["services", name];
            path.extend(finding.path.iter().map(String::as_str));
            let message = format!("`{}` of `{name}` has no effect here", finding.path.join("."));
            let place = source.loaded.span(&path);
            let warning =
                Diagnostic::warning("deploy/unsupported", message).at(place, "").help(finding.why);
            eprintln!("{warning}");
        }
    }
}

fn findings(service: &Service) -> Vec<Finding> {
    let windows = "it concerns Windows containers";
    let hooks = "commands around start and stop are not run yet";
    let plain = [
        ("credential_spec", service.credential_spec.is_some(), windows),
        ("isolation", service.isolation.is_some(), windows),
        ("cpu_count", service.cpu_count.is_some(), windows),
        ("cpu_percent", service.cpu_percent.is_some(), windows),
        ("post_start", !service.post_start.is_empty(), hooks),
        ("pre_stop", !service.pre_stop.is_empty(), hooks),
        ("provider", service.provider.is_some(), "services from outside are not started"),
        ("models", !service.models.is_empty(), "language models are not started"),
    ];
    let mut found: Vec<Finding> = plain
        .into_iter()
        .filter(|(_, present, _)| *present)
        .map(|(name, _, why)| Finding { path: vec![name.to_owned()], why })
        .collect();
    if let Some(deploy) = &service.deploy {
        found.extend(of_deploy(deploy));
    }
    found
}

fn of_deploy(deploy: &Deploy) -> Vec<Finding> {
    let swarm = "it concerns several engines";
    let mode = deploy.mode.as_deref().is_some_and(|mode| mode != "replicated");
    let mut found: Vec<Finding> = [
        ("labels", !deploy.labels.is_empty(), "one engine has no object to put them on"),
        ("mode", mode, "one engine runs `replicas` of it"),
        ("placement", deploy.placement.is_some(), swarm),
        ("endpoint_mode", deploy.endpoint_mode.is_some(), swarm),
        (
            "rollback_config",
            deploy.rollback_config.is_some(),
            "going back is done as going forward, by update_config",
        ),
    ]
    .into_iter()
    .filter(|(_, present, _)| *present)
    .map(|(name, _, why)| Finding { path: vec!["deploy".to_owned(), name.to_owned()], why })
    .collect();
    if let Some(update) = &deploy.update_config {
        found.extend(of_update(update));
    }
    found
}

fn of_update(update: &UpdateConfig) -> Vec<Finding> {
    let whole = "all replicas change together: the new ones start beside the old ones";
    let back = "a deployment that fails is always undone";
    let failure = update.failure_action.as_deref().is_some_and(|action| action != "rollback");
    [
        ("parallelism", update.parallelism.is_some(), whole),
        ("delay", update.delay.is_some(), whole),
        ("failure_action", failure, back),
        ("max_failure_ratio", update.max_failure_ratio.is_some(), back),
    ]
    .into_iter()
    .filter(|(_, present, _)| *present)
    .map(|(name, _, why)| Finding {
        path: ["deploy", "update_config", name].map(str::to_owned).into(),
        why,
    })
    .collect()
}
