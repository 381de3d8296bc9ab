//! Images: built, pushed with a password, refused by gates, and let through.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use sha2::Digest as _;
use shiplap_scenarios::registry::{PASSWORD, USER};
use shiplap_scenarios::{Lab, Registry};

/// What comes before the point of a key on P-256.
const P256_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A project whose only image is built, and lives in a registry of its own.
struct Shop {
    lab: Lab,
    registry: Registry,
}

impl Shop {
    fn new(purpose: &str) -> Option<Self> {
        let lab = Lab::new(purpose)?;
        let registry = Registry::start(&lab.engine)?;
        let host = registry.host();
        lab.compose(&format!(
            r#"
services:
  api:
    image: {host}/shop/api:v1
    build:
      dockerfile_inline: "FROM ${{APP}}:v1"
    command: [api]
    ports: ["${{API_PORT}}:9000"]
    deploy: {{ update_config: {{ monitor: 300ms }} }}
"#
        ));
        // Logins of whoever runs the test are none of ours.
        lab.set("DOCKER_CONFIG", &lab.dir().display().to_string());
        let shop = Self { lab, registry };
        shop.configure("{}");
        Some(shop)
    }

    fn configure(&self, gates: &str) {
        let (project, host) = (&self.lab.project, self.registry.host());
        self.lab.write(
            "shiplap.yaml",
            &format!(
                "registries:\n  {host}: {{ user: {USER}, secret: REGISTRY_PASSWORD }}\n\
                 environments:\n  prod:\n    project_name: {project}\n    gates: {gates}\n"
            ),
        );
    }

    fn give_password(&self, password: &str) {
        self.lab.write("password", password);
        let words =
            ["-e", "prod", "secrets", "set", "REGISTRY_PASSWORD", "--from-file", "password"];
        self.lab.run(&words).ok();
    }

    fn deploy(&self) -> shiplap_scenarios::Run {
        self.lab.run(&["-e", "prod", "deploy", "--yes"])
    }

    /// Builds and pushes the image; returns its digest.
    fn push(&self) -> String {
        let built = self.lab.run(&["-e", "prod", "build", "--push", "--json"]).ok().json();
        let digest = built["images"][0]["names"][0]["digest"].as_str();
        digest.expect("what was pushed has a digest").to_owned()
    }

    /// Signs the image of a digest as cosign did before its version 3.
    fn sign(&self, key: &EcdsaKeyPair, digest: &str) {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": ""},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string();
        let signature = key.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
        let config = b"{}";
        let layer = json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": sha256(payload.as_bytes()), "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": STANDARD.encode(signature)},
        });
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": sha256(config), "size": config.len(),
            },
            "layers": [layer],
        });
        self.registry.blob("shop/api", &sha256(config), config);
        self.registry.blob("shop/api", &sha256(payload.as_bytes()), payload.as_bytes());
        let tag = format!("{}.sig", digest.replace(':', "-"));
        self.registry.manifest("shop/api", &tag, kind, &manifest.to_string());
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.lab.end_background();
        let _ = self.lab.engine.remove_project(&self.lab.project);
        let name = format!("{}/shop/api:v1", self.registry.host());
        if let Err(error) = self.lab.engine.delete(&format!("/images/{name}?force=1")) {
            eprintln!("not removed: {error}");
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn key() -> (EcdsaKeyPair, String) {
    let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
    let secret = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, secret.as_ref(), &random).unwrap();
    let info = STANDARD.encode([&P256_INFO[..], key.public_key().as_ref()].concat());
    (key, format!("-----BEGIN PUBLIC KEY-----\n{info}\n-----END PUBLIC KEY-----\n"))
}

#[test]
fn a_login_comes_from_the_store_and_a_registry_that_says_no_is_understood() {
    let Some(shop) = Shop::new("login") else { return };
    shop.lab.run(&["-e", "prod", "build"]).exits(1).says("no secret `REGISTRY_PASSWORD`");
    shop.give_password("wrong");
    let refused = shop.lab.run(&["-e", "prod", "build", "--push"]).exits(1);
    refused.says("docker login").hides("wrong\"");
    shop.give_password(PASSWORD);
    let digest = shop.push();
    let shown = shop.lab.run(&["-e", "prod", "plan", "--json"]).ok().hides(PASSWORD).json();
    assert_eq!(shown["services"][0]["image"]["digest"].as_str(), Some(digest.as_str()));
    // What its registry does not have is found before anything changes.
    shop.lab.write("compose.override.yaml", "services: { api: { build: !reset null } }\n");
    let refused = shop.lab.run(&["-e", "prod", "deploy", "--yes", "--set", "api=v9"]).exits(1);
    refused.says("image-missing").says("nothing was changed");
    shop.give_password("wrong");
    let refused = shop.lab.run(&["-e", "prod", "deploy", "--yes", "--set", "api=v9"]).exits(1);
    refused.says("registry-denied").says("nothing was changed");
    assert!(shop.lab.newest().is_none_or(|newest| newest["outcome"] != "done"));
}

#[test]
fn only_an_image_that_is_signed_runs() {
    let Some(shop) = Shop::new("sign") else { return };
    shop.give_password(PASSWORD);
    let digest = shop.push();
    let (key, public) = key();
    shop.lab.write("team.pub", "no key\n");
    shop.configure("{ signature: { key: team.pub } }");
    shop.deploy().exits(1).says("config/bad-key").says("shiplap.yaml:");
    shop.lab.write("team.pub", &public);
    shop.deploy().exits(1).says("it has no signature");
    assert!(shop.lab.running().is_empty());
    let (other, _) = self::key();
    shop.sign(&other, &digest);
    shop.deploy().exits(1).says("made by another key");
    shop.sign(&key, &digest);
    shop.deploy().ok().says("signed with team.pub");
    assert_eq!(shop.lab.version(shop.lab.api), "v1");
    // What was found stays with the deployment.
    let shown = shop.lab.run(&["-e", "prod", "show", "--json"]).ok();
    shown.says(&format!("signed with team.pub for {digest}"));
}

#[test]
fn an_image_with_holes_does_not_run_unless_they_are_accepted() {
    let Some(shop) = Shop::new("scan") else { return };
    shop.give_password(PASSWORD);
    shop.push();
    let report = json!({"version": "2.1.0", "runs": [{"results": [
        {"ruleId": "CVE-1-2", "level": "error"},
    ]}]});
    shop.lab.write("report.sarif", &report.to_string());
    let scan =
        |more: &str| format!("{{ scan: {{ command: [cat, report.sarif], format: sarif{more} }} }}");
    shop.configure(&scan(""));
    shop.deploy().exits(1).says("1 high (scanned now): CVE-1-2");
    assert!(shop.lab.running().is_empty());
    shop.configure(&scan(", ignore: [CVE-1-2]"));
    shop.deploy().ok().says("1 high (by an earlier scan)");
    let kept = std::fs::read_dir(shop.lab.state().join("scans")).unwrap().count();
    assert_eq!(kept, 1);
    let newest: Value = shop.lab.run(&["-e", "prod", "show", "--json"]).ok().json();
    assert!(newest.to_string().contains("by an earlier scan"), "{newest:#}");
}
