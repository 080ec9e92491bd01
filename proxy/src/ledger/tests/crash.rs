//! Stops, clean and not, and what the next start says about them.

use super::*;
use std::io::Write as _;

#[tokio::test]
async fn a_clean_stop_leaves_nothing_to_report() {
    let place = Place::new();
    place.filled(quick(), 2).await;
    place.filled(quick(), 1).await;
    let types = place.types("z");
    assert_eq!(types.iter().filter(|kind| *kind == "gap" || *kind == "recovered").count(), 0, "{types:?}");
    let checkpoint = place.records("z").pop().unwrap();
    assert_eq!(
        (&checkpoint.metadata["closing"], &checkpoint.metadata["outstanding"]),
        (&json!(true), &json!(0))
    );
    assert!(place.verify().is_good());
    let before = place.types("z").len();
    place.open(quick()).close().await.unwrap();
    assert_eq!(place.types("z").len(), before, "a zone without traffic does not grow");
}

#[tokio::test]
async fn an_unclean_stop_is_told_in_every_chain() {
    let place = Place::new();
    place.filled(quick(), 2).await;
    let ledger = place.open(quick());
    ledger.event(event("y", "r")).unwrap();
    drop(ledger);
    place.open(quick()).close().await.unwrap();
    for zone in ["y", "z", SYSTEM] {
        let gaps: Vec<Record> =
            place.records(zone).into_iter().filter(|record| record.event_type == "gap").collect();
        assert_eq!(gaps.len(), 1, "{zone}");
        assert_eq!(gaps[0].metadata["reason"], "unclean_stop");
        assert_eq!(gaps[0].metadata["process_crash_up_to_ms"], 50);
        assert_eq!(gaps[0].metadata["after_seq"], gaps[0].seq - 1);
        assert_eq!(place.report(zone).gaps, 1);
    }
    assert!(place.verify().is_good());
}

#[tokio::test]
async fn a_torn_last_line_is_kept_aside_and_told() {
    let place = Place::new();
    place.filled(quick(), 3).await;
    let torn = b"{\"decision\":\"allow\",\"determ";
    fs::OpenOptions::new().append(true).open(place.segment("z", 1)).unwrap().write_all(torn).unwrap();
    assert_eq!(place.report("z").first_bad.unwrap().reason, verify::Reason::Torn);
    place.filled(quick(), 1).await;
    let aside = place.segment("z", 1).with_extension("jsonl.torn-1");
    assert_eq!(fs::read(aside).unwrap(), torn);
    let told = place.records("z").into_iter().find(|record| record.event_type == "recovered").unwrap();
    assert_eq!(told.metadata["bytes"], torn.len());
    assert_eq!(told.metadata["moved_to"], "000001.jsonl.torn-1");
    assert!(place.verify().is_good());
}

#[tokio::test]
async fn a_chain_of_which_only_a_torn_line_is_left_starts_anew() {
    let place = Place::new();
    fs::create_dir_all(segment::folder(&place.dir(), "z")).unwrap();
    fs::write(place.segment("z", 1), b"{\"torn").unwrap();
    place.filled(quick(), 1).await;
    assert_eq!(place.types("z")[..2], ["ledger_key", "recovered"]);
    assert!(place.verify().is_good());
}

#[tokio::test]
async fn a_damaged_last_record_stops_the_start() {
    let place = Place::new();
    place.filled(quick(), 3).await;
    let mut lines = place.lines("z", 1);
    let last = lines.len() - 1;
    lines[last] = lines[last].replace("true", "false");
    place.write_lines("z", 1, &lines);
    let refused = place.try_open(quick()).unwrap_err();
    assert!(matches!(refused, LedgerError::Damaged { .. }), "{refused}");
}

#[tokio::test]
async fn an_empty_last_segment_continues_the_one_before() {
    let place = Place::new();
    place.filled(quick(), 3).await;
    let head = place.records("z").pop().unwrap();
    fs::write(place.segment("z", 2), b"").unwrap();
    place.filled(quick(), 1).await;
    let next: Record = serde_json::from_str(&place.lines("z", 2)[0]).unwrap();
    assert_eq!((next.seq, next.prev), (head.seq + 1, head.hash));
    assert!(place.verify().is_good());
}

#[tokio::test]
async fn a_second_process_does_not_get_the_folder() {
    let place = Place::new();
    let ledger = place.open(quick());
    assert!(matches!(place.try_open(quick()).unwrap_err(), LedgerError::InUse(_)));
    ledger.close().await.unwrap();
    place.open(quick()).close().await.unwrap();
}

#[tokio::test]
async fn the_durable_heads_are_in_the_chain_after_a_restart() {
    let place = Place::new();
    let ledger = place.open(quick());
    ledger.event(event("z", "r")).unwrap();
    ledger.flush().await.unwrap();
    let heads = ledger.heads();
    assert_eq!(heads.iter().map(|(zone, ..)| zone.as_str()).collect::<Vec<_>>(), [SYSTEM, "z"]);
    drop(ledger);
    let ledger = place.open(quick());
    for (zone, seq, hash) in heads {
        assert!(ledger.contains(&zone, seq, &hash).unwrap());
        assert!(!ledger.contains(&zone, seq, "00").unwrap());
        assert!(!ledger.contains(&zone, seq + 100, &hash).unwrap());
        assert!(ledger.head(&zone).unwrap().0 > seq, "the gap record is durable when open returns");
    }
    assert_eq!(ledger.head("unknown"), None);
}

#[tokio::test]
async fn records_that_never_came_are_counted_in_the_closing_checkpoint() {
    let place = Place::new();
    let ledger = place.open(quick());
    let mut late = ledger.admit("z").unwrap();
    late.decide(event("z", "r")).await.unwrap();
    ledger.close().await.unwrap();
    assert_eq!(place.records("z").pop().unwrap().metadata["outstanding"], 1);
    late.result(event("z", "r"));
    assert_eq!(ledger.admit("z").unwrap_err(), LedgerFull::Closed);
    assert!(matches!(ledger.flush().await, Err(LedgerError::Closed)));
    assert!(matches!(ledger.close().await, Err(LedgerError::Closed)));
    assert_eq!(place.types("z"), ["ledger_key", "gateway_resource_request", "checkpoint"]);
}
