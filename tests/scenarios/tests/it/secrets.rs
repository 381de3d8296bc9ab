//! Values stay where they belong.

use std::path::Path;

use shiplap_scenarios::Lab;

const VALUE: &str = "hush-0b5e55ed-4711";

#[test]
fn value_is_in_the_container_and_nowhere_else() {
    let Some(lab) = Lab::new("secret") else { return };
    lab.write(".env", &format!("TOKEN={VALUE}\n"));
    lab.write("token.txt", &format!("{VALUE}\n"));
    lab.compose(
        r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    ports: ["${API_PORT}:9000"]
    environment: {TOKEN: "${TOKEN}"}
    secrets: [token]
    configs: [{source: settings, target: /settings}]
    deploy: {update_config: {monitor: 100ms}}
secrets:
  token: {file: ./token.txt}
configs:
  settings: {content: "token=${TOKEN}"}
"#,
    );
    lab.run(&["plan", "--steps"]).ok().hides(VALUE);
    lab.run(&["plan", "--json"]).ok().hides(VALUE);
    lab.deploy("v1").ok().hides(VALUE);
    lab.set("TAG", "v2");
    lab.run(&["deploy", "--yes", "--json"]).ok().hides(VALUE);
    let _ = lab.deploy("crash").exits(3).hides(VALUE);
    for words in [&["show"][..], &["show", "1"], &["history"], &["status"]] {
        lab.run(words).ok().hides(VALUE);
        lab.run(&[words, &["--json"]].concat()).ok().hides(VALUE);
    }
    for file in files(&lab.state()) {
        let content = std::fs::read(&file).unwrap();
        let found = content.windows(VALUE.len()).any(|window| window == VALUE.as_bytes());
        assert!(!found, "the value is in {}", file.display());
    }
    let api = lab.inspect("api");
    assert!(api["Config"]["Env"].to_string().contains(VALUE), "the service gets it");
    assert!(!api["Config"]["Labels"].to_string().contains(VALUE));
    // It is worth something: a rollback has the value when the file has gone.
    lab.write(".env", "TOKEN=other\n");
    lab.run(&["rollback", "--yes"]).ok().hides(VALUE);
    assert!(lab.inspect("api")["Config"]["Env"].to_string().contains(VALUE));
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    assert!(!files.is_empty(), "there is a history in {}", folder.display());
    files
}
