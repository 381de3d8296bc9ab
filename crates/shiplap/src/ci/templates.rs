//! The texts. What stands between `@@` is filled in.

use super::{Host, Workflow};

/// GitHub and Forgejo run the same form; they differ in where images and secrets are.
const ACTIONS: &str = r#"# Builds the image of @@service@@, and has it deployed. Needs the secrets that stand below; none is in
# this file. Written by `shiplap ci init`, and yours to change.
name: deploy
on:
  push:
    branches: [@@branch@@]
  workflow_dispatch: {}
concurrency:
  # One after the other: the newest commit is deployed last.
  group: deploy
permissions:
  contents: read
  packages: write
jobs:
  deploy:
    runs-on: @@runner@@
    timeout-minutes: 60
    env:
      IMAGE: @@image@@
      TAG: ${{ github.sha }}
    steps:
      - uses: actions/checkout@v4
      - name: Log in
        env:
          REGISTRY_USER: ${{ @@user@@ }}
          REGISTRY_TOKEN: ${{ @@password@@ }}
        run: printf %s "$REGISTRY_TOKEN" | docker login @@registry@@ --username "$REGISTRY_USER" --password-stdin
      - name: Build and push
        run: |
          docker build --file @@dockerfile@@ \
            --label org.opencontainers.image.revision="$TAG" \
            --label org.opencontainers.image.source="@@source@@" \
            --tag "$IMAGE:$TAG" @@context@@
          docker push "$IMAGE:$TAG"
@@scan@@@@sign@@      - name: Deploy
        env:
          SHIPLAP_URL: ${{ secrets.SHIPLAP_URL }}
          SHIPLAP_TOKEN: ${{ secrets.SHIPLAP_TOKEN }}
          KEY: ${{ github.run_id }}-${{ github.run_attempt }}
        run: |
@@deploy@@
"#;

const ACTIONS_SCAN: &str = r#"      - name: Scan
        # Pin the version that you have looked at; by digest is safer still.
        run: |
          docker run --rm --volume "$HOME/.docker:/root/.docker:ro" aquasec/trivy:0.68.2 \
            image --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed "$IMAGE:$TAG"
"#;

const ACTIONS_SIGN: &str = r#"      - uses: sigstore/cosign-installer@v3
      - name: Sign
        env:
          COSIGN_PRIVATE_KEY: ${{ secrets.COSIGN_PRIVATE_KEY }}
          COSIGN_PASSWORD: ${{ secrets.COSIGN_PASSWORD }}
        run: |
          digest=$(docker inspect --format '{{index .RepoDigests 0}}' "$IMAGE:$TAG")
          cosign sign --yes --key env://COSIGN_PRIVATE_KEY "$digest"
"#;

const GITLAB: &str = r#"# Builds the image of @@service@@, and has it deployed. Needs the variables that stand below, masked and
# protected; none is in this file. Written by `shiplap ci init`, and yours to change.
stages: [build, deploy]
variables:
  IMAGE: @@image@@
  TAG: $CI_COMMIT_SHA
.rules: &rules
  - if: $CI_COMMIT_BRANCH == "@@branch@@"
build:
  stage: build
  image: docker:27
  services: [docker:27-dind]
  rules: *rules
  script:
    - printf %s "$CI_REGISTRY_PASSWORD" | docker login "$CI_REGISTRY" --username "$CI_REGISTRY_USER" --password-stdin
    - docker build --file @@dockerfile@@ --label org.opencontainers.image.revision="$TAG" --label org.opencontainers.image.source="$CI_PROJECT_URL" --tag "$IMAGE:$TAG" @@context@@
    - docker push "$IMAGE:$TAG"
@@scan@@@@sign@@deploy:
  stage: deploy
  image: curlimages/curl:8.11.1
  rules: *rules
  # One after the other: the newest commit is deployed last.
  resource_group: deploy
  timeout: 1h
  variables:
    KEY: $CI_JOB_ID
  script:
    - |
