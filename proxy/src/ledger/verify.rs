//! Verification, independent of the writer: walks every chain from its first record and names the first bad line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::key::{PublicKey, Trust};
use super::record::{CHECKPOINT, GAP, KEY, NO_HASH, Record, check_line};
use super::segment::{self, Line, Lines};
use super::{LedgerError, read};

/// What a verification found, one report a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Sorted by zone.
    pub zones: Vec<ZoneReport>,
}

/// What was found in one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ZoneReport {
    /// The chain.
    pub zone: String,
    /// Good records, counted up to the first bad line.
    pub records: u64,
    /// Where the chain stops being what was written. Nothing behind it was looked at.
    pub first_bad: Option<Bad>,
    /// Signed checkpoints among them.
    pub checkpoints: u64,
    /// The last checkpoint signed by the trusted key or one it introduced.
    pub last_checkpoint_seq: Option<u64>,
    /// Records behind that checkpoint: chained, but not yet signed for. More than a second's worth is suspicious.
    pub uncovered_tail: u64,
    /// Records that say others may be missing.
    pub gaps: u64,
}

/// The first bad line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The segment.
    pub file: PathBuf,
    /// From 1; 0 when the file itself is the problem.
    pub line: u64,
    /// What is wrong.
    pub reason: Reason,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not a record, not canonical, or not what its hash says: it was edited.
    Altered(&'static str),
    /// The line has no end: a crash, or a write that is going on right now.
    Torn,
    /// The record belongs to another chain.
    WrongZone(String),
    /// A record was deleted, inserted or moved: this sequence number was expected.
    OutOfOrder {
        /// The next number of the chain.
        expected: u64,
        /// The record's own.
        found: u64,
    },
    /// It does not continue the record before it.
    Unlinked,
    /// The segment is not there.
    MissingSegment,
    /// The chain does not start with its key.
    NoKey,
    /// A new key without the signature of the one before.
    BadKey,
    /// A checkpoint that is not about this place or not signed by the chain's key.
    BadCheckpoint,
    /// The chain is not signed by the key that was asked for.
    WrongKey,
    /// The chain ends before a record that is known to have been written.
    Truncated {
        /// That record's sequence number.
        known: u64,
    },
    /// A record differs from what is known to have been written there.
    Replaced,
}

/// Verifies one chain or all of them against a key that did not come from the ledger folder.
///
/// # Errors
/// A file cannot be read.
pub fn verify(dir: &Path, zone: Option<&str>, trust: &Trust) -> Result<Verification, LedgerError> {
    verify_against(dir, zone, trust, &[])
}

/// As [`verify`], and every chain must also hold these known heads (zone, sequence number, hash), as
/// [`super::Ledger::heads`] gave them earlier: without one, a chain cut off at its end looks merely shorter.
///
/// # Errors
/// A file cannot be read.
pub fn verify_against(
    dir: &Path,
    zone: Option<&str>,
    trust: &Trust,
    heads: &[(String, u64, String)],
) -> Result<Verification, LedgerError> {
    let mut known: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for zone in read::chosen(dir, zone)? {
        known.entry(zone).or_default();
    }
    for (of, seq, hash) in heads.iter().filter(|(of, ..)| zone.is_none_or(|zone| zone == of)) {
        known.entry(of.clone()).or_default().insert(*seq, hash.clone());
    }
    let zones = known
        .into_iter()
        .map(|(zone, heads)| Walk::new(zone, trust, heads).run(dir))
        .collect::<Result<_, _>>()?;
    Ok(Verification { zones })
}

impl Verification {
    /// Whether no chain has a bad line.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.zones.iter().all(|zone| zone.first_bad.is_none())
    }
}

struct Walk<'a> {
    trust: &'a Trust,
    heads: BTreeMap<u64, String>,
    head: String,
    /// The key that signs at this point of the chain.
    key: Option<PublicKey>,
    /// The trusted key has been introduced.
    is_trusted: bool,
    report: ZoneReport,
}

impl<'a> Walk<'a> {
    fn new(zone: String, trust: &'a Trust, heads: BTreeMap<u64, String>) -> Self {
        let report = ZoneReport {
            zone,
            records: 0,
            first_bad: None,
            checkpoints: 0,
            last_checkpoint_seq: None,
            uncovered_tail: 0,
            gaps: 0,
        };
        Self { trust, heads, head: NO_HASH.to_owned(), key: None, is_trusted: false, report }
    }

    fn run(mut self, dir: &Path) -> Result<ZoneReport, LedgerError> {
        let folder = segment::folder(dir, &self.report.zone);
        self.report.first_bad = self.walk(&folder)?;
        let covered = self.report.last_checkpoint_seq.unwrap_or(0);
        self.report.uncovered_tail = self.report.records.saturating_sub(covered);
        Ok(self.report)
    }

