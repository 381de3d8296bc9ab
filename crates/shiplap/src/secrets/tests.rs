//! Loading with a store, and files made for Coolify.

use std::path::Path;

use shiplap_compose::{OsFiles, Tolerance};
use shiplap_model::{Scope, Secret};
use shiplap_secrets::magic::{Place, Scheme};
use shiplap_secrets::{Name, Origin, Store};

use super::*;

struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    scope: Scope,
    request: shiplap_compose::Request,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let request = shiplap_compose::Request {
            working_dir: folder.path().to_owned(),
            project_name: Some("shop".into()),
            ..Default::default()
        };
        Self {
            store: Store::open(&folder.path().join("secrets")),
            scope: Scope { project: "shop".into(), environment: "dev".into() },
            request,
            folder,
        }
    }

    fn of(yaml: &str) -> Self {
        let bench = Self::new();
        std::fs::write(bench.folder.path().join("compose.yaml"), yaml).unwrap();
        bench
    }

    fn coolify(name: &str) -> Self {
        let mut bench = Self::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coolify");
        bench.request.files = vec![folder.join(name)];
        bench.request.working_dir = folder;
        bench.request.tolerance = Tolerance::Tolerant;
        bench
    }

    fn set(&self, name: &str, value: &[u8]) {
        let name: Name = name.parse().unwrap();
        self.store.set(&self.scope, &name, &Secret::new(value.to_vec()), Origin::Given).unwrap();
    }

    fn get(&self, name: &str) -> String {
        let stored = self.store.get(&self.scope, &name.parse().unwrap(), None).unwrap();
        String::from_utf8(stored.value.expose().clone()).unwrap()
    }

    /// As `crate::load::load` does it.
    fn load(&self, missing: Missing) -> Result<(Loaded, Supply), Vec<Diagnostic>> {
        let mut request = self.request.clone();
        let survey = shiplap_compose::survey(&request, &OsFiles)?;
        let place = Place { scope: &self.scope, domain: None, scheme: Scheme::Http };
        let mut supply = Supply::find(&self.store, &place, &survey, missing)?;
        request.environment.extend(supply.variables(&survey)?);
        let loaded = shiplap_compose::load(&request, &OsFiles);
        let mut loaded = loaded.map_err(|mut problems| {
            supply.blank(&mut problems);
            problems
        })?;
        supply.finish(&mut loaded, &survey, (&self.store, &self.scope))?;
        Ok((loaded, supply))
    }

    fn codes(&self) -> Vec<&'static str> {
        let told = match self.load(Missing::Pretend) {
            Ok((loaded, _)) => loaded.warnings,
            Err(problems) => problems,
        };
        told.iter().map(|diagnostic| diagnostic.code).collect()
    }
}

fn variable(loaded: &Loaded, service: &str, name: &str) -> String {
    loaded.project.services[service].environment[name].clone().unwrap_or_default()
}

fn versions(supply: Supply) -> Vec<(String, u32)> {
    supply.into_used().into_iter().map(|(name, used)| (name, used.version)).collect()
}

#[test]
fn the_store_comes_before_the_process_and_dotenv() {
    let mut bench = Bench::of(
        "services: {a: {image: i, environment: {A: '$A', B: '$B', C: '$C', D: '$D', E: }}}",
    );
    std::fs::write(bench.folder.path().join(".env"), "A=file\nB=file\nC=file\nD=x-$E\n").unwrap();
    bench.request.environment =
        [("A", "process"), ("B", "process")].map(|(n, v)| (n.into(), v.into())).into();
    bench.set("A", b"store");
    bench.set("E", b"store");
    bench.set("UNUSED", b"store");
    let (loaded, supply) = bench.load(Missing::Pretend).unwrap();
    let values: Vec<String> =
        ["A", "B", "C", "D", "E"].iter().map(|name| variable(&loaded, "a", name)).collect();
    assert_eq!(values, ["store", "process", "file", "x-store", "store"]);
    assert_eq!(versions(supply), [("A".into(), 1), ("E".into(), 1)]);
}

#[test]
fn external_secrets_take_any_bytes_and_variables_only_text() {
    let yaml = "services: {a: {image: i, secrets: [one, TWO]}}\n\
                secrets: {one: {external: true, name: ONE}, TWO: {external: true}}";
    let bench = Bench::of(yaml);
    bench.set("ONE", b"\0\xff");
    let (_, supply) = bench.load(Missing::Pretend).unwrap();
    assert_eq!(versions(supply), [("ONE".into(), 1)], "what is missing is refused by the plan");

    let bench = Bench::of("services: {a: {image: i, environment: {A: '$ONE'}}}");
    for value in [&b"a\0b"[..], b"\xff"] {
        bench.set("ONE", value);
        assert_eq!(bench.codes(), ["secrets/not-text"]);
    }
}

