//! An environment that is in no file, made from one that is.

use std::path::Path;

use shiplap_compose::{MemoryFiles, Request};
use shiplap_config::{Config, Ports, Sharing, address_block};

const FILE: &str = "
project: shop
environments:
  prod: { project_name: shop }
  dev:
    domain: '{environment}.previews.example'
    ports: keep
    volumes: { cache: shared }
    routes:
      - { host: dev.shop.example, service: web }
      - { host: '*.shop.example', path: /any, service: web }
      - { host: '{environment}.apps.example', service: web }
      - { host: www.shop.example, redirect: 'https://dev.shop.example/x' }
      - { host: old.shop.example, redirect: 'https://elsewhere.example' }
      - { path: /health, service: web }
";

fn files() -> MemoryFiles {
    MemoryFiles::from([(
        "/shop/compose.yaml",
        "services: { web: { image: web, ports: [\"8080:3000\"] } }",
    )])
}

#[test]
fn a_derived_environment_takes_nothing_from_its_base() {
    let config = Config::parse(Path::new("/shop/shiplap.yaml"), FILE).expect("it is right");
    let settings = config.derived("dev", "pr-42", "shop").expect("there is a dev");
    assert_eq!((settings.name.as_str(), settings.base.as_str()), ("pr-42", "dev"));
    assert_eq!(settings.project_name, "shop-pr-42");
    assert_eq!(settings.ports, Ports::Any);
    assert_eq!(settings.domain.as_deref(), Some("pr-42.previews.example"));
    assert_eq!(settings.sharing_of_volume("data"), Sharing::Own);
    assert_eq!(settings.sharing_of_volume("cache"), Sharing::Shared);
    let earlier: Vec<String> = settings.earlier().into_iter().map(|one| one.name).collect();
    assert_eq!(earlier, ["prod", "dev"], "its base keeps the names of the file");

    let request = Request { working_dir: "/shop".into(), ..Request::default() };
    let project = shiplap_compose::load(&request, &files()).expect("it is right").project;
    let table = settings.routes(&project, &[], &files()).expect("they lead somewhere");
    let routes: Vec<String> =
        table.routes.iter().map(|route| format!("{route} -> {}", route.to)).collect();
    assert_eq!(
        routes,
        [
            "http://pr-42.dev.shop.example -> web:3000",
            "http://*.pr-42.shop.example/any -> web:3000",
            "http://pr-42.apps.example -> web:3000",
            "http://pr-42.www.shop.example -> https://pr-42.dev.shop.example/x (308)",
            "http://pr-42.old.shop.example -> https://elsewhere.example (308)",
        ]
    );
    assert_eq!(settings.left_out_routes(), ["*/health"]);

    let base = config.environment("dev", "shop").expect("there is a dev");
    assert_eq!(base.left_out_routes(), Vec::<String>::new());
    assert_eq!(base.sharing_of_volume("data"), Sharing::Shared);
    let table = base.routes(&project, &[], &files()).expect("they lead somewhere");
    assert_eq!(table.routes[0].host.as_deref(), Some("dev.shop.example"));
}

#[test]
fn an_environment_of_which_nothing_is_said_is_one() {
    let text = "project: shop\nenvironments:\n  prod:\n  dev: {}\n";
    let config = Config::parse(Path::new("/shop/shiplap.yaml"), text).expect("it is right");
    assert_eq!(config.environments().collect::<Vec<_>>(), ["prod", "dev"]);
}

#[test]
fn a_base_that_is_not_there_is_an_error() {
    let config = Config::parse(Path::new("/shop/shiplap.yaml"), FILE).expect("it is right");
    let problems = config.derived("devel", "pr-42", "shop").expect_err("there is none");
    assert_eq!(problems[0].code, "config/unknown-environment");
}

#[test]
fn blocks_of_addresses() {
    assert_eq!(address_block("192.0.2.7").as_deref(), Some("192.0.2.7/32"));
    assert_eq!(address_block("2001:db8::/32").as_deref(), Some("2001:db8::/32"));
    assert_eq!(address_block("10.0.0.0/33"), None);
    assert_eq!(address_block("everybody"), None);
}
