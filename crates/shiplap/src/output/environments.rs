//! Environments at a glance.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_model::DeploymentState;

use super::table::columns;
use super::time;
use crate::overview::{Environment, Machine, Overview};

/// Routes that are shown in a line; more are counted.
const ROUTES_SHOWN: usize = 2;

/// For a person.
pub fn text(overview: &Overview, now_ms: i64) -> String {
    let mut text = format!("{}\n", overview.project);
    for machine in &overview.machines {
        if overview.machines.len() > 1 {
            let _ = writeln!(text, "{}", machine.target.as_deref().unwrap_or("local"));
        }
        let rows: Vec<Vec<String>> = overview
            .environments
            .iter()
            .filter(|environment| environment.target == machine.target)
            .map(|environment| row(environment, machine, now_ms))
            .collect();
        text.push_str(&columns(&rows));
        match &machine.seen {
            Ok(seen) if seen.has_edge => {}
            Ok(_) => text.push_str("no edge\n"),
            Err(why) => {
                let _ = writeln!(text, "! {why}");
            }
        }
    }
    for environment in &overview.environments {
        for warning in warnings(environment, now_ms) {
            let _ = writeln!(text, "! {}: {warning}", environment.name);
        }
    }
    text
}

fn row(environment: &Environment, machine: &Machine, now_ms: i64) -> Vec<String> {
    let is_seen = machine.seen.is_ok();
    vec![
        environment.name.clone(),
        environment.project_name.clone(),
        if is_seen { replicas(environment) } else { "not known".to_owned() },
        deployment(environment, now_ms),
        if is_seen { routes(environment) } else { "-".to_owned() },
        until(environment, now_ms),
    ]
}

fn replicas(environment: &Environment) -> String {
    let replicas = environment.replicas;
    match (replicas.wanted, replicas.running) {
        (0, 0) => "nothing runs".to_owned(),
        (wanted, running) => format!("{running} of {wanted} up"),
    }
}

fn deployment(environment: &Environment, now_ms: i64) -> String {
    let Some(newest) = &environment.newest else { return "never deployed".to_owned() };
    let (what, at) = match &newest.state {
        DeploymentState::Unfinished => ("unfinished".to_owned(), newest.started_ms),
        DeploymentState::Ended { at_ms, outcome, .. } => (outcome.to_string(), *at_ms),
    };
    let ago = time::span((now_ms - at).max(0));
    format!("{} {} {what}, {ago} ago", newest.kind, newest.number)
}

fn routes(environment: &Environment) -> String {
    let routed = &environment.routed;
    let mut shown: Vec<String> = routed.routes.iter().take(ROUTES_SHOWN).cloned().collect();
    let more = routed.routes.len().saturating_sub(ROUTES_SHOWN);
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.extend(routed.ports.iter().map(|port| format!(":{port}")));
    if shown.is_empty() { "-".to_owned() } else { shown.join(" ") }
}

fn until(environment: &Environment, now_ms: i64) -> String {
    let Some(ephemeral) = &environment.ephemeral else { return String::new() };
    match ephemeral.expires_ms {
        Some(expires) if expires > now_ms => {
            format!("from {}, for another {}", ephemeral.from, time::span(expires - now_ms))
        }
        Some(_) => format!("from {}, its time is over", ephemeral.from),
        None => format!("from {}", ephemeral.from),
    }
}

fn warnings(environment: &Environment, now_ms: i64) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut say = |holds: bool, what: &str| {
        if holds {
            warnings.push(what.to_owned());
        }
    };
    let name = &environment.name;
    let unfinished = environment
        .newest
        .as_ref()
        .is_some_and(|newest| matches!(newest.state, DeploymentState::Unfinished));
    say(unfinished, &format!("a deployment has not ended: `shiplap -e {name} status` tells more"));
    say(environment.replicas.unhealthy > 0, "a health check fails");
    say(environment.routed.maintenance, "in maintenance");
    let held = format!("requests are held: `shiplap -e {name} resume` lets them go on");
    say(environment.routed.held && !unfinished, &held);
    let is_over = environment.ephemeral.as_ref().is_some_and(|one| one.is_over(now_ms));
    say(is_over, "its time is over: `shiplap env prune` removes it");
    warnings
}

