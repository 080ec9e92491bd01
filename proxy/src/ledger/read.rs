//! Reading a ledger folder, while it is written or not: all records, the last ones, new ones, one by id.
//!
//! Nothing here checks hashes or signatures; that is [`super::verify`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::segment::{self, Backward, Line, Lines, Segment};
use super::{LedgerError, Record};

/// Every record of a chain, first to last. A line that is no record is an error and reading goes on behind it.
///
/// # Errors
/// The chain's folder cannot be read; a zone without one has no records.
pub fn records(dir: &Path, zone: &str) -> Result<Records, LedgerError> {
    let mut segments = segment::list(&segment::folder(dir, zone))?;
    segments.reverse();
    Ok(Records { segments, current: None })
}

/// The last `count` records of a chain as they were written, or of all chains together in order of time, oldest first.
///
/// # Errors
/// A segment cannot be read or holds a line that is no record.
pub fn tail(dir: &Path, zone: Option<&str>, count: usize) -> Result<Vec<Record>, LedgerError> {
    let mut chains = Vec::new();
    for zone in chosen(dir, zone)? {
        chains.push(tail_of(dir, &zone, count)?);
    }
    let mut found = merged(chains);
    Ok(found.split_off(found.len().saturating_sub(count)))
}

/// The records of several chains in order of time, those of one chain in the order in which they were written: what
/// happened first may be written second, and a reader that goes by `seq` must not see that.
fn merged(chains: Vec<Vec<Record>>) -> Vec<Record> {
    let mut dated = Vec::new();
    for chain in chains {
        let mut latest = String::new();
        for record in chain {
            if record.occurred_at > latest {
                latest.clone_from(&record.occurred_at);
            }
            dated.push((latest.clone(), record));
        }
    }
    dated.sort_by(|(a, _), (b, _)| a.cmp(b));
    dated.into_iter().map(|(_, record)| record).collect()
}

/// The records that carry this id: as their own, as request id, or as the decision or client request id in their
/// metadata. Oldest first within each chain.
///
/// Cost: reads the whole chain, but parses only lines in which the id occurs.
///
/// # Errors
/// A segment cannot be read.
pub fn find(dir: &Path, zone: Option<&str>, id: &str) -> Result<Vec<Record>, LedgerError> {
    let mut found = Vec::new();
    for zone in chosen(dir, zone)? {
        for segment in segment::list(&segment::folder(dir, &zone))? {
            let mut lines = Lines::open(&segment.path, 0)?;
            while let Some(line) = lines.next()? {
                let Line::Whole(line) = line else { continue };
                if std::str::from_utf8(&line).is_ok_and(|text| text.contains(id))
                    && let Ok(record) = parse(&line, &segment.path)
                    && carries(&record, id)
                {
                    found.push(record);
                }
            }
        }
    }
    Ok(found)
}

/// The record at one place of a chain.
///
/// # Errors
/// A segment cannot be read.
pub fn record_at(dir: &Path, zone: &str, seq: u64) -> Result<Option<Record>, LedgerError> {
    for segment in segment::list(&segment::folder(dir, zone))?.into_iter().rev() {
        let mut lines = Lines::open(&segment.path, 0)?;
        let mut first = true;
        while let Some(Line::Whole(line)) = lines.next()? {
            let record = parse(&line, &segment.path)?;
            if record.seq == seq {
                return Ok(Some(record));
            }
            if first && record.seq > seq {
                break;
            }
            first = false;
        }
        if !first {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The chosen zone, or every zone with a folder.
pub(super) fn chosen(dir: &Path, zone: Option<&str>) -> Result<Vec<String>, LedgerError> {
    zone.map_or_else(|| segment::zones(dir), |zone| Ok(vec![zone.to_owned()]))
}

/// The records of one chain; made by [`records`].
#[derive(Debug)]
pub struct Records {
    /// Those still to come, last first.
    segments: Vec<Segment>,
    current: Option<(Lines, PathBuf)>,
}

impl Iterator for Records {
    type Item = Result<Record, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((lines, path)) = &mut self.current {
                match lines.next() {
                    Ok(Some(Line::Whole(line))) => return Some(parse(&line, path)),
                    // What has no end yet is not a record yet.
                    Ok(Some(Line::Torn) | None) => self.current = None,
                    Err(error) => {
                        self.current = None;
                        return Some(Err(error));
                    }
                }
            } else {
                let Segment { path, .. } = self.segments.pop()?;
                match Lines::open(&path, 0) {
                    Ok(lines) => self.current = Some((lines, path)),
                    Err(error) => return Some(Err(error)),
                }
            }
        }
    }
}

/// New records as they are written; ask again with [`Follow::poll`].
#[derive(Debug)]
pub struct Follow {
    dir: PathBuf,
    zone: Option<String>,
    places: BTreeMap<String, Place>,
}

/// Where reading goes on in one chain.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u32,
    offset: u64,
}

