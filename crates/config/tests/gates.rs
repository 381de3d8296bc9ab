//! What `shiplap.yaml` asks of images, and the logins that it names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use expect_test::expect;
use shiplap_config::{Config, ReportFormat, Settings, SignedBy, Weight};

fn config(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/shop/shiplap.yaml"), text)
        .map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
}

fn prod(text: &str) -> Settings {
    config(text).expect("it is right").environment("prod", "shop").expect("it is there")
}

#[test]
fn a_key_a_command_and_several_rules_are_read() {
    let one = prod("environments: { prod: { gates: { signature: { key: keys/team.pub } } } }");
    let SignedBy::Keys { files, timeout } = &one.gates.signature[0].by else { panic!() };
    assert_eq!(*files, [PathBuf::from("/shop/keys/team.pub")]);
    assert_eq!(*timeout, Duration::from_secs(30 * 60));
    let several = prod(
        "
environments:
  prod:
    gates:
      signature:
        - { key: [a.pub, b.pub], repositories: [ghcr.io/team/*], timeout: 1m }
        - { command: 'check {image}' }
",
    );
    let rules = &several.gates.signature;
    assert_eq!(rules[0].repositories, ["ghcr.io/team/*"]);
    let SignedBy::Keys { files, timeout } = &rules[0].by else { panic!() };
    assert_eq!((files.len(), *timeout), (2, Duration::from_secs(60)));
    let SignedBy::Command(hook) = &rules[1].by else { panic!() };
    assert_eq!(hook.command, ["check", "{image}"]);
}

#[test]
fn a_scanner_is_a_command_until_its_report_is_read() {
    let plain = prod("environments: { prod: { gates: { scan: { command: scan } } } }");
    assert_eq!(plain.gates.scan.unwrap().report, None);
    let scan = prod(
        "
environments:
  prod:
    gates:
      scan: { command: [s, '{report}'], format: cyclonedx, fail_on: critical, ignore: [CVE-1] }
",
    );
    let report = scan.gates.scan.unwrap().report.unwrap();
    assert_eq!((report.format, report.fail_on), (ReportFormat::Cyclonedx, Weight::Critical));
    assert_eq!(report.max_age, Duration::from_secs(24 * 60 * 60));
    assert!(report.ignore.contains("CVE-1"));
}

#[test]
fn what_does_not_fit_is_pointed_at() {
    let problems = config(
        "
registries:
  ghcr.io: { user: robot }
  https://reg.example: { tls: false }
environments:
  prod:
    gates:
      signature:
        - { repositories: [a] }
        - { key: a.pub, command: b }
        - { key: a.pub, timeout: soon }
      scan: { command: s, fail_on: low, ignore: [CVE-1] }
",
    )
    .unwrap_err();
    expect![[r#"
        error[config/wrong-value]: `environments.prod.gates.signature[0]` is not complete: it says neither `key` nor `command`
         ┌ /shop/shiplap.yaml:9:11
        9 │         - { repositories: [a] }
          │           ^^^^^^^^^^^^^^^^^^^^^ here
          = help: `key: cosign.pub`
        error[config/wrong-value]: `environments.prod.gates.signature[1]` is not complete: it is either `key` or `command`
          ┌ /shop/shiplap.yaml:10:11
        10 │         - { key: a.pub, command: b }
           │           ^^^^^^^^^^^^^^^^^^^^^^^^^^ here
           = help: `key: cosign.pub`
        error[config/wrong-value]: `environments.prod.gates.scan.fail_on` needs `format`: what is not a report cannot be read
          ┌ /shop/shiplap.yaml:12:36
        12 │       scan: { command: s, fail_on: low, ignore: [CVE-1] }
           │                                    ^^^ nothing to read
           = help: `format: sarif` or `format: cyclonedx`
        error[config/wrong-value]: `environments.prod.gates.scan.ignore` needs `format`: what is not a report cannot be read
          ┌ /shop/shiplap.yaml:12:41
        12 │       scan: { command: s, fail_on: low, ignore: [CVE-1] }
           │                                         ^^^^^^ nothing to read
           = help: `format: sarif` or `format: cyclonedx`
        error[config/wrong-value]: `environments.prod.gates.signature[2].timeout` is no length of time: `soon`
          ┌ /shop/shiplap.yaml:11:34
        11 │         - { key: a.pub, timeout: soon }
           │                                  ^^^^ no length of time
           = help: such as 30s, 5m or 12h
        error[config/missing]: `registries.ghcr.io` does not say `secret`
         ┌ /shop/shiplap.yaml:3:3
        3 │   ghcr.io: { user: robot }
          │   ^^^^^^^ not complete
          = help: `user: NAME` and `secret: NAME`; `shiplap secrets set NAME` reads it
        error[config/wrong-value]: `https://reg.example` is no registry
         ┌ /shop/shiplap.yaml:4:3
        4 │   https://reg.example: { tls: false }
          │   ^^^^^^^^^^^^^^^^^^^ not a host
          = help: such as ghcr.io or registry.lan:5000; Docker's is docker.io
    "#]].assert_eq(&problems);
}

#[test]
fn a_key_that_cannot_be_used_is_pointed_at() {
    let text =
        "environments:\n  prod:\n    gates:\n      signature:\n        - { key: [a.pub, b.pub] }\n";
    let told = prod(text).bad_key(0, 1, "it has no key").to_string();
    assert!(told.contains("shiplap.yaml:5:") && told.contains("it has no key"), "{told}");
    let one = prod("environments: { prod: { gates: { signature: { key: a.pub } } } }");
    assert!(one.bad_key(0, 0, "why").to_string().contains("signature.key"));
}
