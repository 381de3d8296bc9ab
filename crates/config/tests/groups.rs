//! Environments that are deployed together, as `shiplap.yaml` says.

use std::path::Path;

use expect_test::expect;
use shiplap_compose::Diagnostic;
use shiplap_config::Config;

fn config(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/shop/shiplap.yaml"), text).map_err(|problems| said(&problems))
}

fn said(problems: &[Diagnostic]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_group_has_its_members_in_order() {
    let config = config(
        "
environments: { proxy: {}, core: {}, dev: {} }
groups: { prod: [core, proxy] }
",
    )
    .expect("it is right");
    assert!(config.groups().eq(["prod"]));
    assert_eq!(config.group("prod"), Some(["core".to_owned(), "proxy".to_owned()].as_slice()));
    assert_eq!(config.group("dev"), None);
}

#[test]
fn groups_that_cannot_be_are_pointed_at() {
    let said = config(
        "
environments: { core: {}, proxy: {} }
groups:
  core: [proxy]
  prod: [core, prxy, core]
  none: []
  Not A Name: [core]
",
    )
    .expect_err("four are wrong");
    expect![[r#"
        error[config/wrong-value]: `core` is both a group and an environment
         ┌ /shop/shiplap.yaml:4:3
        4 │   core: [proxy]
          │   ^^^^ an environment has this name
          = help: `-e` takes either: give one of them another name
        error[config/unknown-environment]: there is no environment `prxy`
         ┌ /shop/shiplap.yaml:5:16
        5 │   prod: [core, prxy, core]
          │                ^^^^ no such environment
          = help: did you mean `proxy`?
        error[config/wrong-value]: group `prod` names `core` twice
         ┌ /shop/shiplap.yaml:5:22
        5 │   prod: [core, prxy, core]
          │                      ^^^^ it is there already
        error[config/wrong-value]: group `none` has no environments
         ┌ /shop/shiplap.yaml:6:3
        6 │   none: []
          │   ^^^^ nothing to deploy
          = help: `none: [core, proxy]`
        error[config/wrong-value]: a group cannot be called `Not A Name`
         ┌ /shop/shiplap.yaml:7:3
        7 │   Not A Name: [core]
          │   ^^^^^^^^^^ not a name
          = help: lower-case letters, digits, `-` and `_`, the first a letter or a digit
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_group_is_no_environment_and_a_command_for_one_says_so() {
    let config = config("environments: { core: {}, proxy: {} }\ngroups: { prod: [core, proxy] }\n")
        .expect("it is right");
    let problems = config.environment("prod", "shop").expect_err("it is a group");
    expect![[r#"
        error[config/is-group]: `prod` is a group of environments; this is for one of them
         ┌ /shop/shiplap.yaml:2:11
        2 │ groups: { prod: [core, proxy] }
          │           ^^^^ a group
          = help: it has core, proxy: `-e core`, for one
    "#]]
    .assert_eq(&said(&problems));
}