@@deploy@@
"#;

const GITLAB_SCAN: &str = r#"scan:
  stage: build
  needs: [build]
  # Pin the version that you have looked at; by digest is safer still.
  image:
    name: aquasec/trivy:0.68.2
    entrypoint: [""]
  rules: *rules
  variables:
    TRIVY_USERNAME: $CI_REGISTRY_USER
    TRIVY_PASSWORD: $CI_REGISTRY_PASSWORD
  script:
    - trivy image --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed "$IMAGE:$TAG"
"#;

const GITLAB_SIGN: &str = r#"sign:
  stage: build
  needs: [build]
  image:
    name: ghcr.io/sigstore/cosign/cosign:v2.4.1-dev
    entrypoint: [""]
  rules: *rules
  script:
    - printf %s "$CI_REGISTRY_PASSWORD" | cosign login "$CI_REGISTRY" --username "$CI_REGISTRY_USER" --password-stdin
    - cosign sign --yes --key env://COSIGN_PRIVATE_KEY "$IMAGE:$TAG"
"#;

/// The call. The token goes by standard input: arguments can be read by everybody on the machine. 424 is
/// a deployment that failed; 408, one that goes on, is asked for again by the same key.
const DEPLOY: &str = r#"printf 'header = "Authorization: token %s"\n' "$SHIPLAP_TOKEN" |
  curl --config - --fail-with-body --silent --show-error \
    --retry 5 --retry-connrefused --max-time 1800 \
    --header "Content-Type: application/json" --header "Idempotency-Key: @@key@@-$KEY" \
    --data "{\"ref\": \"@@branch@@\", \"inputs\": {\"@@input@@\": \"$TAG\"}}" \
    "$SHIPLAP_URL/api/v1/repos/@@repository@@/actions/workflows/deploy.yml/dispatches?wait=20m""#;

pub(super) fn text(workflow: &Workflow) -> String {
    let is_gitlab = workflow.host == Host::Gitlab;
    let (whole, scan, sign, indent) = match is_gitlab {
        true => (GITLAB, GITLAB_SCAN, GITLAB_SIGN, 6),
        false => (ACTIONS, ACTIONS_SCAN, ACTIONS_SIGN, 10),
    };
    let deploy: Vec<String> =
        DEPLOY.lines().map(|line| format!("{}{line}", " ".repeat(indent))).collect();
    let context = match workflow.dockerfile.rsplit_once('/') {
        // The folder above a folder of build files holds the sources.
        Some((folder, _)) if folder.ends_with("docker") || folder.ends_with("build") => ".",
        Some((folder, _)) => folder,
        None => ".",
    };
    let registry = workflow.image.split('/').next().unwrap_or_default();
    let (user, password, runner) = match workflow.host {
        Host::Github => ("github.actor", "secrets.GITHUB_TOKEN", "ubuntu-latest"),
        Host::Forgejo | Host::Gitlab => {
            ("secrets.REGISTRY_USER", "secrets.REGISTRY_TOKEN", "docker")
        }
    };
    let source = "${{ github.server_url }}/${{ github.repository }}";
    let fill = [
        ("@@scan@@", if workflow.scan { scan } else { "" }),
        ("@@sign@@", if workflow.sign { sign } else { "" }),
        ("@@deploy@@", &deploy.join("\n")),
        ("@@service@@", &workflow.service),
        ("@@branch@@", &workflow.branch),
        ("@@image@@", &workflow.image),
        ("@@registry@@", registry),
        ("@@runner@@", runner),
        ("@@user@@", user),
        ("@@password@@", password),
        ("@@source@@", source),
        ("@@dockerfile@@", &workflow.dockerfile),
        ("@@context@@", context),
        ("@@input@@", &workflow.input),
        ("@@key@@", &workflow.service),
        ("@@repository@@", &workflow.repository),
    ];
    fill.iter().fold(whole.to_owned(), |text, (name, value)| text.replace(name, value))
}
