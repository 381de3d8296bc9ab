//! The page that describes the API.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::stage::Stage;

const PAGE: &str = "../../docs/openapi.json";

#[test]
fn the_page_in_the_docs_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = shiplap_server::openapi() + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/openapi.json is not up to date: run this test with UPDATE_EXPECT=1"
    );
}

#[tokio::test]
async fn the_page_is_served_and_every_route_of_it_asks_for_a_token() {
    let stage = Stage::new().await;
    let page: Value = stage.get("/api/v1/openapi.json").send().await.json();
    assert_eq!(page["openapi"], "3.1.0");
    let mut open = BTreeSet::new();
    for (path, methods) in page["paths"].as_object().unwrap() {
        for (method, _) in methods.as_object().unwrap() {
            let concrete = path
                .replace("{id}", "1")
                .replace("{number}", "1")
                .replace("{kind}", "github")
                .replace(['{', '}'], "");
            let method = method.to_uppercase().parse().unwrap();
            let asking = crate::client::Asking::new(stage.address, method, &concrete);
            let status = asking.send().await.status.as_u16();
            // After so many without a token nobody is asked for one any more.
            if ![401, 429].contains(&status) {
                open.insert(format!("{path} {status}"));
            }
        }
    }
    assert_eq!(open, BTreeSet::from(["/healthz 200".to_owned()]));
}

#[tokio::test]
async fn other_addresses_and_methods_are_answered_in_the_same_form() {
    let stage = Stage::new().await;
    let nowhere = stage.get("/api/v2/nothing").send().await;
    assert_eq!((nowhere.status.as_u16(), nowhere.code().as_str()), (404, "not-found"));
    let method = stage.delete("/api/v1/environments").send().await;
    assert_eq!((method.status.as_u16(), method.code().as_str()), (405, "bad-method"));
}
