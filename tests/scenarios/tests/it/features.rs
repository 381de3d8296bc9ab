//! What the Compose file may say, as the engine then has it.

use serde_json::json;
use shiplap_scenarios::Lab;

#[test]
fn job_runs_to_its_end_before_what_waits_for_it() {
    let Some(lab) = Lab::new("job") else { return };
    // In the network of `api` its health check succeeds and ends.
    let project = r#"
services:
  api:
    image: ${APP}:v1
    command: [api]
    deploy: {update_config: {monitor: 100ms}}
    healthcheck: {test: [CMD, /app, health, "9000"], interval: 300ms}
  migrate:
    image: ${APP}:v1
    command: [health, "${JOB_PORT:-9000}"]
    network_mode: service:api
    depends_on: {api: {condition: service_healthy}}
  web:
    image: ${APP}:v1
    command: [web]
    ports: ["${WEB_PORT}:8080"]
    deploy: {update_config: {monitor: 100ms}}
    depends_on: {migrate: {condition: service_completed_successfully}}
"#;
    lab.compose(project);
    lab.set("JOB_PORT", "1");
    let _ = lab.deploy("v1").exits(3).says("migrate");
    assert!(!lab.running().contains_key("web"), "nothing that waits for the job ran");

    lab.set("JOB_PORT", "9000");
    lab.deploy("v1").ok();
    assert_eq!(lab.version(lab.web), "v1");
    let containers = lab.engine.containers(&lab.project);
    let job = containers
        .iter()
        .find(|container| container["Labels"]["com.docker.compose.service"] == "migrate")
        .expect("the job's container is kept");
    let id = job["Id"].as_str().unwrap();
    let job = lab.engine.inspect(id);
    assert_eq!(job["State"]["ExitCode"], 0);
    let web = lab.inspect("web");
    let (ended, started) = (&job["State"]["FinishedAt"], &web["State"]["StartedAt"]);
    assert!(ended.as_str() < started.as_str(), "{ended} {started}");
    lab.deploy("v1").ok().says("nothing to do");
}

#[test]
fn profiles_choose_services() {
    let Some(lab) = Lab::new("profile") else { return };
    lab.compose(
        r#"
services:
  api:
    image: ${APP}:v1
    command: [api]
    deploy: {update_config: {monitor: 100ms}}
  extra:
    image: ${APP}:v1
    command: [web]
    profiles: [debug]
    deploy: {update_config: {monitor: 100ms}}
"#,
    );
    lab.deploy("v1").ok();
    assert!(lab.running().keys().eq(["api"]));
    lab.run(&["--profile", "debug", "deploy", "--yes"]).ok();
    assert!(lab.running().keys().eq(["api", "extra"]));
}

#[test]
fn configs_and_secrets_come_from_files_environment_and_content() {
    let Some(lab) = Lab::new("configs") else { return };
    lab.write("from-file.txt", "of a file");
    lab.set("FROM_ENVIRONMENT", "of the environment");
    lab.set("PART", "interpolated");
    lab.compose(
        r#"
services:
  api:
    image: ${APP}:v1
    command: [api]
    deploy: {update_config: {monitor: 100ms}}
    configs:
      - {source: content, target: /etc/content}
      - {source: file, target: /etc/file}
      - {source: variable, target: /etc/variable, mode: 0400}
    secrets: [secret-file, secret-variable]
configs:
  content: {content: "of content, ${PART}"}
  file: {file: ./from-file.txt}
  variable: {environment: FROM_ENVIRONMENT}
secrets:
  secret-file: {file: ./from-file.txt}
  secret-variable: {environment: FROM_ENVIRONMENT}
"#,
    );
    lab.deploy("v1").ok();
    let id = lab.only("api");
    for (path, content) in [
        ("/etc/content", "of content, interpolated"),
        ("/etc/file", "of a file"),
        ("/etc/variable", "of the environment"),
        ("/run/secrets/secret-file", "of a file"),
        ("/run/secrets/secret-variable", "of the environment"),
    ] {
        let archive = lab.engine.get_text(&format!("/containers/{id}/archive?path={path}"));
        assert!(archive.contains(content), "{path}: {archive}");
    }
    lab.deploy("v1").ok().says("nothing to do");
    lab.write("from-file.txt", "of a file, changed");
    lab.deploy("v1").ok().says("~ api");
    assert_ne!(lab.only("api"), id);
}

