//! Names of environments that share an engine.

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use shiplap_compose::separate::{Other, Own, Refused, Separation, separate};
use shiplap_compose::{MemoryFiles, Project, Request, load};

fn project(name: &str, text: &str) -> Project {
    let files = MemoryFiles::from([("/app/compose.yaml", text)]);
    let request = Request {
        working_dir: "/app".into(),
        project_name: Some(name.to_owned()),
        ..Request::default()
    };
    load(&request, &files).expect("loads").project
}

fn told(done: &Separation) -> String {
    let rewrites = done
        .rewrites
        .iter()
        .map(|r| format!("{:?} {}: {} -> {} ({})\n", r.kind, r.key, r.from, r.to, r.because));
    let shared =
        done.shared.iter().map(|s| format!("{}: {}: {}\n", s.code, s.path.join("."), s.text));
    rewrites.chain(shared).collect()
}

fn try_with(prod: &str, dev: &str, own: &Own) -> (Project, Result<Separation, Vec<Refused>>) {
    let prod = project("shop-prod", prod);
    let mut dev = project("shop-dev", dev);
    let others = [Other { environment: "prod", project: &prod }];
    let result = separate(&mut dev, "dev", &others, own);
    (dev, result)
}

/// The same file in both environments.
fn check(text: &str, expected: Expect) -> Project {
    let (dev, result) = try_with(text, text, &Own::default());
    expected.assert_eq(&told(&result.expect("can be separated")));
    dev
}

#[test]
fn names_that_compose_makes_stay() {
    let text = "
services: {web: {image: a, volumes: ['data:/x']}}
volumes: {data: {}}
";
    let dev = check(text, expect![""]);
    assert_eq!(dev, project("shop-dev", text));
}

#[test]
fn fixed_names_get_the_environment_at_their_end() {
    let dev = check(
        "
services:
  db:
    image: a
    container_name: shop-db
    volumes: ['data:/x']
    networks: [inside]
volumes: {data: {name: shop_data}}
networks: {inside: {name: shop_net}}
",
        expect![[r#"
            Network inside: shop_net -> shop_net-dev (prod)
            Volume data: shop_data -> shop_data-dev (prod)
            Container db: shop-db -> shop-db-dev (prod)
        "#]],
    );
    assert_eq!(dev.services["db"].container_name.as_deref(), Some("shop-db-dev"));
    assert_eq!(dev.volumes["data"].name.as_deref(), Some("shop_data-dev"));
    // Its neighbours may call it by the name in the file.
    let attachment = dev.services["db"].networks["inside"].as_ref().expect("has an alias");
    assert_eq!(attachment.aliases, ["shop-db"]);
    assert_eq!(
        dev.services["db"].volumes[0].source.as_deref(),
        Some("data"),
        "the key, not the name"
    );
}

#[test]
fn references_to_a_container_go_along() {
    let dev = check(
        "
services:
  db: {image: a, container_name: shop-db}
  side:
    image: a
    network_mode: container:shop-db
    pid: container:shop-db
    ipc: container:shop-db
    volumes_from: ['container:shop-db:ro']
  old: {image: a, external_links: [shop-db, 'shop-db:database']}
",
        expect![[r#"
            Container db: shop-db -> shop-db-dev (prod)
        "#]],
    );
    let side = &dev.services["side"];
    for mode in [&side.network_mode, &side.pid, &side.ipc] {
        assert_eq!(mode.as_deref(), Some("container:shop-db-dev"));
    }
    assert_eq!(side.volumes_from, ["container:shop-db-dev:ro"]);
    assert_eq!(dev.services["old"].external_links, ["shop-db-dev:shop-db", "shop-db-dev:database"]);
}

#[test]
fn what_is_external_is_shared_unless_it_is_to_be_own() {
    let text = "
services:
  web: {image: a, container_name: web, networks: [front, inside], volumes: ['media:/m']}
networks: {front: {external: true}, inside: {}}
volumes: {media: {external: true, name: media_of_all}}
";
    let dev = check(
        text,
        expect![[r#"
        Container web: web -> web-dev (prod)
        shared-network: networks.front: the external network `front` is prod's too
        shared-volume: volumes.media: the external volume `media_of_all` is prod's too
    "#]],
    );
    // On a network of both, the old name would catch what is meant for the other.
    let networks = &dev.services["web"].networks;
    assert!(networks["front"].as_ref().is_none_or(|at| at.aliases.is_empty()));
    assert_eq!(networks["inside"].as_ref().unwrap().aliases, ["web"]);

    let own = Own {
        networks: BTreeSet::from(["front".to_owned()]),
        volumes: BTreeSet::from(["media".to_owned()]),
    };
    let (dev, result) = try_with(text, text, &own);
    expect![[r#"
        Network front: front -> shop-dev_front (prod)
        Volume media: media_of_all -> shop-dev_media (prod)
        Container web: web -> web-dev (prod)
    "#]]
    .assert_eq(&told(&result.unwrap()));
    assert!(!dev.networks["front"].external && !dev.volumes["media"].external);
    assert_eq!(dev.services["web"].networks["front"].as_ref().unwrap().aliases, ["web"]);
}

#[test]
fn values_that_name_the_others_container_are_told() {
    let prod = "services: {mqtt: {image: a, container_name: shop-prod-mqtt}}";
    let dev = "
services:
  api:
    image: a
    environment: {MQTT: 'mqtt://u:hunter2@shop-prod-mqtt:1883', NOTE: shop-prod-mqtt-two}
";
    let (_, result) = try_with(prod, dev, &Own::default());
    expect![[r#"
        names-other: services.api.environment.MQTT: MQTT of `api` names `shop-prod-mqtt`, a container of prod
    "#]]
    .assert_eq(&told(&result.unwrap()));
}

#[test]
fn what_cannot_be_rewritten_is_refused_and_changes_nothing() {
    let prod = "
services:
  db: {image: a, container_name: shop-db, networks: [inside]}
  two: {image: a, container_name: shop-db-dev}
networks: {inside: {name: shop, ipam: {config: [{subnet: 10.9.0.0/24}]}}}
";
    let dev = "
services:
  db: {image: a, container_name: shop-db, networks: [inside]}
  side: {image: a, network_mode: 'container:shop-db-dev'}
networks: {inside: {name: shop, ipam: {config: [{subnet: 10.9.0.0/24}]}}}
";
    let (after, result) = try_with(prod, dev, &Own::default());
    let refused = result.expect_err("cannot be separated");
    let text: String =
        refused.iter().map(|r| format!("{}: {}\n", r.path.join("."), r.message)).collect();
    expect![[r#"
        networks.inside.ipam: the range 10.9.0.0/24 of network `inside` is prod's
        services.db.container_name: `shop-db` is prod's, and so is `shop-db-dev`, which would stand for it
        services.side.network_mode: `side` needs the container `shop-db-dev`, which is prod's
    "#]]
    .assert_eq(&text);
    assert_eq!(after, project("shop-dev", dev));
}
