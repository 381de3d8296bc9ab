//! Files that want to hurt: each ends soon, in a diagnostic.

use std::time::{Duration, Instant};

use shiplap_compose::{Diagnostic, MemoryFiles, Request, Trust, load};

/// Far more than any of these needs, even in a slow build.
const LIMIT: Duration = Duration::from_secs(20);

fn problems(files: &MemoryFiles) -> Vec<Diagnostic> {
    let start = Instant::now();
    let request =
        Request { working_dir: "/app".into(), trust: Trust::Untrusted, ..Request::default() };
    let result = load(&request, files);
    assert!(start.elapsed() < LIMIT, "took {:?}", start.elapsed());
    let problems = result.map(|_| Vec::new()).unwrap_or_else(|problems| problems);
    for problem in &problems {
        assert!(problem.to_string().len() < 20_000, "a message is for reading");
    }
    problems
}

#[track_caller]
fn check(text: impl Into<Vec<u8>>, code: &str) {
    let mut files = MemoryFiles::default();
    files.insert("/app/compose.yaml", text);
    let problems = problems(&files);
    assert!(problems.iter().any(|problem| problem.code == code), "{code} not in {problems:#?}");
}

#[test]
fn alias_bombs_end() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    check(text, "compose/too-big");
    let mut text = format!("a0: &a0 {}\n", "x".repeat(100_000));
    text += &format!("a: [{}]\n", vec!["*a0"; 100_000].join(", "));
    check(text, "compose/too-big");
}

#[test]
fn merge_key_bombs_end() {
    let mut text = "x-0: &m0 {a: {b: c}}\n".to_string();
    for i in 1..40 {
        text += &format!("x-{i}: &m{i} {{k1: *m{p}, k2: *m{p}, <<: *m{p}}}\n", p = i - 1);
    }
    check(text, "compose/too-big");
}

#[test]
fn deep_nesting_ends() {
    check("[".repeat(20_000), "compose/yaml");
    check("{a: ".repeat(20_000), "compose/yaml");
    check("- ".repeat(20_000), "compose/yaml");
    check("a: &a [*a]", "compose/alias-cycle");
    check("a: &a {b: {<<: *a}}", "compose/alias-cycle");
    // Docker Compose 2.26 does not come back from these five.
    check("services: {a: &a {<<: *a, image: x}}", "compose/alias-cycle");
    check("x: &x {<<: *x}\nservices: {a: {image: x}}", "compose/alias-cycle");
    check("services: {a: {image: x, labels: &l {<<: *l, k: v}}}", "compose/alias-cycle");
    check("services: {a: {<<: &b {<<: *b}, image: x}}", "compose/alias-cycle");
    check("services: {a: &a {image: x, <<: {<<: *a}}}", "compose/alias-cycle");
    let nested = "${A:-".repeat(20_000) + &"}".repeat(20_000);
    check(format!("services: {{a: {{image: \"{nested}\"}}}}"), "compose/too-deep");
    check(
        format!("services: {{a: {{image: \"{}\"}}}}", "${A:-".repeat(50_000)),
        "compose/bad-interpolation",
    );
}

#[test]
fn bytes_that_are_no_text_end() {
    check(b"services: {a: {image: \"\xff\xfe\"}}".to_vec(), "compose/not-utf8");
    check("services: {a: {image: \"\0\"}}", "compose/yaml");
    check("\u{feff}", "compose/empty-file");
    check("", "compose/empty-file");
    check("---\n---\n", "compose/empty-file");
    check("services:\r\n\tweb:\r\n", "compose/yaml");
    check("%YAML 9.9\n---\nservices: {}\n%", "compose/yaml");
}

