//! Looking through a chain for events of some types, from a place in it, without reading what came before.

use std::path::{Path, PathBuf};

use super::segment::{self, Line, Lines};
use super::{LedgerError, Record};

/// Where a record stands in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its number.
    pub(crate) seq: u64,
    /// Its type.
    pub(crate) event_type: Box<str>,
    segment: u32,
    offset: u64,
}

/// Goes through one chain once, as it grows.
#[derive(Debug)]
pub(crate) struct Scan {
    folder: PathBuf,
    /// What the types begin with.
    prefix: &'static str,
    /// Records up to here are behind it.
    seq: u64,
    segment: u32,
    offset: u64,
}

impl Scan {
    /// Starts behind the record with the number `seq`; 0 is in front of all.
    ///
    /// Cost: reads the first line of segments from the last one back, and then one segment.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(crate) fn after(dir: &Path, zone: &str, seq: u64, prefix: &'static str) -> Result<Self, LedgerError> {
        let folder = segment::folder(dir, zone);
        let mut scan = Self { folder, prefix, seq, segment: 1, offset: 0 };
        for segment in segment::list(&scan.folder)?.into_iter().rev() {
            let mut lines = Lines::open(&segment.path, 0)?;
            let Some(Line::Whole(line)) = lines.next()? else { continue };
            scan.segment = segment.number;
            if numbered(&line).is_some_and(|first| first <= seq.saturating_add(1)) {
                break;
            }
        }
        Ok(scan)
    }

    /// The number up to which it has looked.
    #[must_use]
    pub(crate) const fn seq(&self) -> u64 {
        self.seq
    }

    /// What was found up to the record with the number `last`, in order and at most `most`; the next call goes on behind
    /// it. A line that is no record is passed over.
    ///
    /// Cost: reads what is new; only lines with such a type are parsed whole.
    ///
    /// # Errors
    /// A segment cannot be read; what was found before is looked for again.
    pub(crate) fn up_to(&mut self, last: u64, most: usize) -> Result<Vec<Found>, LedgerError> {
        let mut found = Vec::new();
        let needle = format!("\"event_type\":\"{}", self.prefix);
        let (mut at, mut seq) = ((self.segment, self.offset), self.seq);
        let segments = segment::list(&self.folder)?;
        'all: for segment in segments.into_iter().filter(|segment| segment.number >= self.segment) {
            let from = if segment.number == at.0 { at.1 } else { 0 };
            at = (segment.number, from);
            let mut lines = Lines::open(&segment.path, from)?;
            while let Some(Line::Whole(line)) = lines.next()? {
                let number = numbered(&line);
                if found.len() >= most || number.is_some_and(|number| number > last) {
                    break 'all;
                }
                let named = std::str::from_utf8(&line).is_ok_and(|text| text.contains(&needle));
                if number.is_some_and(|number| number > seq)
                    && named
                    && let Ok(record) = serde_json::from_slice::<Record>(&line)
                    && record.event_type.starts_with(self.prefix)
                {
                    let event_type = record.event_type.into();
                    found.push(Found { seq: record.seq, event_type, segment: at.0, offset: at.1 });
                }
                seq = seq.max(number.unwrap_or(seq));
                let taken = u64::try_from(line.len()).unwrap_or(0).saturating_add(1);
                at.1 = at.1.saturating_add(taken);
            }
        }
        (self.segment, self.offset) = at;
        self.seq = seq;
        Ok(found)
    }
}

/// The record that was found there; none if something else stands there now.
///
/// # Errors
/// The segment cannot be read.
pub(crate) fn record(dir: &Path, zone: &str, found: &Found) -> Result<Option<Record>, LedgerError> {
    let path = segment::path(&segment::folder(dir, zone), found.segment);
    let Some(Line::Whole(line)) = Lines::open(&path, found.offset)?.next()? else { return Ok(None) };
    let record: Option<Record> = serde_json::from_slice(&line).ok();
    Ok(record.filter(|record| record.seq == found.seq))
}