#[test]
fn what_the_file_says_of_a_container_reaches_the_engine() {
    let Some(lab) = Lab::new("smoke") else { return };
    lab.compose(
        r#"
services:
  api:
    image: ${APP}:v1
    command: [api]
    init: true
    user: "1000:1000"
    working_dir: /srv
    hostname: smoke
    read_only: true
    tmpfs: ["/scratch:size=1m"]
    shm_size: 32m
    mem_limit: 128m
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    security_opt: ["no-new-privileges:true"]
    ulimits: {nofile: {soft: 1000, hard: 2000}}
    sysctls: {net.core.somaxconn: "512"}
    extra_hosts: ["elsewhere:10.1.2.3"]
    dns: [10.9.8.7]
    labels: {tier: front}
    logging: {driver: json-file, options: {max-size: 1m}}
    stop_signal: SIGINT
    stop_grace_period: 7s
    restart: on-failure:3
    oom_score_adj: 100
    deploy: {update_config: {monitor: 100ms}}
    networks:
      inner: {aliases: [middle]}
networks:
  inner: {}
"#,
    );
    lab.deploy("v1").ok();
    let api = lab.inspect("api");
    let (config, host) = (&api["Config"], &api["HostConfig"]);
    for (found, expected) in [
        (&config["User"], json!("1000:1000")),
        (&config["WorkingDir"], json!("/srv")),
        (&config["Hostname"], json!("smoke")),
        (&config["StopSignal"], json!("SIGINT")),
        (&config["StopTimeout"], json!(7)),
        (&config["Labels"]["tier"], json!("front")),
        (&host["Init"], json!(true)),
        (&host["ReadonlyRootfs"], json!(true)),
        (&host["Tmpfs"]["/scratch"], json!("size=1m")),
        (&host["ShmSize"], json!(32 << 20)),
        (&host["Memory"], json!(128 << 20)),
        (&host["CapDrop"], json!(["ALL"])),
        (&host["CapAdd"], json!(["NET_BIND_SERVICE"])),
        (&host["SecurityOpt"], json!(["no-new-privileges:true"])),
        (&host["Ulimits"][0]["Hard"], json!(2000)),
        (&host["Sysctls"]["net.core.somaxconn"], json!("512")),
        (&host["ExtraHosts"], json!(["elsewhere:10.1.2.3"])),
        (&host["Dns"], json!(["10.9.8.7"])),
        (&host["LogConfig"]["Config"]["max-size"], json!("1m")),
        (&host["RestartPolicy"]["Name"], json!("on-failure")),
        (&host["RestartPolicy"]["MaximumRetryCount"], json!(3)),
        (&host["OomScoreAdj"], json!(100)),
    ] {
        assert_eq!(*found, expected, "{config:#} {host:#}");
    }
    let network = &api["NetworkSettings"]["Networks"][format!("{}_inner", lab.project)];
    assert!(network["Aliases"].to_string().contains("middle"), "{network:#}");
    lab.deploy("v1").ok().says("nothing to do");
}

#[test]
fn services_find_each_other_by_name() {
    let Some(lab) = Lab::new("names") else { return };
    lab.compose(
        r#"
services:
  api:
    image: ${APP}:v1
    command: [api]
    networks: [back]
    deploy: {update_config: {monitor: 100ms}}
  web:
    image: ${APP}:v1
    command: [web]
    ports: ["${WEB_PORT}:8080"]
    networks: [back, front]
    depends_on: [api]
    deploy: {update_config: {monitor: 100ms}}
networks:
  back: {internal: true}
  front: {}
"#,
    );
    lab.deploy("v1").ok();
    let answer = shiplap_scenarios::get(lab.web, "/api/version").unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}