    fn walk(&mut self, folder: &Path) -> Result<Option<Bad>, LedgerError> {
        let mut end = (segment::path(folder, 1), 0);
        for (expected, segment) in (1_u32..).zip(segment::list(folder)?) {
            if segment.number != expected {
                let file = segment::path(folder, expected);
                return Ok(Some(Bad { file, line: 0, reason: Reason::MissingSegment }));
            }
            let mut lines = Lines::open(&segment.path, 0)?;
            let mut number = 0_u64;
            while let Some(line) = lines.next()? {
                number = number.saturating_add(1);
                let step = match line {
                    Line::Whole(line) => self.step(&line),
                    Line::Torn => Err(Reason::Torn),
                };
                if let Err(reason) = step {
                    return Ok(Some(Bad { file: segment.path, line: number, reason }));
                }
            }
            end = (segment.path, number);
        }
        let truncated = self.heads.keys().next_back().filter(|known| **known > self.report.records);
        if let Some(&known) = truncated {
            return Ok(Some(Bad { file: end.0, line: end.1, reason: Reason::Truncated { known } }));
        }
        let foreign = self.report.records > 0 && !self.is_trusted;
        Ok(foreign.then(|| Bad { file: segment::path(folder, 1), line: 1, reason: Reason::WrongKey }))
    }

    fn step(&mut self, line: &[u8]) -> Result<(), Reason> {
        let record = check_line(line).map_err(|problem| Reason::Altered(problem.text()))?;
        if record.zone_id != self.report.zone {
            return Err(Reason::WrongZone(record.zone_id));
        }
        let expected = self.report.records.saturating_add(1);
        if record.seq != expected {
            return Err(Reason::OutOfOrder { expected, found: record.seq });
        }
        if record.prev != self.head {
            return Err(Reason::Unlinked);
        }
        if self.heads.get(&record.seq).is_some_and(|known| *known != record.hash) {
            return Err(Reason::Replaced);
        }
        self.statement(&record)?;
        self.report.records = expected;
        self.head = record.hash;
        Ok(())
    }

    fn statement(&mut self, record: &Record) -> Result<(), Reason> {
        match record.event_type.as_str() {
            KEY => self.key = Some(self.next_key(record)?),
            _ if self.key.is_none() => return Err(Reason::NoKey),
            CHECKPOINT => {
                let signed = self.key.is_some_and(|key| {
                    self.is_about_this_place(&record.metadata, &key)
                        && key.signed(CHECKPOINT, &record.metadata)
                });
                if !signed {
                    return Err(Reason::BadCheckpoint);
                }
                self.report.checkpoints = self.report.checkpoints.saturating_add(1);
                if self.is_trusted {
                    self.report.last_checkpoint_seq = Some(record.seq);
                }
            }
            GAP => self.report.gaps = self.report.gaps.saturating_add(1),
            _ => {}
        }
        Ok(())
    }

    /// The first key signs itself; every other one is signed by the key before it.
    fn next_key(&mut self, record: &Record) -> Result<PublicKey, Reason> {
        let statement = &record.metadata;
        let key: Option<PublicKey> = text(statement, "public_key").parse().ok();
        let key = key.ok_or(Reason::BadKey)?;
        let (signer, previous) = match self.key {
            Some(current) => (current, current.fingerprint().to_string()),
            None => (key, String::new()),
        };
        let is_good = text(statement, "previous") == previous
            && self.is_about_this_place(statement, &key)
            && signer.signed(KEY, statement);
        if !is_good {
            return Err(Reason::BadKey);
        }
        self.is_trusted |= self.trust.names(&key);
        Ok(key)
    }

    fn is_about_this_place(&self, statement: &Map<String, Value>, key: &PublicKey) -> bool {
        text(statement, "zone") == self.report.zone
            && statement.get("seq").and_then(Value::as_u64) == Some(self.report.records)
            && text(statement, "head") == self.head
            && text(statement, "key") == key.fingerprint().to_string()
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file.display(), self.reason);
        }
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered(how) => write!(f, "the record was altered: {how}"),
            Self::Torn => f.write_str("the line has no end"),
            Self::WrongZone(zone) => write!(f, "the record belongs to zone {zone:?}"),
            Self::OutOfOrder { expected, found } => {
                write!(
                    f,
                    "a record was deleted, inserted or moved: expected number {expected}, found {found}"
                )
            }
            Self::Unlinked => f.write_str("the record does not continue the one before it"),
            Self::MissingSegment => f.write_str("the segment is missing"),
            Self::NoKey => f.write_str("the chain does not start with its key"),
            Self::BadKey => f.write_str("a key is introduced without the signature of the one before"),
            Self::BadCheckpoint => {
                f.write_str("the checkpoint is not signed by the chain's key for this place")
            }
            Self::WrongKey => f.write_str("the chain is not signed by the given key"),
            Self::Truncated { known } => {
                write!(f, "the chain was cut off: record {known} is known to have been written")
            }
            Self::Replaced => f.write_str("the record differs from the one known to have been written here"),
        }
    }
}

fn text<'a>(statement: &'a Map<String, Value>, member: &str) -> &'a str {
    statement.get(member).and_then(Value::as_str).unwrap_or_default()
}
