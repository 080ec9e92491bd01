//! What verification finds, and where.

use proptest::prelude::*;

use super::*;
use crate::ledger::verify::{Reason, verify_against};

fn bad(place: &Place) -> (u64, Reason) {
    let bad = place.report("z").first_bad.unwrap();
    assert_eq!(bad.file, place.segment("z", 1));
    (bad.line, bad.reason)
}

async fn filled() -> (Place, Vec<String>) {
    let place = Place::new();
    place.filled(quick(), 8).await;
    let lines = place.lines("z", 1);
    assert_eq!(lines.len(), 10, "key, eight records, closing checkpoint");
    (place, lines)
}

/// Gives an altered line the hash of its new content, as somebody who knows the format would.
fn rehash(line: &str) -> String {
    let mut members: Map<String, Value> = serde_json::from_str(line).unwrap();
    members.remove("hash");
    let mut bytes = Vec::new();
    canonical::write_record(&mut bytes, &members).unwrap();
    members.insert("hash".into(), record::sha256_hex(&bytes).into());
    bytes.clear();
    canonical::write_record(&mut bytes, &members).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn an_untouched_ledger_verifies_with_the_public_key_alone() {
    let (place, _) = filled().await;
    let key = Trust::Key(place.key().public());
    fs::remove_dir_all(place.root.path().join("keys")).unwrap();
    let found = verify(&place.dir(), None, &key).unwrap();
    assert!(found.is_good(), "{found:?}");
    let zone = found.zones.iter().find(|zone| zone.zone == "z").unwrap();
    assert_eq!(
        (zone.records, zone.checkpoints, zone.last_checkpoint_seq, zone.uncovered_tail),
        (10, 1, Some(10), 0)
    );
}

#[tokio::test]
async fn an_edited_line_is_named() {
    let (place, mut lines) = filled().await;
    lines[4] = lines[4].replace("\"allow\"", "\"deny\"");
    place.write_lines("z", 1, &lines);
    assert_eq!(bad(&place), (5, Reason::Altered("its hash does not match its content")));
}

#[tokio::test]
async fn a_line_edited_with_its_hash_breaks_the_link_behind_it() {
    let (place, mut lines) = filled().await;
    lines[4] = rehash(&lines[4].replace("\"allow\"", "\"deny\""));
    place.write_lines("z", 1, &lines);
    assert_eq!(bad(&place), (6, Reason::Unlinked));
}

#[tokio::test]
async fn a_chain_rebuilt_without_the_key_fails_at_the_checkpoint() {
    let (place, mut lines) = filled().await;
    lines[4] = lines[4].replace("\"allow\"", "\"deny\"");
    for at in 4..lines.len() {
        let prev = serde_json::from_str::<Record>(&lines[at - 1]).unwrap().hash;
        let old = serde_json::from_str::<Record>(&lines[at]).unwrap().prev;
        lines[at] =
            rehash(&lines[at].replace(&format!("\"prev\":\"{old}\""), &format!("\"prev\":\"{prev}\"")));
    }
    place.write_lines("z", 1, &lines);
    assert_eq!(bad(&place), (10, Reason::BadCheckpoint));
    lines.pop();
    place.write_lines("z", 1, &lines);
    let report = place.report("z");
    assert_eq!((report.first_bad, report.uncovered_tail), (None, 9), "nothing of it is signed for");
}

#[tokio::test]
async fn a_chain_rebuilt_behind_its_last_checkpoint_is_found_by_a_known_head() {
    let place = Place::new();
    let ledger = place.open(quick());
    ledger.event(event("z", "r1")).unwrap();
    ledger.flush().await.unwrap();
    let heads = ledger.heads();
    drop(ledger);
    let mut lines = place.lines("z", 1);
    assert_eq!(lines.len(), 2, "no checkpoint yet");
    lines[1] = rehash(&lines[1].replace("\"allow\"", "\"deny\""));
    place.write_lines("z", 1, &lines);
    assert_eq!(place.report("z").first_bad, None);
    let found = verify_against(&place.dir(), Some("z"), &place.trust(), &heads).unwrap();
    let bad = found.zones[0].first_bad.clone().unwrap();
    assert_eq!((bad.line, bad.reason), (2, Reason::Replaced));
}

#[tokio::test]
async fn a_chain_without_its_key_in_front_is_not_accepted() {
    let (place, mut lines) = filled().await;
    let mut first: Map<String, Value> = serde_json::from_str(&lines[1]).unwrap();
    first.insert("seq".into(), json!(1));
    first.insert("prev".into(), json!(record::NO_HASH));
    lines = vec![rehash(&Value::Object(first).to_string())];
    place.write_lines("z", 1, &lines);
    assert_eq!(bad(&place), (1, Reason::NoKey));
}

#[tokio::test]
async fn deleted_inserted_and_moved_lines_are_named() {
    let (place, lines) = filled().await;
    let mut deleted = lines.clone();
    deleted.remove(3);
    place.write_lines("z", 1, &deleted);
    assert_eq!(bad(&place), (4, Reason::OutOfOrder { expected: 4, found: 5 }));
    let mut inserted = lines.clone();
    inserted.insert(3, lines[3].clone());
    place.write_lines("z", 1, &inserted);
    assert_eq!(bad(&place), (5, Reason::OutOfOrder { expected: 5, found: 4 }));
    let mut moved = lines.clone();
    moved.swap(5, 6);
    place.write_lines("z", 1, &moved);
    assert_eq!(bad(&place), (6, Reason::OutOfOrder { expected: 6, found: 7 }));
    let mut headless = lines.clone();
    headless.remove(0);
    place.write_lines("z", 1, &headless);
    assert_eq!(bad(&place), (1, Reason::OutOfOrder { expected: 1, found: 2 }));
    place.write_lines("z", 1, &lines);
    assert!(place.verify().is_good());
}

#[tokio::test]
async fn reordered_members_and_spaces_are_not_canonical() {
    let (place, mut lines) = filled().await;
    lines[2] = lines[2].replacen(',', ", ", 1);
    place.write_lines("z", 1, &lines);
    assert_eq!(bad(&place), (3, Reason::Altered("it is not in canonical form")));
}

#[tokio::test]
async fn a_missing_segment_is_named() {
    let place = Place::new();
    place.filled(LedgerOptions { segment_bytes: 1_500, ..quick() }, 12).await;
    assert!(place.verify().is_good());
    assert!(place.segment("z", 4).exists());
    let kept = fs::read(place.segment("z", 2)).unwrap();
    fs::remove_file(place.segment("z", 2)).unwrap();
    let found = place.report("z").first_bad.unwrap();
    assert_eq!((found.file, found.line, found.reason), (place.segment("z", 2), 0, Reason::MissingSegment));
    fs::write(place.segment("z", 2), kept).unwrap();
    fs::remove_file(place.segment("z", 1)).unwrap();
    assert_eq!(place.report("z").first_bad.unwrap().file, place.segment("z", 1));
}

#[tokio::test]
async fn a_chain_cut_at_its_end_is_found_by_a_known_head() {
    let place = Place::new();
    let ledger = place.open(quick());
    for number in 0..8 {
        ledger.event(event("z", &format!("r{number}"))).unwrap();
    }
    ledger.close().await.unwrap();
    let heads = ledger.heads();
    let mut lines = place.lines("z", 1);
    lines.truncate(6);
    place.write_lines("z", 1, &lines);
    assert_eq!(place.report("z").first_bad, None, "by itself it merely looks shorter");
    let found = verify_against(&place.dir(), Some("z"), &place.trust(), &heads).unwrap();
    let bad = found.zones[0].first_bad.clone().unwrap();
    assert_eq!((bad.line, bad.reason), (6, Reason::Truncated { known: 10 }));
    fs::remove_dir_all(segment::folder(&place.dir(), "z")).unwrap();
    let found = verify_against(&place.dir(), None, &place.trust(), &heads).unwrap();
    let gone = found.zones.iter().find(|zone| zone.zone == "z").unwrap();
    assert_eq!(gone.first_bad.as_ref().unwrap().reason, Reason::Truncated { known: 10 });
}

#[tokio::test]
async fn a_forged_checkpoint_is_named() {
    let (place, mut lines) = filled().await;
    let checkpoint: Record = serde_json::from_str(&lines[9]).unwrap();
    let signature = checkpoint.metadata["signature"].as_str().unwrap();
    let forged: String = signature.chars().rev().collect();
    lines[9] = rehash(&lines[9].replace(signature, &forged));
    place.write_lines("z", 1, &lines);
    assert_eq!(bad(&place), (10, Reason::BadCheckpoint));
}

#[tokio::test]
async fn another_key_than_the_chains_is_not_accepted() {
    let (place, _) = filled().await;
    let stranger = LedgerKey::open(&place.root.path().join("other")).unwrap();
    let found = verify(&place.dir(), Some("z"), &Trust::Key(stranger.public())).unwrap();
    let bad = found.zones[0].first_bad.clone().unwrap();
    assert_eq!((bad.line, bad.reason), (1, Reason::WrongKey));
}

#[tokio::test]
async fn a_record_of_another_zone_is_named() {
    let (place, lines) = filled().await;
    fs::create_dir(segment::folder(&place.dir(), "y")).unwrap();
    place.write_lines("y", 1, &lines);
    let found = place.report("y").first_bad.unwrap();
    assert_eq!((found.line, found.reason), (1, Reason::WrongZone("z".into())));
}

#[tokio::test]
async fn a_new_key_is_introduced_by_the_old_one_and_both_verify_the_whole() {
    let place = Place::new();
    place.filled(quick(), 3).await;
    let old = place.key().public();
    let keys = place.root.path().join("keys");
    let new = LedgerKey::succeed(&keys).unwrap().public();
    assert_ne!(old, new);
    place.filled(quick(), 3).await;
    assert_eq!(place.types("z").iter().filter(|kind| *kind == "ledger_key").count(), 2);
    for key in [old, new] {
        let found = verify(&place.dir(), None, &Trust::Key(key)).unwrap();
        assert!(found.is_good(), "{found:?}");
        assert!(found.zones.iter().all(|zone| zone.uncovered_tail == 0));
    }
    let mut lines = place.lines("z", 1);
    let at = lines.iter().rposition(|line| line.contains("\"ledger_key\"")).unwrap();
    let introduction: Record = serde_json::from_str(&lines[at]).unwrap();
    let signature = introduction.metadata["signature"].as_str().unwrap();
    lines[at] = rehash(&lines[at].replace(signature, &"0".repeat(128)));
    place.write_lines("z", 1, &lines);
    assert_eq!(bad(&place), (u64::try_from(at).unwrap() + 1, Reason::BadKey));
}

#[tokio::test]
async fn a_chain_whose_key_is_gone_does_not_open() {
    let (place, _) = filled().await;
    fs::remove_dir_all(place.root.path().join("keys")).unwrap();
    let refused = place.try_open(quick()).unwrap_err();
    assert!(matches!(refused, LedgerError::UnknownKey { .. }), "{refused}");
}

fn any_event() -> impl Strategy<Value = Event> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    (
        ".{0,20}",
        ".{0,20}",
        value.clone(),
        proptest::collection::btree_map(".{0,6}", value, 0..4),
        any::<i64>(),
    )
        .prop_map(|(id, request_id, diagnostics, metadata, occurred_at)| Event {
            id,
            zone_id: "z".into(),
            event_type: "token_exchange",
            request_id,
            decision: "deny",
            evaluation_status: "no_rule_matched".into(),
            determining_policies: vec!["a".into()],
            diagnostics,
            metadata: metadata.into_iter().collect(),
            occurred_at,
        })
}

proptest! {
    #![proptest_config(crate::authority::testkit::cases(24))]
    #[test]
    fn any_events_verify_and_any_flipped_byte_does_not(
        events in proptest::collection::vec(any_event(), 1..12),
        at in any::<proptest::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let place = Place::new();
        let ledger = place.open(LedgerOptions { checkpoint_every: 4, ..quick() });
        let count = events.len();
        for event in events {
            ledger.event(event).unwrap();
        }
        runtime.block_on(ledger.close()).unwrap();
        prop_assert!(place.verify().is_good(), "{:?}", place.verify());
        prop_assert!(place.records("z").len() > count);
        let path = place.segment("z", 1);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();
        prop_assert!(!place.verify().is_good(), "byte {} of {}", at, bytes.len());
    }
}
