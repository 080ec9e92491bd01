//! The ledger as its users see it; each file is one side of it.

mod crash;
mod full;
mod lanes;
mod reading;
mod tamper;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use super::verify::{Verification, ZoneReport, verify};
use super::*;

/// A ledger's two folders and its clock.
struct Place {
    root: TempDir,
    clock: Clock,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), clock: Clock::manual(1_700_000_000_000) }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("ledger")
    }

    fn key(&self) -> LedgerKey {
        LedgerKey::open(&self.root.path().join("keys")).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::Fingerprint(self.key().fingerprint())
    }

    fn try_open(&self, options: LedgerOptions) -> Result<Ledger, LedgerError> {
        Ledger::open(&self.dir(), options, self.key(), self.clock.clone())
    }

    fn open(&self, options: LedgerOptions) -> Ledger {
        self.try_open(options).unwrap()
    }

    fn segment(&self, zone: &str, number: u32) -> PathBuf {
        segment::path(&segment::folder(&self.dir(), zone), number)
    }

    fn lines(&self, zone: &str, number: u32) -> Vec<String> {
        fs::read_to_string(self.segment(zone, number)).unwrap().lines().map(str::to_owned).collect()
    }

    fn write_lines(&self, zone: &str, number: u32, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.segment(zone, number), text).unwrap();
    }

    fn verify(&self) -> Verification {
        verify(&self.dir(), None, &self.trust()).unwrap()
    }

    fn report(&self, zone: &str) -> ZoneReport {
        let report = verify(&self.dir(), Some(zone), &self.trust()).unwrap();
        report.zones.into_iter().next().unwrap()
    }

    fn records(&self, zone: &str) -> Vec<Record> {
        read::records(&self.dir(), zone).unwrap().map(Result::unwrap).collect()
    }

    fn types(&self, zone: &str) -> Vec<String> {
        self.records(zone).into_iter().map(|record| record.event_type).collect()
    }

    /// A closed ledger with `count` records in zone `z`, besides its own.
    async fn filled(&self, options: LedgerOptions, count: usize) {
        let ledger = self.open(options);
        for number in 0..count {
            ledger.event(event("z", &format!("r{number}"))).unwrap();
        }
        ledger.close().await.unwrap();
    }
}

fn quick() -> LedgerOptions {
    LedgerOptions { write_every: Duration::from_millis(1), ..LedgerOptions::default() }
}

fn strict() -> LedgerOptions {
    LedgerOptions { durability: Durability::Strict, ..quick() }
}

fn event(zone: &str, request: &str) -> Event {
    Event {
        id: format!("id-{request}"),
        zone_id: zone.into(),
        event_type: "gateway_resource_request",
        request_id: request.into(),
        decision: "allow",
        evaluation_status: "complete".into(),
        determining_policies: vec!["caracal-demo-use".into()],
        diagnostics: json!([]),
        metadata: json!({ "resource": "resource://echo", "status": 200 }).as_object().unwrap().clone(),
        occurred_at: 1_700_000_000_000,
    }
}

/// Waits for a condition that another thread brings about, for at most ten seconds.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "never happened: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}
