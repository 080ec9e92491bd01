//! Connections: kept over a crash, changed by one at a time, ended for good.

use super::*;

fn key(subject: &str) -> ConnectionKey {
    ConnectionKey { zone: ZONE.into(), provider: "provider://p".into(), subject: subject.into() }
}

fn granted(sealed: &[u8], renewable: bool, expires_at: Option<i64>) -> Granted {
    Granted { sealed: sealed.into(), renewable, expires_at }
}

async fn connected(bench: &Bench, subject: &str) -> Arc<Connection> {
    let granted = granted(b"sealed-1", true, Some(bench.now().saturating_add(1_000)));
    let id = bench.state.connection_id();
    bench.state.connect(&key(subject), &id, &granted).await.unwrap()
}

#[tokio::test]
async fn a_connection_and_what_it_is_renewed_with_outlive_a_crash() {
    let bench = Bench::new().await;
    let first = connected(&bench, "ada").await;
    connected(&bench, SHARED_SUBJECT).await;
    let (second, ours) =
        bench.state.renew_connection(&first, &granted(b"sealed-2", true, None)).await.unwrap();
    assert!(ours && second.version > first.version && second.id == first.id);
    let bench = bench.crash().await;
    let found = bench.state.connection(&key("ada")).unwrap();
    assert_eq!((&*found.sealed, found.version, found.expires_at), (&b"sealed-2"[..], second.version, None));
    assert_eq!(bench.state.list_connections(ZONE).len(), 2);
    assert!(bench.state.list_connections("elsewhere").is_empty());
}

#[tokio::test]
async fn what_was_renewed_meanwhile_is_not_renewed_from_the_old_version() {
    let bench = Bench::new().await;
    let first = connected(&bench, "ada").await;
    let (left, right) = (granted(b"left", true, None), granted(b"right", true, None));
    let (one, other) = tokio::join!(
        bench.state.renew_connection(&first, &left),
        bench.state.renew_connection(&first, &right)
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.1, other.1, "exactly one of them");
    let kept = if one.1 { b"left".to_vec() } else { b"right".to_vec() };
    assert_eq!(bench.state.connection(&key("ada")).unwrap().sealed.to_vec(), kept);
    let bench = bench.crash().await;
    assert_eq!(bench.state.connection(&key("ada")).unwrap().sealed.to_vec(), kept, "in the store too");
}

#[tokio::test]
async fn an_end_stands_against_a_renewal_that_was_under_way_and_takes_the_tokens() {
    let bench = Bench::new().await;
    let first = connected(&bench, "ada").await;
    let (fresh, ada) = (granted(b"sealed-2", true, None), key("ada"));
    let (_, ended) =
        tokio::join!(bench.state.renew_connection(&first, &fresh), bench.state.end_connection(&ada));
    assert_eq!(ended.unwrap().unwrap().sealed.to_vec(), b"sealed-1");
    assert!(bench.state.end_connection(&ada).await.unwrap().is_none(), "once");
    let bench = bench.crash().await;
    let found = bench.state.connection(&ada).unwrap();
    assert_eq!((found.status, found.sealed.len()), (ConnectionStatus::Revoked, 0));
    let again = connected(&bench, "ada").await;
    assert_eq!(again.status, ConnectionStatus::Active);
    assert_ne!(again.id, first.id);
    let bench = bench.crash().await;
    assert_eq!(bench.state.connection(&ada).unwrap().id, again.id);
}

#[tokio::test]
async fn a_restored_store_brings_no_connection_back() {
    let bench = Bench::new().await;
    connected(&bench, "ada").await;
    bench.state.end_everything("restored").await.unwrap();
    assert_eq!(bench.state.connection(&key("ada")).unwrap().status, ConnectionStatus::Revoked);
}

#[tokio::test]
async fn one_that_cannot_be_renewed_is_over_at_its_end() {
    let bench = Bench::new().await;
    let first = connected(&bench, "ada").await;
    let (row, _) = bench.state.lapse_connection(&first).await.unwrap();
    assert_eq!((row.status, row.renewable), (ConnectionStatus::Active, false));
    bench.pass(1_000);
    let (row, _) = bench.state.lapse_connection(&row).await.unwrap();
    assert_eq!(row.status, ConnectionStatus::Expired);
    let (old, changed) = bench.state.lapse_connection(&first).await.unwrap();
    assert!(!changed && old.version == row.version);
}