/// For a program.
pub fn json(overview: &Overview) -> Value {
    json!({
        "version": 1,
        "project": overview.project,
        "edge": overview.machines.iter().all(has_edge),
        "machines": overview.machines.iter().map(machine).collect::<Vec<_>>(),
        "environments": overview.environments.iter().map(one).collect::<Vec<_>>(),
    })
}

fn has_edge(machine: &Machine) -> bool {
    machine.seen.as_ref().is_ok_and(|seen| seen.has_edge)
}

fn machine(machine: &Machine) -> Value {
    json!({
        "target": machine.target,
        "edge": has_edge(machine),
        "error": machine.seen.as_ref().err(),
    })
}

fn one(environment: &Environment) -> Value {
    json!({
        "environment": environment.name,
        "project": environment.project_name,
        "target": environment.target,
        "from": environment.ephemeral.as_ref().map(|ephemeral| &ephemeral.from),
        "expires": environment.ephemeral.as_ref()
            .and_then(|ephemeral| ephemeral.expires_ms)
            .map(time::stamp),
        "replicas": {
            "running": environment.replicas.running,
            "wanted": environment.replicas.wanted,
            "unhealthy": environment.replicas.unhealthy,
        },
        "deployment": environment.current,
        "newest": environment.newest.as_ref().map(super::history::brief),
        "routes": environment.routed.routes,
        "ports": environment.routed.ports,
        "maintenance": environment.routed.maintenance,
        "held": environment.routed.held,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ephemeral::Ephemeral;
    use crate::overview::{Replicas, Routed, Seen};

    const NOW_MS: i64 = 1_000_000_000;

    fn environment(name: &str) -> Environment {
        Environment {
            name: name.to_owned(),
            project_name: format!("shop-{name}"),
            target: None,
            ephemeral: None,
            replicas: Replicas::default(),
            newest: None,
            current: None,
            routed: Routed::default(),
        }
    }

    #[test]
    fn what_a_person_should_act_on_is_said_below() {
        let mut prod = environment("prod");
        prod.replicas = Replicas { running: 4, wanted: 5, unhealthy: 1 };
        prod.routed = Routed {
            routes: vec!["shop.example".into(), "shop.example/api".into(), "a.example".into()],
            ports: vec![1883],
            maintenance: true,
            held: true,
        };
        let mut preview = environment("pr-42");
        preview.ephemeral = Some(Ephemeral {
            project: "shop".into(),
            name: "pr-42".into(),
            from: "dev".into(),
            project_name: "shop-pr-42".into(),
            config: "/shop/shiplap.yaml".into(),
            by: "ada".into(),
            created_ms: 0,
            expires_ms: Some(NOW_MS),
        });
        let environments = vec![prod, preview];
        let machines = vec![Machine { target: None, seen: Ok(Seen { has_edge: true }) }];
        let overview = Overview { project: "shop".into(), environments, machines };
        assert_eq!(
            text(&overview, NOW_MS),
            "shop\n\
             prod   shop-prod   4 of 5 up     never deployed  \
             shop.example shop.example/api and 1 more :1883\n\
             pr-42  shop-pr-42  nothing runs  never deployed  -                                             \
             \x20 from dev, its time is over\n\
             ! prod: a health check fails\n\
             ! prod: in maintenance\n\
             ! prod: requests are held: `shiplap -e prod resume` lets them go on\n\
             ! pr-42: its time is over: `shiplap env prune` removes it\n"
        );
    }

    #[test]
    fn machines_come_apart_and_one_that_is_away_says_why() {
        let on = |name: &str, target: &str| Environment {
            target: Some(target.to_owned()),
            ..environment(name)
        };
        let machine = |target: &str, seen| Machine { target: Some(target.to_owned()), seen };
        let overview = Overview {
            project: "shop".into(),
            environments: vec![on("dev", "ssh://vm1"), on("prod", "ssh://vm2")],
            machines: vec![
                machine("ssh://vm1", Ok(Seen { has_edge: false })),
                machine("ssh://vm2", Err("connecting: no route".into())),
            ],
        };
        assert_eq!(
            text(&overview, NOW_MS),
            "shop\n\
             ssh://vm1\n\
             dev  shop-dev  nothing runs  never deployed  -\n\
             no edge\n\
             ssh://vm2\n\
             prod  shop-prod  not known  never deployed  -\n\
             ! connecting: no route\n"
        );
        assert_eq!(json(&overview)["machines"][1]["error"], "connecting: no route");
    }
}
