//! Admission, both durabilities, both lanes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::*;

fn junk(number: u32) -> EarlyRefusal {
    let peer = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number));
    EarlyRefusal {
        code: if number.is_multiple_of(2) { "no_route" } else { "bad_head" },
        listener: "gateway",
        peer,
    }
}

fn early_counts(place: &Place) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for record in place.records(SYSTEM).into_iter().filter(|record| record.event_type == "early_refusal") {
        let count: &mut u64 = counts.entry(record.evaluation_status).or_default();
        *count = count.checked_add(record.metadata["count"].as_u64().unwrap()).unwrap();
    }
    counts
}

#[tokio::test]
async fn a_strict_decision_is_readable_on_disk_when_it_returns() {
    let place = Place::new();
    let ledger = place.open(strict());
    for number in 0..20 {
        let request = format!("r{number}");
        let mut admission = ledger.admit("z").unwrap();
        admission.decide(event("z", &request)).await.unwrap();
        let last = read::tail(&place.dir(), Some("z"), 1).unwrap().pop().unwrap();
        assert_eq!(last.request_id, request);
        assert_eq!(ledger.head("z").unwrap(), (last.seq, last.hash), "and durable");
        admission.result(event("z", &request));
        ledger.flush().await.unwrap();
    }
    ledger.close().await.unwrap();
    assert!(place.verify().is_good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn strict_decisions_of_many_zones_share_commits_and_all_arrive() {
    let place = Place::new();
    let ledger = Arc::new(place.open(strict()));
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let zone = format!("zone-{}", number % 5);
                for round in 0..5 {
                    let mut admission = ledger.admit(&zone).unwrap();
                    admission.decide(event(&zone, &format!("{number}-{round}"))).await.unwrap();
                    admission.result(event(&zone, &format!("{number}-{round}")));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    ledger.close().await.unwrap();
    assert!(place.verify().is_good());
    let total: usize = (0..5)
        .map(|zone| {
            place
                .types(&format!("zone-{zone}"))
                .iter()
                .filter(|kind| *kind == "gateway_resource_request")
                .count()
        })
        .sum();
    assert_eq!(total, 64 * 5 * 2);
    assert_eq!(ledger.status().reserved, 0);
}

#[tokio::test]
async fn a_buffered_decision_is_written_without_being_asked_for() {
    let place = Place::new();
    let ledger = place.open(LedgerOptions::default());
    let mut admission = ledger.admit("z").unwrap();
    admission.decide(event("z", "r1")).await.unwrap();
    wait_until("the record is in the file", || {
        !read::find(&place.dir(), Some("z"), "r1").unwrap().is_empty()
    });
    admission.result(event("z", "r1"));
}

#[tokio::test]
async fn traffic_is_checkpointed_by_count_and_by_time() {
    let place = Place::new();
    let ledger = place.open(LedgerOptions {
        checkpoint_every: 4,
        checkpoint_after: Duration::from_millis(5),
        ..quick()
    });
    let checkpoints = ledger.checkpoints();
    for number in 0..10 {
        ledger.event(event("z", &format!("r{number}"))).unwrap();
    }
    wait_until("a checkpoint in the background covers everything", || {
        let report = place.report("z");
        report.first_bad.is_none() && report.checkpoints >= 3 && report.uncovered_tail == 0
    });
    wait_until("the durable head follows", || ledger.head("z").is_some_and(|(seq, _)| seq >= 14));
    assert!(checkpoints.has_changed().unwrap());
}

#[tokio::test]
async fn without_slots_new_requests_are_refused_and_admitted_ones_complete() {
    let place = Place::new();
    let ledger = place.open(LedgerOptions { queue: 6, ..quick() });
    let mut admitted: Vec<Admission> = (0..3).map(|_| ledger.admit("z").unwrap()).collect();
    assert_eq!(ledger.admit("z").unwrap_err(), LedgerFull::NoSlots);
    assert_eq!(ledger.event(event("z", "e")).unwrap_err(), LedgerFull::NoSlots);
    for admission in &mut admitted {
        admission.decide(event("z", "d")).await.unwrap();
    }
    ledger.flush().await.unwrap();
    assert_eq!(ledger.status().reserved, 3, "the results' slots stay reserved");
    for admission in admitted {
        admission.result(event("z", "r"));
    }
    ledger.flush().await.unwrap();
    assert_eq!(ledger.status().reserved, 0);
    let again = ledger.admit("z").unwrap();
    drop(again);
    assert_eq!(ledger.status().reserved, 0, "an admission that never decided frees both");
    ledger.close().await.unwrap();
    assert_eq!(place.types("z").iter().filter(|kind| *kind == "gateway_resource_request").count(), 6);
}

#[tokio::test]
async fn a_decision_without_a_result_is_recorded_as_aborted_once() {
    let place = Place::new();
    let ledger = place.open(quick());
    let mut abandoned = ledger.admit("z").unwrap();
    abandoned.decide(event("z", "gone")).await.unwrap();
    drop(abandoned);
    let mut finished = ledger.admit("z").unwrap();
    finished.decide(event("z", "done")).await.unwrap();
    finished.result(event("z", "done"));
    ledger.close().await.unwrap();
    let aborted: Vec<Record> =
        place.records("z").into_iter().filter(|record| record.evaluation_status == "aborted").collect();
    assert_eq!(aborted.len(), 1);
    assert_eq!(aborted[0].request_id, "gone");
    assert_eq!(aborted[0].metadata["decision_id"], "id-gone");
    assert_eq!(aborted[0].metadata["outcome"], "unknown");
    assert_eq!(ledger.status().reserved, 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_during_a_strict_commit_leaves_both_records() {
    let place = Place::new();
    let ledger = place.open(strict());
    let mut admission = ledger.admit("z").unwrap();
    {
        let mut decision = Box::pin(admission.decide(event("z", "r")));
        let polled = futures_util::poll!(&mut decision);
        drop((polled, decision));
    }
    drop(admission);
    ledger.close().await.unwrap();
    let found = read::find(&place.dir(), Some("z"), "r").unwrap();
    assert_eq!(
        found.iter().map(|record| record.evaluation_status.as_str()).collect::<Vec<_>>(),
        ["complete", "aborted"]
    );
}

#[tokio::test]
async fn an_event_without_a_zone_goes_where_its_request_was_admitted() {
    let place = Place::new();
    let ledger = place.open(quick());
    let mut admission = ledger.admit("z").unwrap();
    admission.decide(event("", "r")).await.unwrap();
    admission.result(event("", "r"));
    ledger.event(event("", "process")).unwrap();
    ledger.close().await.unwrap();
    assert_eq!(read::find(&place.dir(), Some("z"), "r").unwrap().len(), 2);
    assert_eq!(read::find(&place.dir(), Some(SYSTEM), "process").unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_early_refusals_leaves_requests_alone_and_its_counts_add_up() {
    const THREADS: u32 = 4;
    const EACH: u32 = 20_000;
    let place = Place::new();
    let ledger = Arc::new(place.open(LedgerOptions { queue: 64, ..quick() }));
    let flood: Vec<_> = (0..THREADS)
        .map(|thread| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                (0..EACH).for_each(|number| ledger.refuse_early(junk(thread * EACH + number)))
            })
        })
        .collect();
    for number in 0..200 {
        let mut admission = ledger.admit("z").unwrap();
        admission.decide(event("z", &format!("r{number}"))).await.unwrap();
        admission.result(event("z", &format!("r{number}")));
        if number % 20 == 0 {
            ledger.flush().await.unwrap();
        }
        wait_until("there is room again", || ledger.status().reserved < 60);
    }
    for thread in flood {
        thread.join().unwrap();
    }
    ledger.close().await.unwrap();
    let half = u64::from(THREADS * EACH / 2);
    assert_eq!(
        early_counts(&place),
        HashMap::from([("no_route".to_owned(), half), ("bad_head".to_owned(), half)])
    );
    assert_eq!(ledger.status().early_refusals, 2 * half);
    assert!(place.records(SYSTEM).len() < 20_000, "a flood is counted, not copied");
    assert_eq!(place.types("z").iter().filter(|kind| *kind == "gateway_resource_request").count(), 400);
    assert!(place.verify().is_good());
}

#[tokio::test]
async fn counted_refusals_are_written_each_second_without_being_asked_for() {
    let place = Place::new();
    let ledger = place.open(LedgerOptions { early_per_second: 0, ..quick() });
    for number in 0..10 {
        ledger.refuse_early(junk(number));
    }
    wait_until("the counters are in the ledger", || early_counts(&place).values().sum::<u64>() == 10);
    drop(ledger);
}

#[tokio::test]
async fn on_a_nearly_full_disk_early_refusals_stay_in_memory() {
    let place = Place::new();
    let ledger = place.open(LedgerOptions { disk_reserve: u64::MAX, ..quick() });
    ledger.refuse_early(junk(0));
    ledger.event(event("z", "r")).unwrap();
    ledger.flush().await.unwrap();
    assert!(early_counts(&place).is_empty());
    assert_eq!(read::find(&place.dir(), Some("z"), "r").unwrap().len(), 1);
}