impl Follow {
    /// Starts behind what is there now, in one chain or in all.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn from_now(dir: &Path, zone: Option<&str>) -> Result<Self, LedgerError> {
        let mut places = BTreeMap::new();
        for zone in chosen(dir, zone)? {
            if let Some(last) = segment::list(&segment::folder(dir, &zone))?.pop() {
                let rest = Backward::open(&last.path)?.next()?.map_or(0, |rest| rest.len());
                let size = std::fs::metadata(&last.path)
                    .map_err(|source| segment::failed("read", &last.path, source))?;
                let offset = size.len().saturating_sub(u64::try_from(rest).unwrap_or(0));
                places.insert(zone, Place { number: last.number, offset });
            }
        }
        Ok(Self { dir: dir.to_owned(), zone: zone.map(str::to_owned), places })
    }

    /// What was written since the last time, as [`tail`] orders it; empty when nothing was.
    ///
    /// # Errors
    /// A segment cannot be read or holds a line that is no record.
    pub fn poll(&mut self) -> Result<Vec<Record>, LedgerError> {
        let mut chains = Vec::new();
        for zone in chosen(&self.dir, self.zone.as_deref())? {
            let mut found = Vec::new();
            let folder = segment::folder(&self.dir, &zone);
            let place = self.places.entry(zone).or_insert(Place { number: 1, offset: 0 });
            let started_at = place.number;
            for segment in segment::list(&folder)?.into_iter().filter(|segment| segment.number >= started_at)
            {
                let from = if segment.number == place.number { place.offset } else { 0 };
                *place = Place { number: segment.number, offset: from };
                let mut lines = Lines::open(&segment.path, from)?;
                while let Some(Line::Whole(line)) = lines.next()? {
                    let taken = u64::try_from(line.len()).unwrap_or(0).saturating_add(1);
                    place.offset = place.offset.saturating_add(taken);
                    found.push(parse(&line, &segment.path)?);
                }
            }
            chains.push(found);
        }
        Ok(merged(chains))
    }
}

fn tail_of(dir: &Path, zone: &str, count: usize) -> Result<Vec<Record>, LedgerError> {
    let mut found = Vec::new();
    for segment in segment::list(&segment::folder(dir, zone))?.into_iter().rev() {
        let mut lines = Backward::open(&segment.path)?;
        lines.next()?;
        while found.len() < count
            && let Some(line) = lines.next()?
        {
            found.push(parse(&line, &segment.path)?);
        }
    }
    found.reverse();
    Ok(found)
}

fn parse(line: &[u8], path: &Path) -> Result<Record, LedgerError> {
    match serde_json::from_slice(line) {
        Ok(record) => Ok(record),
        Err(_) => Err(LedgerError::Damaged { path: path.to_owned(), reason: "a line is not a record" }),
    }
}

fn carries(record: &Record, id: &str) -> bool {
    let named = |member: &str| record.metadata.get(member).and_then(serde_json::Value::as_str) == Some(id);
    record.id == id || record.request_id == id || named("decision_id") || named("client_request_id")
}
