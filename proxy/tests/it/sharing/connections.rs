//! Connections of a fleet: one node asks for fresh tokens, the others wait for it, and an end reaches all.

use std::sync::Arc;

use caracal::state::{Claimed, Connection, ConnectionKey, ConnectionStatus, Granted};

use super::{Pair, ZONE};

fn key() -> ConnectionKey {
    ConnectionKey { zone: ZONE.into(), provider: "provider://p".into(), subject: "ada".into() }
}

fn granted(sealed: &[u8]) -> Granted {
    Granted { sealed: sealed.into(), renewable: true, expires_at: None }
}

async fn connected(pair: &Pair) -> Arc<Connection> {
    let id = pair.nodes[0].connection_id();
    let row = pair.nodes[0].connect(&key(), &id, &granted(b"1")).await.unwrap();
    pair.both().await;
    assert_eq!(pair.nodes[1].connection(&key()).unwrap().version, row.version);
    row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_never_show_one_refresh_token() {
    let pair = Pair::new().await;
    let row = connected(&pair).await;
    let until = pair.clock.now() + 15_000;
    let [a, b] = &pair.nodes;
    let (one, other) = tokio::join!(a.claim_connection(&row, until), b.claim_connection(&row, until));
    let (one, other) = (one.unwrap(), other.unwrap());
    let ours = |claimed: &Claimed| matches!(claimed, Claimed::Ours(_));
    assert!(ours(&one) != ours(&other), "{one:?} {other:?}");
    let (winner, loser, claimed) = match (one, other) {
        (Claimed::Ours(row), _) => (a, b, row),
        (_, Claimed::Ours(row)) => (b, a, row),
        both => panic!("{both:?}"),
    };
    pair.both().await;
    let seen = loser.connection(&key()).unwrap();
    assert!(
        matches!(loser.claim_connection(&seen, until).await.unwrap(), Claimed::Theirs(at) if at == until)
    );
    let (fresh, kept) = winner.renew_connection(&claimed, &granted(b"2")).await.unwrap();
    assert!(kept);
    let (_, late) = loser.renew_connection(&seen, &granted(b"3")).await.unwrap();
    assert!(!late, "what was rotated is not put back");
    pair.both().await;
    let found = loser.connection(&key()).unwrap();
    assert_eq!((&*found.sealed, found.version), (&b"2"[..], fresh.version));
    // A node that went away while it asked holds the others up for a while only.
    let Claimed::Ours(_) = winner.claim_connection(&fresh, until).await.unwrap() else {
        panic!("it is free")
    };
    pair.both().await;
    pair.clock.advance(std::time::Duration::from_secs(16));
    let seen = loser.connection(&key()).unwrap();
    assert!(ours(&loser.claim_connection(&seen, until + 16_000).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_reaches_the_other_nodes_and_stands_against_a_renewal() {
    let pair = Pair::new().await;
    let row = connected(&pair).await;
    let [a, b] = &pair.nodes;
    let (fresh, theirs) = (granted(b"2"), key());
    let (_, ended) = tokio::join!(a.renew_connection(&row, &fresh), b.end_connection(&theirs));
    assert!(ended.unwrap().is_some());
    pair.both().await;
    for node in [a, b, &pair.fresh("c").await] {
        let found = node.connection(&key()).unwrap();
        assert_eq!((found.status, found.sealed.len()), (ConnectionStatus::Revoked, 0));
    }
    let id = a.connection_id();
    a.connect(&key(), &id, &granted(b"4")).await.unwrap();
    pair.both().await;
    assert_eq!(b.connection(&key()).unwrap().id, id);
}
