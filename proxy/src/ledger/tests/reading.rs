//! Tail, follow, find.

use super::*;
use crate::ledger::read::{Follow, find, record_at, tail};

#[tokio::test]
async fn the_tail_spans_segments_and_zones() {
    let place = Place::new();
    let ledger = place.open(LedgerOptions { segment_bytes: 1_000, ..quick() });
    for number in 0..10_i64 {
        let zone = if number % 2 == 0 { "a" } else { "b" };
        let at = 1_800_000_000_000 + number;
        ledger.event(Event { occurred_at: at, ..event(zone, &format!("r{number}")) }).unwrap();
    }
    ledger.flush().await.unwrap();
    assert!(place.segment("a", 2).exists());
    let ids = |records: Vec<Record>| records.into_iter().map(|record| record.request_id).collect::<Vec<_>>();
    assert_eq!(ids(tail(&place.dir(), None, 4).unwrap()), ["r6", "r7", "r8", "r9"]);
    assert_eq!(ids(tail(&place.dir(), Some("a"), 3).unwrap()), ["r4", "r6", "r8"]);
    assert_eq!(tail(&place.dir(), Some("nothing"), 3).unwrap(), []);
}

#[tokio::test]
async fn a_chain_keeps_its_order_where_what_happened_first_was_written_second() {
    let place = Place::new();
    let ledger = place.open(quick());
    ledger.event(event("a", "old")).unwrap();
    ledger.flush().await.unwrap();
    let mut follow = Follow::from_now(&place.dir(), None).unwrap();
    for (zone, at) in [("a", 30), ("a", 10), ("b", 20), ("a", 40), ("b", 35), ("a", 25)] {
        let occurred_at = 1_700_000_000_000 + at;
        ledger.event(Event { occurred_at, ..event(zone, &format!("{zone}{at}")) }).unwrap();
    }
    ledger.flush().await.unwrap();
    let new = follow.poll().unwrap();
    let shown = tail(&place.dir(), None, 100).unwrap();
    for records in [new, shown] {
        // Beside those there are the ledger's own.
        let ids: Vec<_> = records.iter().map(|record| record.request_id.as_str()).collect();
        let ids: Vec<_> = ids.into_iter().filter(|id| !id.is_empty() && *id != "old").collect();
        assert_eq!(ids, ["b20", "a30", "a10", "b35", "a40", "a25"]);
        let a = records.iter().filter(|record| record.zone_id == "a");
        assert!(a.is_sorted_by_key(|record| record.seq));
    }
}

#[tokio::test]
async fn following_gives_each_new_record_once_across_segments() {
    let place = Place::new();
    let ledger = place.open(LedgerOptions { segment_bytes: 1_000, ..quick() });
    ledger.event(event("a", "old")).unwrap();
    ledger.flush().await.unwrap();
    let mut follow = Follow::from_now(&place.dir(), None).unwrap();
    assert_eq!(follow.poll().unwrap(), []);
    let mut seen = Vec::new();
    for number in 0..12 {
        ledger.event(event(if number % 3 == 0 { "new-zone" } else { "a" }, &format!("r{number}"))).unwrap();
        ledger.flush().await.unwrap();
        seen.extend(follow.poll().unwrap().into_iter().filter(|record| !record.request_id.is_empty()));
    }
    let ids: Vec<_> = seen.iter().map(|record| record.request_id.clone()).collect();
    assert_eq!(ids, (0..12).map(|number| format!("r{number}")).collect::<Vec<_>>());
    assert_eq!(follow.poll().unwrap(), []);
}

#[tokio::test]
async fn a_request_is_found_by_any_of_its_ids() {
    let place = Place::new();
    let ledger = place.open(quick());
    let mut admission = ledger.admit("z").unwrap();
    let mut decision = event("z", "r1");
    decision.metadata.insert("client_request_id".into(), json!("theirs"));
    admission.decide(decision).await.unwrap();
    let mut result = Event { id: "other".into(), ..event("z", "r1") };
    result.metadata.insert("decision_id".into(), json!("id-r1"));
    admission.result(result);
    ledger.event(event("z", "r1-longer")).unwrap();
    ledger.flush().await.unwrap();
    assert_eq!(find(&place.dir(), None, "r1").unwrap().len(), 2);
    assert_eq!(find(&place.dir(), None, "id-r1").unwrap().len(), 2);
    assert_eq!(find(&place.dir(), None, "theirs").unwrap().len(), 1);
    assert_eq!(find(&place.dir(), None, "absent").unwrap(), []);
}

#[tokio::test]
async fn a_record_is_found_at_its_place() {
    let place = Place::new();
    place.filled(LedgerOptions { segment_bytes: 1_000, ..quick() }, 9).await;
    let all = place.records("z");
    for record in &all {
        assert_eq!(record_at(&place.dir(), "z", record.seq).unwrap().as_ref(), Some(record));
    }
    assert_eq!(record_at(&place.dir(), "z", 0).unwrap(), None);
    assert_eq!(record_at(&place.dir(), "z", 100).unwrap(), None);
}