#[test]
fn huge_inputs_end() {
    check(vec![b'a'; 17 << 20], "compose/unreadable-file");
    let huge = format!("services: {{a: {{image: \"{}\", imag: x}}}}", "x".repeat(4 << 20));
    check(huge, "compose/unknown-key");
    check(
        format!(
            "services: {{a: {{image: a, ports: [{}]}}}}",
            (0..50)
                .map(|i| format!("\"127.0.0.{i}:1-65535:1-65535\""))
                .collect::<Vec<_>>()
                .join(",")
        ),
        "compose/too-big",
    );
    let keys: String = (0..30_000).map(|i| format!("k{i}: 1\n")).collect();
    check(keys, "compose/unknown-key");
}

#[test]
fn a_variable_cannot_multiply_a_text_without_bound() {
    let mut files = MemoryFiles::default();
    files.insert("/app/.env", format!("A={}\n", "x".repeat(1 << 20)));
    files.insert(
        "/app/compose.yaml",
        format!("services: {{a: {{image: \"{}\"}}}}", "$A".repeat(1_000)),
    );
    assert!(problems(&files).iter().any(|problem| problem.code == "compose/too-big"));
}

#[test]
fn variables_cannot_double_each_other_without_bound() {
    let mut files = MemoryFiles::default();
    let doubling: String =
        (1..60).map(|i| format!("A{i}=${{A{p}}}${{A{p}}}\n", p = i - 1)).collect();
    files.insert("/app/.env", format!("A0=xx\n{doubling}"));
    files.insert("/app/compose.yaml", "services: {a: {image: \"$A59\"}}");
    assert!(problems(&files).iter().any(|problem| problem.code == "compose/bad-env-file"));
}

#[test]
fn includes_and_extends_cannot_multiply_without_bound() {
    let mut files = MemoryFiles::default();
    for i in 0..40 {
        let next = format!("f{}.yaml", i + 1);
        let text = format!("include: [{next}, {next}, {next}]\nservices: {{s{i}: {{image: a}}}}\n");
        let name = if i == 0 { "compose.yaml".to_string() } else { format!("f{i}.yaml") };
        files.insert(format!("/app/{name}"), text);
    }
    assert!(!problems(&files).is_empty());

    let mut files = MemoryFiles::default();
    let many: String = (0..500)
        .map(|i| format!("  s{i}: {{extends: {{file: big.yaml, service: s0}}}}\n"))
        .collect();
    files.insert("/app/compose.yaml", format!("services:\n{many}"));
    let labels: String = (0..5_000).map(|i| format!("l{i}: x, ")).collect();
    files.insert("/app/big.yaml", format!("services: {{s0: {{image: a, labels: {{{labels}}}}}}}"));
    assert!(problems(&files).iter().any(|problem| problem.code == "compose/too-big"));

    let mut files = MemoryFiles::default();
    let chain: String = (0..1_000).map(|i| format!("  s{i}: {{extends: s{}}}\n", i + 1)).collect();
    files.insert("/app/compose.yaml", format!("services:\n{chain}  s1000: {{image: a}}\n"));
    problems(&files);
}

#[test]
fn untrusted_files_stay_in_the_project() {
    for text in [
        "include: [/etc/passwd]\nservices: {a: {image: a}}",
        "include: [{path: ok.yaml, env_file: ../.env}]\nservices: {a: {image: a}}",
        "services: {a: {extends: {file: ../x.yaml, service: b}}}",
        "services: {a: {image: a, env_file: [sub/../../x]}}",
        "services: {a: {image: a, label_file: /x}}",
    ] {
        let mut files = MemoryFiles::default();
        files.insert("/app/compose.yaml", text);
        files.insert("/app/ok.yaml", "services: {}");
        let problems = problems(&files);
        let refused = problems.iter().any(|problem| problem.code == "compose/outside-project");
        assert!(refused, "{text}: {problems:#?}");
    }
    let mut files = MemoryFiles::default();
    files.insert("/app/.env", "COMPOSE_FILE=/etc/x.yaml\n");
    files.insert("/etc/x.yaml", "services: {a: {image: a}}");
    assert!(problems(&files).iter().any(|problem| problem.code == "compose/outside-project"));
}