/// The number in a line. It is the last member but one of the canonical form, and the zone behind it is short.
fn numbered(line: &[u8]) -> Option<u64> {
    const NAME: &str = ",\"seq\":";
    let tail = line.get(line.len().saturating_sub(1_024)..)?;
    let tail = String::from_utf8_lossy(tail);
    let digits = tail.get(tail.rfind(NAME)?.saturating_add(NAME.len())..)?;
    digits.get(..digits.find(',')?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::Event;
    use super::super::record::{NO_HASH, write_line};
    use super::*;

    fn line(event_type: &'static str, seq: u64) -> Vec<u8> {
        let said = json!({ "said": "\"event_type\":\"step_up_no\",\"seq\":1," });
        let event = Event {
            id: format!("e{seq}"),
            event_type,
            metadata: said.as_object().unwrap().clone(),
            ..Event::default()
        };
        let mut out = Vec::new();
        write_line(&mut out, &event, "z", seq, NO_HASH);
        out
    }

    /// Two segments of four records; every third number is one that is looked for.
    fn chain() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("z")).unwrap();
        for (segment, numbers) in [(1, 1..=4), (2, 5..=8)] {
            let kind = |seq| if seq % 3 == 0 { "step_up_issued" } else { "token_exchange" };
            let text: Vec<u8> = numbers.flat_map(|seq| line(kind(seq), seq)).collect();
            fs::write(segment::path(&dir.path().join("z"), segment), text).unwrap();
        }
        dir
    }

    fn numbers(found: &[Found]) -> Vec<u64> {
        found.iter().map(|found| found.seq).collect()
    }

    #[test]
    fn what_is_looked_for_is_found_once_and_in_order_from_any_place() {
        let dir = chain();
        for (after, expected) in [(0, &[3, 6][..]), (2, &[3, 6]), (3, &[6]), (4, &[6]), (6, &[]), (99, &[])] {
            let mut scan = Scan::after(dir.path(), "z", after, "step_up_").unwrap();
            assert_eq!(numbers(&scan.up_to(8, 9).unwrap()), expected, "{after}");
            assert!(scan.up_to(8, 9).unwrap().is_empty(), "{after}");
            assert_eq!(scan.seq(), after.max(8));
        }
        let mut scan = Scan::after(dir.path(), "nowhere", 0, "step_up_").unwrap();
        assert_eq!(scan.up_to(8, 9).unwrap(), []);
    }

    #[test]
    fn a_look_ends_after_so_many_and_the_next_one_goes_on() {
        let dir = chain();
        let mut scan = Scan::after(dir.path(), "z", 0, "step_up_").unwrap();
        assert_eq!((numbers(&scan.up_to(8, 1).unwrap()), scan.seq()), (vec![3], 3));
        assert_eq!((numbers(&scan.up_to(8, 1).unwrap()), scan.seq()), (vec![6], 6));
        assert_eq!((numbers(&scan.up_to(8, 1).unwrap()), scan.seq()), (vec![], 8));
    }

    #[test]
    fn nothing_beyond_what_is_durable_is_looked_at_and_nothing_is_missed_later() {
        let dir = chain();
        let mut scan = Scan::after(dir.path(), "z", 0, "step_up_").unwrap();
        assert_eq!((numbers(&scan.up_to(2, 9).unwrap()), scan.seq()), (vec![], 2));
        let found = scan.up_to(5, 9).unwrap();
        assert_eq!((numbers(&found), scan.seq()), (vec![3], 5));
        assert_eq!(record(dir.path(), "z", &found[0]).unwrap().unwrap().id, "e3");
        assert_eq!(numbers(&scan.up_to(7, 9).unwrap()), [6]);
        let path = segment::path(&dir.path().join("z"), 2);
        let mut text = fs::read(&path).unwrap();
        let whole = line("step_up_decided", 9);
        text.extend_from_slice(&whole[..20]);
        fs::write(&path, &text).unwrap();
        assert!(scan.up_to(9, 9).unwrap().is_empty(), "half a line is none");
        text.extend_from_slice(&whole[20..]);
        fs::write(&path, &text).unwrap();
        assert_eq!(numbers(&scan.up_to(9, 9).unwrap()), [9]);
    }
}
