//! Records that are chained but not yet written, and the statements that are signed.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Event;
use super::key::LedgerKey;
use super::record::{self, CHECKPOINT, KEY};
use super::shared::Head;

/// Records that are chained but not yet written: committed as a whole or dropped as a whole.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) zone: Arc<str>,
    pub(super) key: Arc<LedgerKey>,
    pub(super) bytes: Vec<u8>,
    pub(super) head: Head,
    pub(super) since_checkpoint: u32,
    pub(super) ended: Ended,
}

impl Draft {
    pub(super) fn put(&mut self, event: &Event) {
        let seq = self.head.seq.saturating_add(1);
        let hash = record::write_line(&mut self.bytes, event, &self.zone, seq, &self.head.hash);
        self.head = Head { seq, hash };
        self.since_checkpoint = self.since_checkpoint.saturating_add(1);
        self.ended = Ended::Open;
    }

    pub(super) fn note(&mut self, event_type: &'static str, about: Value, now: i64) {
        let about = if let Value::Object(about) = about { about } else { Map::new() };
        self.put(&Event::internal(event_type, &self.zone, about, now));
    }

    /// The chain's first record: its key, signed by itself.
    pub(super) fn begin(&mut self, now: i64) {
        let mut statement = self.key_statement("");
        self.key.sign(KEY, &mut statement);
        self.note(KEY, Value::Object(statement), now);
    }

    /// A new key, signed by the one before. False if that one is not ours.
    pub(super) fn introduce(&mut self, signer: &str, now: i64) -> bool {
        let mut statement = self.key_statement(signer);
        let signed = self.key.sign_as(signer, KEY, &mut statement);
        if signed {
            self.note(KEY, Value::Object(statement), now);
        }
        signed
    }

    fn key_statement(&self, previous: &str) -> Map<String, Value> {
        let mut statement = self.place();
        statement.insert("public_key".into(), self.key.public().to_string().into());
        statement.insert("previous".into(), previous.into());
        statement
    }

    pub(super) fn checkpoint(&mut self, closing: bool, outstanding: usize, now: i64) {
        let mut statement = self.place();
        statement.insert("closing".into(), closing.into());
        if closing {
            statement.insert("outstanding".into(), outstanding.into());
        }
        statement.insert("time".into(), record::timestamp(now).into());
        self.key.sign(CHECKPOINT, &mut statement);
        self.note(CHECKPOINT, Value::Object(statement), now);
        self.since_checkpoint = 0;
        if closing {
            self.ended = Ended::Closed;
        }
    }

    /// What every signature is bound to: the chain, the record before, and who signs from here on.
    fn place(&self) -> Map<String, Value> {
        let mut place = Map::new();
        place.insert("zone".into(), (*self.zone).into());
        place.insert("seq".into(), self.head.seq.into());
        place.insert("head".into(), self.head.hash.as_str().into());
        place.insert("key".into(), self.key.fingerprint().to_string().into());
        place
    }
}

/// How a chain ends right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// No record yet.
    Empty,
    /// The last record is a closing checkpoint.
    Closed,
    /// Anything else.
    Open,
}
