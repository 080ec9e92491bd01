//! Which values of secrets the records of a ledger name, and when each was used.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use uuid::Uuid;

use super::segment::{self, Line, Lines};
use super::{LedgerError, Record, read};

/// Member of a result's metadata: the values that the call used, `name/key` to fingerprint.
pub(crate) const MEMBER: &str = "secret_fingerprints";

/// When one value was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Calls that used it.
    pub calls: u64,
    /// Unix milliseconds of the latest decision behind which it was used. A stream may have ended much later.
    pub last_at: i64,
    /// What the upstream answered then.
    pub last_status: Option<u64>,
}

/// Uses by `name/key` and fingerprint.
pub type Uses = BTreeMap<String, BTreeMap<String, Use>>;

/// Every use that the chains of all zones tell of.
///
/// Cost: reads the whole ledger, but parses only lines that name a secret.
///
/// # Errors
/// A segment cannot be read.
pub fn secret_uses(dir: &Path) -> Result<Uses, LedgerError> {
    let needle = format!("\"{MEMBER}\"");
    let mut uses = Uses::new();
    for zone in read::chosen(dir, None)? {
        for segment in segment::list(&segment::folder(dir, &zone))? {
            let mut lines = Lines::open(&segment.path, 0)?;
            while let Some(line) = lines.next()? {
                let Line::Whole(line) = line else { continue };
                if std::str::from_utf8(&line).is_ok_and(|text| text.contains(&needle))
                    && let Ok(record) = serde_json::from_slice::<Record>(&line)
                {
                    add(&mut uses, &record);
                }
            }
        }
    }
    Ok(uses)
}

fn add(uses: &mut Uses, record: &Record) {
    let (Some(at), Some(named)) =
        (decided_at(record), record.metadata.get(MEMBER).and_then(Value::as_object))
    else {
        return;
    };
    for (secret, fingerprint) in named {
        let Some(fingerprint) = fingerprint.as_str() else { continue };
        let seen = uses.entry(secret.clone()).or_default().entry(fingerprint.to_owned()).or_default();
        seen.calls = seen.calls.saturating_add(1);
        if at >= seen.last_at {
            seen.last_at = at;
            seen.last_status = record.metadata.get("upstream_status").and_then(Value::as_u64);
        }
    }
}

/// When the call was decided on: the time in the id of its decision. The result is written when the call is over.
fn decided_at(record: &Record) -> Option<i64> {
    let id = record.metadata.get("decision_id").and_then(Value::as_str).unwrap_or(&record.id);
    let (seconds, nanos) = Uuid::parse_str(id).ok()?.get_timestamp()?.to_unix();
    let millis = i64::from(nanos / 1_000_000);
    Some(i64::try_from(seconds).ok()?.saturating_mul(1_000).saturating_add(millis))
}
