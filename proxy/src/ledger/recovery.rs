//! What the previous run left at the end of a chain.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use super::LedgerError;
use super::draft::Ended;
use super::record::{CHECKPOINT, KEY, NO_HASH, Record, check_line};
use super::segment::{self, Backward, Segment, failed};
use super::shared::Head;

/// What was found at the end of a chain that existed before.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) ended: Ended,
    /// Fingerprint of the key that signed last.
    pub(super) signer: Option<String>,
    /// A torn last line that was moved aside.
    pub(super) torn: Option<Torn>,
    pub(super) head: Head,
}

#[derive(Debug)]
pub(super) struct Torn {
    pub(super) segment: String,
    pub(super) aside: String,
    pub(super) bytes: usize,
}

/// Moves a torn last line aside and reads the last records. Anything else that is wrong is an error.
pub(super) fn inspect(segments: &[Segment]) -> Result<Found, LedgerError> {
    let torn = segments.last().map_or(Ok(None), move_torn_aside)?;
    let End { last, signer } = find_end(segments)?;
    let ended = last.as_ref().map_or(Ended::Empty, how_it_ended);
    let head = match last {
        Some(last) => Head { seq: last.seq, hash: last.hash },
        None => Head { seq: 0, hash: NO_HASH.to_owned() },
    };
    Ok(Found { head, ended, signer, torn })
}

#[derive(Debug)]
struct End {
    last: Option<Record>,
    signer: Option<String>,
}

/// Reads backwards to the last record and to the last one that names a key.
fn find_end(segments: &[Segment]) -> Result<End, LedgerError> {
    let mut end = End { last: None, signer: None };
    for segment in segments.iter().rev() {
        let mut lines = Backward::open(&segment.path)?;
        // The remainder behind the last newline was moved aside before.
        lines.next()?;
        while let Some(line) = lines.next()? {
            let record = check_line(&line).map_err(|problem| LedgerError::Damaged {
                path: segment.path.clone(),
                reason: problem.text(),
            })?;
            if matches!(record.event_type.as_str(), CHECKPOINT | KEY) {
                end.signer = record.metadata.get("key").and_then(Value::as_str).map(str::to_owned);
            }
            if end.last.is_none() {
                end.last = Some(record);
            }
            if end.signer.is_some() {
                return Ok(end);
            }
        }
    }
    Ok(end)
}

fn how_it_ended(last: &Record) -> Ended {
    let closing = last.metadata.get("closing") == Some(&Value::Bool(true));
    if last.event_type == CHECKPOINT && closing { Ended::Closed } else { Ended::Open }
}

fn move_torn_aside(last: &Segment) -> Result<Option<Torn>, LedgerError> {
    let rest = Backward::open(&last.path)?.next()?.unwrap_or_default();
    if rest.is_empty() {
        return Ok(None);
    }
    let name = last.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = last.path.parent().unwrap_or_else(|| Path::new("."));
    let mut attempt = 1_u32;
    let mut aside = format!("{name}.torn-{attempt}");
    while folder.join(&aside).exists() {
        attempt = attempt.saturating_add(1);
        aside = format!("{name}.torn-{attempt}");
    }
    let path = folder.join(&aside);
    let kept =
        File::create_new(&path).and_then(|mut file| file.write_all(&rest).and_then(|()| file.sync_all()));
    kept.map_err(|source| failed("keep a torn line in", &path, source))?;
    segment::sync_folder(folder)?;
    let cut = OpenOptions::new().write(true).open(&last.path).and_then(|file| {
        let whole = file.metadata()?.len().saturating_sub(u64::try_from(rest.len()).unwrap_or(u64::MAX));
        file.set_len(whole)?;
        file.sync_all()
    });
    cut.map_err(|source| failed("cut a torn line off", &last.path, source))?;
    Ok(Some(Torn { segment: name, aside, bytes: rest.len() }))
}