#[test]
fn what_is_said_of_the_files_never_holds_a_value() {
    let secret = "hush-4711";
    for yaml in [
        "services: {a: {image: i, ports: ['$S:80']}}",
        "services: {a: {image: i, ports: ['80:$S']}}",
        "services: {a: {image: i, deploy: {replicas: '$S'}}}",
        "services: {a: {image: i, mem_limit: '$S'}}",
        "services: {a: {image: i, depends_on: ['$S']}}",
        "services: {a: {image: i, volumes: ['$S:/x']}}",
        "services: {a: {image: i, networks: ['$S']}}",
        "services: {a: {image: i, env_file: '$S'}}",
        "services: {a: {image: i, healthcheck: {interval: '$S'}}}",
        "services: {a: {image: i, restart: '$S'}}",
        "services: {a: {image: i, extends: '$S'}}",
        "include: ['$S']\nservices: {a: {image: i}}",
        "name: '$S'\nservices: {a: {image: '$S:$S:'}}",
    ] {
        let bench = Bench::of(yaml);
        bench.set("S", secret.as_bytes());
        match bench.load(Missing::Pretend) {
            Ok((loaded, _)) => panic!("{yaml}: {:?}", loaded.warnings),
            Err(problems) => {
                for problem in problems {
                    assert!(!problem.to_string().contains(secret), "{yaml}: {problem}");
                }
            }
        }
    }
}

#[test]
fn a_secret_in_the_open_is_refused_and_one_in_arguments_is_warned_about() {
    let check = |yaml: &str, codes: &[&str]| {
        let bench = Bench::of(yaml);
        bench.set("LONG", b"a-long-enough-value");
        bench.set("SHORT", b"prod");
        assert_eq!(bench.codes(), codes, "{yaml}");
    };
    for open in ["image: 'i:$LONG'", "image: 'i:$SHORT'", "image: i, labels: {l: '$LONG'}"] {
        check(&format!("services: {{a: {{{open}}}}}"), &["secrets/in-the-open"]);
    }
    for argument in ["command: '--password $LONG'", "healthcheck: {test: 'x $SHORT'}"] {
        check(&format!("services: {{a: {{image: i, {argument}}}}}"), &["secrets/in-arguments"]);
    }
    check("services: {a: {build: {context: ., args: {A: '$LONG'}}}}", &["secrets/in-image"]);
    // A short value that stands in another word is no secret.
    check("services:\n  a:\n    image: repo/prod:1\n    environment: {A: $SHORT}", &[]);
    check(
        "services: {a: {image: i, environment: {A: '$LONG'}, configs: [c]}}\n\
         configs: {c: {content: 'x=$LONG'}}",
        &[],
    );
}

#[test]
fn generated_values_are_made_once_and_only_by_a_deployment() {
    let bench = Bench::coolify("one-entry.yml");
    let (loaded, _) = bench.load(Missing::Pretend).unwrap();
    assert!(bench.store.list(&bench.scope).unwrap().is_empty());
    assert_eq!(variable(&loaded, "db", "POSTGRES_PASSWORD"), BLANK);

    let (first, supply) = bench.load(Missing::Make).unwrap();
    let password = bench.get("SERVICE_PASSWORD_POSTGRES");
    assert_eq!(password.len(), 32);
    assert_eq!(variable(&first, "db", "POSTGRES_PASSWORD"), password);
    let user = bench.get("SERVICE_USER_POSTGRES");
    assert_eq!(
        variable(&first, "api", "DATABASE_URL"),
        format!("postgres://{user}:{password}@db:5432/app")
    );
    let names: Vec<String> = versions(supply).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["SERVICE_BASE64_64_API", "SERVICE_PASSWORD_POSTGRES", "SERVICE_USER_POSTGRES"]
    );
    for missing in [Missing::Pretend, Missing::Make] {
        let (again, _) = bench.load(missing).unwrap();
        assert_eq!(again.project, first.project, "the second time nothing is made");
    }
    // Another environment has values of its own.
    let other = Scope { environment: "prod".into(), ..bench.scope.clone() };
    let other = Bench { scope: other, ..bench };
    other.load(Missing::Make).unwrap();
    assert!(other.get("SERVICE_PASSWORD_POSTGRES") != password);
}

/// What a file made for Coolify comes to: its addresses, routes and secrets, and what is said.
fn check(name: &str, mut expected: Vec<&str>) {
    let mut bench = Bench::coolify(name);
    bench.request.environment.insert("SERVICE_PASSWORD_GIVEN".into(), "given".into());
    let (loaded, supply) = bench.load(Missing::Make).unwrap();
    let mut lines: Vec<String> = Vec::new();
    for (service, about) in &loaded.project.services {
        for (name, value) in &about.environment {
            let value = value.as_deref().unwrap_or_default();
            if value.contains("shop-dev.localhost") {
                lines.push(format!("{service}: {name}={value}"));
            }
        }
    }
    for Route { host, path, service, port } in &supply.magic.routes {
        lines.push(format!("{host}{path} -> {service}:{port}"));
    }
    for (name, used) in &supply.used {
        lines.push(format!("secret {name} {}", used.content.expose().len()));
    }
    for warning in &loaded.warnings {
        if warning.code != "coolify/route" && warning.code != "coolify/generated" {
            lines.push(format!("{}: {}", warning.code, warning.message));
        }
    }
    lines.sort();
    expected.sort_unstable();
    assert_eq!(lines, expected, "{name}");
}