#[test]
fn no_message_shows_the_value_of_a_variable() {
    const SECRET: &str = "hunter2";
    let text = "services:\n  web:\n    image: a\n    hostname: ${S}\n    depends_on: ['${S}']\n    networks: ['${S}']\n    volumes: ['${S}:/d', {type: '${S}', target: /x}]\n    ports: ['${S}:80']\n    mem_limit: ${S}\n    cpus: ${S}\n    privileged: ${S}\n    stop_grace_period: ${S}\n    secrets: ['${S}']\n    devices: ['${S}:a:b:c:d']\n    extra_hosts: ['${S}']\n    command: \"'${S}\"\n    env_file: ./${S}.env\n    pull_policy: ${S}\n    restart: ${T:?${S}}\n    healthcheck: {test: ['${S}'], interval: '${S}'}\n    deploy: {replicas: '${S}'}\n    security_opt: ['${S}', '${S}']\n    network_mode: service:${S}\n  b: {image: b, container_name: '${S}'}\n  c: {image: b, container_name: '${S}', extends: '${S}'}\ninclude: ['${S}.yaml']\n";
    for text in [text.to_string(), text.replace("include: ['${S}.yaml']\n", "")] {
        let mut files = MemoryFiles::default();
        files.insert("/app/compose.yaml", text);
        files.insert("/app/.env", format!("S={SECRET}\n"));
        let problems = problems(&files);
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(!problem.to_string().contains(SECRET), "{problem}");
        }
    }
}

/// Damages every case a little, many times: nothing may panic or hang.
///
/// `COMPOSE_DAMAGE_ROUNDS` sets how often (40), `COMPOSE_DAMAGE_CORPUS` a folder with more files.
#[test]
fn damaged_cases_do_not_panic() {
    let rounds = std::env::var("COMPOSE_DAMAGE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut corpus: Vec<String> = Vec::new();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for entry in std::fs::read_dir(folder).expect("cases") {
        let text = std::fs::read_to_string(entry.expect("entry").path()).expect("text");
        let body =
            text.split("--- compose.yaml\n").nth(1).and_then(|body| body.split("--- ").next());
        corpus.extend(body.map(str::to_string));
    }
    if let Some(folder) = std::env::var_os("COMPOSE_DAMAGE_CORPUS") {
        for entry in std::fs::read_dir(folder).expect("corpus") {
            corpus.extend(std::fs::read_to_string(entry.expect("entry").path()).ok());
        }
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    const PIECES: &[&str] = &[
        "${",
        "}",
        "$",
        ":",
        "[",
        "]",
        "{",
        "}",
        "-",
        "\n",
        "  ",
        "!reset ",
        "!override ",
        "&a ",
        "*a",
        "<<: ",
        "null",
        "'",
        "\"",
        "0",
        "1e9",
        "~",
        "../",
        "\u{feff}",
        "\t",
        "#",
        ",",
        "é",
    ];
    for body in &corpus {
        for _ in 0..rounds.unwrap_or(40) {
            let mut damaged = body.to_string();
            for _ in 0..=random(3) {
                let mut at = random(damaged.len() + 1);
                while !damaged.is_char_boundary(at) {
                    at -= 1;
                }
                let mut end = (at + random(6)).min(damaged.len());
                while !damaged.is_char_boundary(end) {
                    end -= 1;
                }
                let piece = PIECES[random(PIECES.len())];
                damaged.replace_range(at..end.max(at), piece);
            }
            let mut files = MemoryFiles::default();
            if random(2) == 0 {
                // Also on top of another one, and as variables.
                files.insert("/app/compose.override.yml", corpus[random(corpus.len())].clone());
                files.insert("/app/.env", damaged.replace(": ", "="));
            }
            files.insert("/app/compose.yaml", damaged);
            problems(&files);
        }
    }
}
