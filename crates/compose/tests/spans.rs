//! Every value knows where it was written, however it got to its place.

use shiplap_compose::{Loaded, MemoryFiles, Request, load};

fn load_files<const N: usize>(files: [(&str, &str); N]) -> Loaded {
    let files = MemoryFiles::from(files.map(|(name, text)| (format!("/app/{name}"), text)));
    let mut request = Request { working_dir: "/app".into(), ..Request::default() };
    request.environment.insert("TAG".into(), "secret-value".into());
    load(&request, &files).expect("loads")
}

#[track_caller]
fn check(loaded: &Loaded, path: &str, expected: &str) {
    let path: Vec<&str> = path.split('/').collect();
    let place = loaded.span(&path).map(|at| format!("{at} {}", at.text.trim()));
    assert_eq!(place.as_deref(), Some(expected), "{path:?}");
}

#[test]
fn merged_values_point_to_their_file() {
    let loaded = load_files([
        (
            "compose.yaml",
            "services:\n  web:\n    image: a\n    ports:\n      - 80:80\n      - 81:81\n",
        ),
        ("compose.override.yml", "services:\n  web:\n    image: b\n    ports:\n      - 82:82\n"),
    ]);
    check(&loaded, "services/web/image", "compose.override.yml:3:12 image: b");
    check(&loaded, "services/web/ports/1", "compose.yaml:6:9 - 81:81");
    check(&loaded, "services/web/ports/2/published", "compose.override.yml:5:9 - 82:82");
    check(&loaded, "services/web", "compose.yaml:2:3 web:");
}

#[test]
fn interpolated_and_anchored_values_point_to_their_text() {
    let loaded = load_files([(
        "compose.yaml",
        "x-a: &a\n  restart: always\nservices:\n  web:\n    <<: *a\n    image: nginx:${TAG}\n    environment:\n      - A=${TAG}\n      - B=2\n",
    )]);
    check(&loaded, "services/web/image", "compose.yaml:6:12 image: nginx:${TAG}");
    check(&loaded, "services/web/restart", "compose.yaml:2:12 restart: always");
    check(&loaded, "services/web/environment/A", "compose.yaml:8:9 - A=${TAG}");
    check(&loaded, "services/web/environment/B", "compose.yaml:9:9 - B=2");
}

#[test]
fn extended_and_included_values_point_to_their_file() {
    let loaded = load_files([
        (
            "compose.yaml",
            "include: [sub/compose.yaml]\nservices:\n  web:\n    extends: {file: lib.yaml, service: base}\n",
        ),
        ("lib.yaml", "services:\n  base:\n    image: a\n"),
        ("sub/compose.yaml", "services:\n  inner:\n    image: b\n    volumes: [\"./d:/d\"]\n"),
    ]);
    check(&loaded, "services/web/image", "lib.yaml:3:12 image: a");
    check(
        &loaded,
        "services/inner/volumes/0/source",
        "sub/compose.yaml:4:15 volumes: [\"./d:/d\"]",
    );
    assert_eq!(loaded.files.len(), 3);
}

#[test]
fn values_that_were_added_point_to_what_is_around_them() {
    let loaded = load_files([("compose.yaml", "services:\n  web:\n    image: a\n")]);
    check(&loaded, "services/web/networks/default", "compose.yaml:2:3 web:");
    assert_eq!(loaded.span(&["networks", "default"]), None);
}

#[test]
fn places_in_long_lines_show_the_part_around_them() {
    let labels: String = (0..200).map(|i| format!("k{i}: v, ")).collect();
    let long = format!("services: {{web: {{image: a, labels: {{{labels}z: [1]}}}}}}");
    let files = MemoryFiles::from([("/app/compose.yaml", long)]);
    let request = Request { working_dir: "/app".into(), ..Request::default() };
    let problems = load(&request, &files).expect_err("a list is no label");
    let place = problems[0].location.as_ref().expect("a place");
    assert!(place.column > 1000 && place.text.chars().count() < 200);
    assert_eq!(place.text.chars().nth(place.offset), Some('z'));
}