#[test]
fn one_entry_on_port_80() {
    check(
        "one-entry.yml",
        vec![
            "web: SERVICE_FQDN_WEB_80=web.shop-dev.localhost",
            "api: PUBLIC_URL=http://web.shop-dev.localhost",
            "web.shop-dev.localhost/ -> web:80",
            "compose/unknown-key: `services.migrate` has no attribute `exclude_from_hc`",
            "secret SERVICE_BASE64_64_API 64",
            "secret SERVICE_PASSWORD_POSTGRES 32",
            "secret SERVICE_USER_POSTGRES 16",
        ],
    );
}

#[test]
fn entries_with_ports() {
    check(
        "ports.yml",
        vec![
            "compose/unknown-volume: the volume `n8n-data` is not declared: it is added",
            "mail-catcher.shop-dev.localhost/ -> mail-catcher:8025",
            "mail-catcher: SERVICE_URL_MAIL-CATCHER_8025=http://mail-catcher.shop-dev.localhost",
            "n8n.shop-dev.localhost/ -> n8n:5678",
            "n8n: N8N_EDITOR_BASE_URL=http://n8n.shop-dev.localhost",
            "n8n: N8N_HOST=n8n.shop-dev.localhost",
            "n8n: SERVICE_FQDN_N8N_5678=n8n.shop-dev.localhost",
            "n8n: WEBHOOK_URL=http://n8n.shop-dev.localhost",
            "secret SERVICE_PASSWORD_64_ENCRYPTION 64",
            "secret SERVICE_PASSWORD_MAIL 32",
        ],
    );
}

#[test]
fn entries_with_paths() {
    check(
        "paths.yml",
        vec![
            "api.shop-dev.localhost/api -> api:8000",
            "api: SERVICE_FQDN_API=api.shop-dev.localhost/api",
            "app.shop-dev.localhost/ -> frontend:3000",
            "frontend: SERVICE_FQDN_APP_3000=app.shop-dev.localhost",
            "frontend: NEXT_PUBLIC_API=http://api.shop-dev.localhost/api",
            "secret SERVICE_PASSWORD_ADMIN 32",
        ],
    );
}

#[test]
fn the_map_form() {
    check(
        "map.yml",
        vec![
            "compose/unknown-key: `services.ghost.volumes[1]` has no attribute `is_directory`",
            "compose/unknown-volume: the volume `ghost-content-data` is not declared: it is added",
            "compose/unknown-volume: the volume `ghost-mysql-data` is not declared: it is added",
            "ghost.shop-dev.localhost/ -> ghost:2368",
            "ghost: SERVICE_FQDN_GHOST_2368=ghost.shop-dev.localhost",
            "ghost: url=http://ghost.shop-dev.localhost",
            "secret SERVICE_PASSWORD_MYSQL 32",
            "secret SERVICE_PASSWORD_MYSQLROOT 32",
            "secret SERVICE_USER_MYSQL 16",
            "secrets/in-arguments: `services.mysql.healthcheck.test.7` holds the secret `SERVICE_PASSWORD_MYSQLROOT`: arguments of processes can be read by all on the machine",
        ],
    );
}

#[test]
fn every_kind_of_value() {
    check(
        "kinds.yml",
        vec![
            "app.shop-dev.localhost/ -> app:4000",
            "app: SERVICE_FQDN_APP=app.shop-dev.localhost",
            "compose/unset-variable: the variable `SERVICE_SUPABASEANON_KEY` is not set: it becomes nothing",
            "coolify/unknown: `SERVICE_SUPABASEANON_KEY` is generated by Coolify and not here",
            "secret SERVICE_BASE64_128_APP 128",
            "secret SERVICE_BASE64_64_APP 64",
            "secret SERVICE_BASE64_APP 32",
            "secret SERVICE_HEX_32_APP 64",
            "secret SERVICE_PASSWORDWITHSYMBOLS_APP 32",
            "secret SERVICE_PASSWORD_64_APP 64",
            "secret SERVICE_PASSWORD_APP 32",
            "secret SERVICE_REALBASE64_64_APP 88",
            "secret SERVICE_REALBASE64_APP 44",
            "secret SERVICE_USER_APP 16",
        ],
    );
}

#[test]
fn every_part_of_a_diagnostic_is_blanked_out() {
    let bench =
        Bench::of("services: {a: {image: i, environment: {A: '$S', U: '$SERVICE_USER_X'}}}");
    bench.set("S", b"hush-4711");
    let (_, supply) = bench.load(Missing::Make).unwrap();
    let mut told = [Diagnostic::error("x/y", "it is hush-4711")
        .at(None, "hush-4711 here")
        .help("not hush-4711, and hush-4711 neither")];
    supply.blank(&mut told);
    assert_eq!(told[0].message, "it is ***");
    assert_eq!(told[0].label, "*** here");
    assert_eq!(told[0].help, ["not ***, and *** neither"]);
}
