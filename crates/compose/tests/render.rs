//! What `config` prints.

use expect_test::{Expect, expect};
use shiplap_compose::{ConfigOptions, Format, MemoryFiles, Request, View, render_config};

const COMPOSE: &str = r#"
name: shop
services:
  web:
    image: nginx:${TAG:-1}
    command: [sh, -c, "echo $$HOME\nsleep 1\n"]
    ports: ["${PORT:-8080}:80"]
    depends_on: [db]
    volumes: ["data:/data"]
    x-own: {a: 1}
  db:
    build: ./db
    restart: "no"
    environment: {PASSWORD: "yes", EMPTY: ""}
    profiles: [full]
  lone: {image: alone, networks: [other]}
volumes: {data: , unused: }
networks: {other: }
x-top: [1, 2.5]
"#;

fn rendered(request: Request, options: ConfigOptions) -> String {
    let files = MemoryFiles::from([("/app/compose.yaml", COMPOSE)]);
    let mut request = Request { working_dir: "/app".into(), ..request };
    request.environment.insert("TAG".into(), "2".into());
    match render_config(&request, &files, &options) {
        Ok(rendered) => rendered.text,
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

fn full() -> Request {
    Request { profiles: vec!["full".into()], ..Request::default() }
}

#[track_caller]
fn check_view(view: View, expected: Expect) {
    expected.assert_eq(&rendered(full(), ConfigOptions { view, ..ConfigOptions::default() }));
}

#[test]
fn yaml_is_printed_and_loads_again() {
    let text = rendered(full(), ConfigOptions::default());
    expect![[r#"
        name: shop
        services:
          web:
            command:
              - sh
              - "-c"
              - |
                echo $$HOME
                sleep 1
            depends_on:
              db:
                condition: service_started
                required: true
            image: nginx:2
            networks:
              default: null
            ports:
              - mode: ingress
                target: 80
                published: "8080"
                protocol: tcp
            volumes:
              - type: volume
                source: data
                target: /data
                volume: {}
            x-own:
              a: 1
            entrypoint: null
          db:
            profiles:
              - full
            build:
              context: /app/db
              dockerfile: Dockerfile
            environment:
              PASSWORD: "yes"
              EMPTY: ""
            networks:
              default: null
            restart: "no"
            command: null
            entrypoint: null
          lone:
            image: alone
            networks:
              other: null
            command: null
            entrypoint: null
        networks:
          other:
            name: shop_other
            ipam: {}
          default:
            name: shop_default
            ipam: {}
        volumes:
          data:
            name: shop_data
        x-top:
          - 1
          - 2.5
    "#]]
    .assert_eq(&text);
    let files = MemoryFiles::from([("/app/compose.yaml", text.as_str())]);
    let request = Request { working_dir: "/app".into(), ..full() };
    let again = render_config(&request, &files, &ConfigOptions::default()).expect("loads again");
    assert_eq!(again.text, text);
}

#[test]
fn json_has_no_extensions_below_the_top() {
    let options = ConfigOptions { format: Format::Json, ..ConfigOptions::default() };
    let text = rendered(full(), options);
    assert!(!text.contains("x-own") && text.contains("x-top"), "{text}");
}

#[test]
fn views_are_lists() {
    check_view(
        View::Services,
        expect![[r#"
        web
        db
        lone
    "#]],
    );
    check_view(
        View::Images,
        expect![[r#"
        nginx:2
        shop-db
        alone
    "#]],
    );
    check_view(
        View::Volumes,
        expect![[r#"
        data
    "#]],
    );
    check_view(
        View::Networks,
        expect![[r#"
        other
        default
    "#]],
    );
    check_view(
        View::Profiles,
        expect![[r#"
        full
    "#]],
    );
    check_view(
        View::Environment,
        expect![[r#"
        COMPOSE_PROJECT_NAME=shop
        TAG=2
    "#]],
    );
    check_view(
        View::Hash(vec!["db".into()]),
        expect![[r#"
        db 9152c893d748fbc0cffdd70a7b91e379ddf9d1f96ad49e91874a14a431e40b40
    "#]],
    );
    check_view(
        View::Hash(vec!["nope".into()]),
        expect![[r#"
        error[compose/unknown-service]: no such service: `nope`
    "#]],
    );
}

#[test]
fn a_hash_ignores_scale_but_not_the_image() {
    let hash = |tag: &str| {
        let files = MemoryFiles::from([("/app/compose.yaml", COMPOSE)]);
        let mut request = Request { working_dir: "/app".into(), ..full() };
        request.environment.insert("TAG".into(), tag.into());
        let options =
            ConfigOptions { view: View::Hash(vec!["web".into()]), ..ConfigOptions::default() };
        render_config(&request, &files, &options).expect("loads").text
    };
    assert_eq!(hash("1"), hash("1"));
    assert_ne!(hash("1"), hash("2"));
}

#[test]
fn variables_stay_without_interpolation() {
    let options = ConfigOptions { interpolate: false, ..ConfigOptions::default() };
    expect![[r#"
        name: shop
        services:
          web:
            image: "nginx:${TAG:-1}"
            command:
              - sh
              - "-c"
              - |
                echo $$HOME
                sleep 1
            ports:
              - "${PORT:-8080}:80"
            depends_on:
              db:
                condition: service_started
                required: true
            volumes:
              - type: volume
                source: data
                target: /data
                volume: {}
            x-own:
              a: 1
            networks:
              default: null
          db:
            build:
              context: /app/db
              dockerfile: Dockerfile
            restart: "no"
            environment:
              PASSWORD: "yes"
              EMPTY: ""
            profiles:
              - full
            networks:
              default: null
          lone:
            image: alone
            networks:
              other: null
        volumes:
          data:
            name: shop_data
          unused:
            name: shop_unused
        networks:
          other:
            name: shop_other
          default:
            name: shop_default
        x-top:
          - 1
          - 2.5
    "#]]
    .assert_eq(&rendered(full(), options));
}

#[test]
fn named_services_bring_what_they_depend_on() {
    let request = Request { services: vec!["web".into()], ..full() };
    let options = ConfigOptions { view: View::Services, ..ConfigOptions::default() };
    expect![[r#"
        web
        db
    "#]]
    .assert_eq(&rendered(request, options.clone()));
    let request = Request { services: vec!["db".into()], ..Request::default() };
    // `web` depends on `db`, which is active because it is named.
    expect![[r#"
        db
    "#]]
    .assert_eq(&rendered(request, options.clone()));
    let request = Request { services: vec!["wbe".into()], ..full() };
    expect![[r#"
        error[compose/unknown-service]: no such service: `wbe`
         = help: did you mean `web`?
    "#]]
    .assert_eq(&rendered(request, options));
}
