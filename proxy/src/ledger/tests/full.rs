//! What happens when the disk does not take records.

use std::io::Read as _;
use std::os::unix::fs::symlink;

use super::*;

/// Makes every write to zone `z` fail with "no space left on device".
fn fill_disk(place: &Place) {
    fs::create_dir_all(segment::folder(&place.dir(), "z")).unwrap();
    symlink("/dev/full", place.segment("z", 1)).unwrap();
}

fn free_disk(place: &Place) {
    fs::remove_file(place.segment("z", 1)).unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_requests_until_there_is_room_and_loses_nothing() {
    let place = Place::new();
    let ledger = place.open(quick());
    fill_disk(&place);
    let mut admitted = ledger.admit("z").unwrap();
    admitted.decide(event("z", "kept")).await.unwrap();
    wait_until("the ledger notices", || !ledger.healthy());
    assert_eq!(ledger.admit("z").unwrap_err(), LedgerFull::Failed);
    assert_eq!(ledger.event(event("z", "e")).unwrap_err(), LedgerFull::Failed);
    let trouble = ledger.status().trouble.unwrap();
    assert!(trouble.contains("No space left"), "{trouble}");
    assert!(matches!(ledger.flush().await, Err(LedgerError::Failed(_))));
    assert!(
        matches!(ledger.close().await, Err(LedgerError::Failed(_))),
        "it stays open rather than lose records"
    );
    free_disk(&place);
    wait_until("the ledger recovers", || ledger.healthy());
    admitted.result(event("z", "kept"));
    ledger.close().await.unwrap();
    assert_eq!(read::find(&place.dir(), Some("z"), "kept").unwrap().len(), 2);
    assert_eq!(ledger.status().reserved, 0);
    assert!(place.verify().is_good());
}

#[tokio::test]
async fn a_strict_decision_that_cannot_be_written_refuses_its_request() {
    let place = Place::new();
    let ledger = place.open(strict());
    fill_disk(&place);
    let mut first = ledger.admit("z").unwrap();
    let mut second = ledger.admit("z").unwrap();
    assert!(matches!(first.decide(event("z", "first")).await, Err(LedgerError::Failed(_))));
    assert!(
        matches!(second.decide(event("z", "second")).await, Err(LedgerError::Failed(_))),
        "admitted before it failed"
    );
    first.result(event("z", "first"));
    second.result(event("z", "second"));
    free_disk(&place);
    wait_until("the ledger recovers", || ledger.healthy());
    ledger.close().await.unwrap();
    assert_eq!(place.types("z").iter().filter(|kind| *kind == "gateway_resource_request").count(), 4);
}

#[tokio::test]
async fn a_removed_segment_is_noticed_and_its_return_is_followed_by_a_gap() {
    let place = Place::new();
    let ledger = place.open(quick());
    ledger.event(event("z", "before")).unwrap();
    ledger.flush().await.unwrap();
    let synced = ledger.head("z").unwrap().0;
    let mut removed = fs::File::open(place.segment("z", 1)).unwrap();
    fs::remove_file(place.segment("z", 1)).unwrap();
    ledger.event(event("z", "doubtful")).unwrap();
    assert!(matches!(ledger.flush().await, Err(LedgerError::Failed(_))));
    assert_eq!(ledger.admit("z").unwrap_err(), LedgerFull::Failed);
    let trouble = ledger.status().trouble.unwrap();
    assert!(trouble.contains("removed") || trouble.contains("shorter"), "{trouble}");
    let mut bytes = Vec::new();
    removed.read_to_end(&mut bytes).unwrap();
    fs::write(place.segment("z", 1), bytes).unwrap();
    wait_until("the ledger recovers", || ledger.healthy());
    ledger.close().await.unwrap();
    let gap = place.records("z").into_iter().find(|record| record.event_type == "gap").unwrap();
    assert_eq!(gap.metadata["reason"], "sync_failed");
    assert_eq!(
        (&gap.metadata["from_seq"], &gap.metadata["to_seq"]),
        (&json!(synced + 1), &json!(gap.seq - 1))
    );
    assert!(place.verify().is_good());
}

#[tokio::test]
async fn a_segment_that_cannot_be_followed_by_the_next_fails_and_recovers() {
    let place = Place::new();
    let ledger = place.open(LedgerOptions { segment_bytes: 1, ..quick() });
    ledger.event(event("z", "r0")).unwrap();
    ledger.flush().await.unwrap();
    let blocked = place.segment("z", 2);
    fs::create_dir(&blocked).unwrap();
    ledger.event(event("z", "r1")).unwrap();
    assert!(matches!(ledger.flush().await, Err(LedgerError::Failed(_))));
    fs::remove_dir(&blocked).unwrap();
    wait_until("the ledger recovers", || ledger.healthy());
    ledger.close().await.unwrap();
    assert_eq!(read::find(&place.dir(), Some("z"), "r1").unwrap().len(), 1);
    assert!(place.verify().is_good());
}
