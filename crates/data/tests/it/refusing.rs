//! What is refused before anything is made.

use shiplap_data::app::Problem;

use crate::lab::Lab;
use crate::sampling::{CONFIG, SHOP};

#[tokio::test]
async fn columns_that_nobody_decided_about_are_refused() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let refused = lab.sample("").await;
    let Err(Problem::Unclassified { columns, block }) = refused else { panic!("{refused:?}") };
    let names: Vec<&str> = columns.iter().map(|column| column.column.as_str()).collect();
    // `born` says nothing to a list of words: fingerprints are for such columns.
    for personal in [
        "people.email",
        "people.phone",
        "people.profile",
        "people.last_ip",
        "people.password_hash",
        "people.api_key",
        "people.handle",
        "reviews.body",
    ] {
        assert!(names.contains(&personal), "{personal} is not among {names:?}");
    }
    assert!(!names.contains(&"countries.label") && !names.contains(&"items.title"), "{names:?}");
    assert!(block.contains("    people.email: email"), "{block}");
    assert_eq!(lab.targets().await, "");
    // What it proposes can be pasted.
    let pasted = format!(
        "sample:\n  root: {{ table: people, rate: 20% }}\n{block}    votes.voter: handle\n"
    );
    lab.sample(&pasted).await.expect("the proposed rules are enough");
    lab.end().await;
}

#[tokio::test]
async fn a_column_that_was_added_later_is_refused() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let known = |print: &str| format!("{CONFIG}  fingerprint: {{ countries: \"{print}\" }}\n");
    let Err(Problem::Changed { tables, block }) = lab.sample(&known("none")).await else {
        panic!("it is not refused")
    };
    assert!(tables.contains(&"countries".to_owned()), "{tables:?}");
    let accepted = format!("{CONFIG}{block}");
    lab.sample(&accepted).await.expect("nothing changed since");
    lab.execute(&lab.source, "ALTER TABLE countries ADD remark text").await;
    let Err(Problem::Changed { tables, .. }) = lab.sample(&accepted).await else {
        panic!("it is not refused")
    };
    assert_eq!(tables, ["countries"]);
    lab.end().await;
}

#[tokio::test]
async fn rows_are_never_hidden_silently() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let role = format!("reader-{}", lab.source);
    lab.execute(
        &lab.source,
        &format!(
            "CREATE ROLE \"{role}\" LOGIN; GRANT USAGE ON SCHEMA public, \"Billing\" TO \"{role}\";
             GRANT SELECT ON ALL TABLES IN SCHEMA public, \"Billing\" TO \"{role}\";
             ALTER TABLE follows ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON follows USING (a = 1)",
        ),
    )
    .await;
    let server = lab.server_as(&lab.source, &role);
    let source = shiplap_data::postgres::Source::open(&server, 1, 1_000).await.unwrap();
    let refused = source.schema().await.expect_err("the policy hides rows").to_string();
    assert!(refused.contains("row-level security") && refused.contains("follows"), "{refused}");
    drop(source);
    lab.execute(&lab.source, &format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).await;
    lab.end().await;
}

#[tokio::test]
async fn more_than_is_allowed_is_refused() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let refused = lab.sample(&format!("{CONFIG}  max: {{ rows: 100 }}\n")).await;
    let Err(Problem::Limits(passed)) = refused else { panic!("{refused:?}") };
    assert!(passed[0].ends_with("where `max.rows` is 100"), "{passed:?}");
    assert_eq!(lab.targets().await, "");
    lab.end().await;
}
