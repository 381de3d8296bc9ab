//! What a control server is told by `shiplap.yaml`.

use std::path::Path;

use expect_test::expect;
use shiplap_config::{Config, GitHost, Place};

fn config(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/shop/shiplap.yaml"), text)
        .map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
}

fn place(environment: &str, service: &str) -> Place {
    Place { environment: environment.into(), service: service.into() }
}

#[test]
fn inputs_images_and_branches_lead_to_services_and_environments() {
    let triggers = config(
        "
environments: { core: {}, scrape: {} }
triggers:
  dispatch:
    - repository: cheapa/superdeploy-app
      workflow: deploy-core.yml
      inputs:
        api_image_tag: core/api
        worker_image_tag: [core/worker, scrape/worker]
  registry:
    - secret_file: secrets/registry
      images:
        cheapa/api: { tags: 'v*', to: core/api }
  push:
    - { from: forgejo, secret_file: /etc/hook, branches: { main: [core, scrape] }, pull: true }
",
    )
    .expect("it is right")
    .triggers();
    let dispatch = &triggers.dispatch[0];
    assert_eq!(dispatch.repository.as_deref(), Some("cheapa/superdeploy-app"));
    assert_eq!(dispatch.inputs["api_image_tag"], [place("core", "api")]);
    assert_eq!(
        dispatch.inputs["worker_image_tag"],
        [place("core", "worker"), place("scrape", "worker")]
    );
    let registry = &triggers.registry[0];
    assert_eq!(registry.secret_file, Path::new("/shop/secrets/registry"));
    assert_eq!(registry.images[0].repository, "cheapa/api");
    assert_eq!(registry.images[0].places, [place("core", "api")]);
    let push = &triggers.push[0];
    assert_eq!((push.from, push.pull), (GitHost::Forgejo, true));
    assert!(push.branches["main"].iter().eq(["core", "scrape"]));
}

#[test]
fn places_that_cannot_be_are_pointed_at() {
    let said = config(
        "
environments: { core: {} }
triggers:
  dispatch:
    - inputs: { a: api, b: [core/api, cor/api], c: core/api/x }
  registry:
    - { secret_file: s, images: { shop/api: { tags: '*', to: prod/api } } }
  push:
    - { from: github, secret_file: s, branches: { main: [core, dev] } }
",
    )
    .expect_err("it is wrong");
    expect![[r#"
        error[config/wrong-value]: `triggers.dispatch[0].inputs.a` cannot be `api`
         ┌ /shop/shiplap.yaml:5:20
        5 │     - inputs: { a: api, b: [core/api, cor/api], c: core/api/x }
          │                    ^^^ not ENVIRONMENT/SERVICE
          = help: such as `prod/api`
        error[config/unknown-environment]: there is no environment `cor`
         ┌ /shop/shiplap.yaml:5:39
        5 │     - inputs: { a: api, b: [core/api, cor/api], c: core/api/x }
          │                                       ^^^^^^^ no such environment
          = help: did you mean `core`?
        error[config/wrong-value]: `triggers.dispatch[0].inputs.c` cannot be `core/api/x`
         ┌ /shop/shiplap.yaml:5:52
        5 │     - inputs: { a: api, b: [core/api, cor/api], c: core/api/x }
          │                                                    ^^^^^^^^^^ not ENVIRONMENT/SERVICE
          = help: such as `prod/api`
        error[config/unknown-environment]: there is no environment `prod`
         ┌ /shop/shiplap.yaml:7:62
        7 │     - { secret_file: s, images: { shop/api: { tags: '*', to: prod/api } } }
          │                                                              ^^^^^^^^ no such environment
          = help: there are core
        error[config/unknown-environment]: there is no environment `dev`
         ┌ /shop/shiplap.yaml:9:64
        9 │     - { from: github, secret_file: s, branches: { main: [core, dev] } }
          │                                                                ^^^ no such environment
          = help: there are core
    "#]].assert_eq(&said);
}

#[test]
fn what_a_trigger_must_say_is_asked_for() {
    let said = config(
        "
environments: { core: {} }
triggers:
  dispatch: [{ repository: superdeploy-app }]
  registry: [{ images: {} }]
  push: [{ from: sourcehut, secret_file: s, branches: {} }]
",
    )
    .expect_err("it is wrong");
    expect![[r#"
        error[config/wrong-value]: `triggers.dispatch[0].repository` cannot be `superdeploy-app`
         ┌ /shop/shiplap.yaml:4:28
        4 │   dispatch: [{ repository: superdeploy-app }]
          │                            ^^^^^^^^^^^^^^^ not of the form that it must have
          = help: OWNER/NAME
        error[config/missing]: `triggers.registry[0]` does not say `secret_file`
         ┌ /shop/shiplap.yaml:5:14
        5 │   registry: [{ images: {} }]
          │              ^^^^^^^^^^^^^^ `secret_file:` is missing
        error[config/wrong-value]: `triggers.push[0].from` cannot be `sourcehut`
         ┌ /shop/shiplap.yaml:6:18
        6 │   push: [{ from: sourcehut, secret_file: s, branches: {} }]
          │                  ^^^^^^^^^ no such word
          = help: it is one of forgejo, gitea, github, gitlab
    "#]]
    .assert_eq(&said);
}
