//! Deployers with leases of different age.

use shiplap_edge::{ClientError, Table};

use crate::support::Edge;

async fn put(edge: &Edge, owner: &str, lease: u64) -> Result<Table, ClientError> {
    let change = |table: &mut Table| {
        table.leases.insert(owner.to_owned(), lease);
    };
    edge.client.update_table(change).await
}

#[tokio::test]
async fn a_deployer_with_an_older_lease_changes_nothing() {
    let edge = Edge::start().await;
    put(&edge, "shop/default", 5).await.unwrap();
    put(&edge, "shop/default", 5).await.unwrap();
    let before = put(&edge, "shop/default", 6).await.unwrap();
    match put(&edge, "shop/default", 5).await {
        Err(ClientError::Overtaken { lease, .. }) => assert_eq!(lease, 6),
        other => panic!("{other:?}"),
    }
    assert_eq!(edge.client.table().await.unwrap(), before);
    // Others have leases of their own.
    put(&edge, "mail/default", 1).await.unwrap();
}

#[tokio::test]
async fn leases_outlive_whoever_does_not_know_of_them_and_a_restart() {
    let edge = Edge::start().await;
    put(&edge, "shop/default", 5).await.unwrap();
    edge.client.update_table(|table| table.leases.clear()).await.unwrap();
    let mut edge = edge;
    edge.supervisor.kill().unwrap();
    edge.supervisor.wait().unwrap();
    let folder = std::mem::replace(&mut edge.folder, tempfile::tempdir().unwrap());
    let again = Edge::start_in(folder).await;
    assert!(matches!(
        put(&again, "shop/default", 4).await,
        Err(ClientError::Overtaken { lease: 5, .. })
    ));
}
