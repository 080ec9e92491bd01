//! What is said on the streams: field names and values as the official consumers read them, and one stream of
//! our own for what those have no word for.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_mandates::{SIGNATURE_FIELD, StreamKey, resource_server};

use crate::state::{Anchor, Heard};

/// Dead authority records, sessions and delegations, one in each message.
pub(super) const SESSIONS: &str = resource_server::STREAMS[0];
/// Delegation epochs of zones.
pub(super) const DELEGATIONS: &str = resource_server::STREAMS[1];
/// Frozen zones and revoked applications; only nodes read it.
pub(super) const STANDING: &str = "caracal.edge.standing";
/// Every stream a node follows, in the order it reads them.
pub(super) const STREAMS: [&str; 3] = [SESSIONS, DELEGATIONS, STANDING];

/// The node that said something, so that it does not obey itself. The official consumers pass over it.
const NODE: &str = "node";

/// One message, unsigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) stream: &'static str,
    fields: BTreeMap<&'static str, String>,
}

impl Message {
    pub(super) fn new(stream: &'static str, zone: &str, reason: &str) -> Self {
        Self { stream, fields: BTreeMap::new() }.with("zone_id", zone).with("reason", reason)
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.insert(name, value.into());
        self
    }

    /// The fields to send, the sender and the signature among them.
    pub(super) fn signed(mut self, key: &StreamKey, node: &str) -> BTreeMap<&'static str, String> {
        self.fields.insert(NODE, node.to_owned());
        let signature = key.sign(self.stream, &self.fields);
        self.fields.insert(SIGNATURE_FIELD, signature);
        self.fields
    }
}

/// What a verified message asks of a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) zone: Arc<str>,
    pub(super) heard: Vec<Heard>,
}

/// Reads a verified message; none when `own` node said it or it says nothing a node can follow.
///
/// Everything that can be said narrows: a session ends or pauses, an epoch rises, a zone stops.
pub(super) fn read(stream: &str, fields: &BTreeMap<String, String>, own: &str) -> Option<Order> {
    let field = |name: &str| fields.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if field(NODE) == Some(own) {
        return None;
    }
    let zone = field("zone_id")?.into();
    let heard: Vec<Heard> = match stream {
        SESSIONS => ended(&field),
        DELEGATIONS => field("epoch")?.parse().ok().map(Heard::GraphEpoch).into_iter().collect(),
        STANDING => standing(&field).into_iter().collect(),
        _ => Vec::new(),
    };
    (!heard.is_empty()).then_some(Order { zone, heard })
}

fn ended<'f>(field: &dyn Fn(&str) -> Option<&'f str>) -> Vec<Heard> {
    let records = ["session_id", "sid", "root_sid"].into_iter().filter_map(field);
    let mut heard: Vec<Heard> = records.map(|id| Heard::Ended(Anchor::Record(id.into()))).collect();
    let delegations = ["delegation_edge_id", "edge_id"].into_iter().filter_map(field);
    heard.extend(delegations.map(|id| Heard::Ended(Anchor::Delegation(id.into()))));
    heard.extend(field("agent_session_id").map(|id| match field("event") {
        Some("suspend") => Heard::Suspended(id.into()),
        Some(_) | None => Heard::Ended(Anchor::Session(id.into())),
    }));
    heard
}

fn standing<'f>(field: &dyn Fn(&str) -> Option<&'f str>) -> Option<Heard> {
    match field("event")? {
        "zone_frozen" => Some(Heard::Frozen),
        "application_revoked" => Some(Heard::Application {
            application: field("application_id")?.into(),
            cut_at: field("cut_at")?.parse().ok()?,
            blocked: field("blocked") == Some("true"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(message: Message) -> BTreeMap<String, String> {
        let key = StreamKey::parse(&"ab".repeat(32)).unwrap();
        let signed = message.signed(&key, "node-a");
        let fields: BTreeMap<String, String> =
            signed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert!(key.verifies(SESSIONS, &fields) || key.verifies(STANDING, &fields));
        fields
    }

    #[test]
    fn a_node_follows_what_others_say_and_not_itself() {
        let fields = sent(Message::new(SESSIONS, "z", "test").with("agent_session_id", "s1"));
        assert_eq!(read(SESSIONS, &fields, "node-a"), None);
        let order = read(SESSIONS, &fields, "node-b").unwrap();
        assert_eq!((&*order.zone, order.heard), ("z", vec![Heard::Ended(Anchor::Session("s1".into()))]));
    }

    #[test]
    fn a_message_of_another_producer_names_all_it_ends() {
        let fields = [
            ("zone_id", "z"),
            ("session_id", "r1"),
            ("agent_session_id", "s1"),
            ("delegation_edge_id", "d1"),
            ("outbox_id", "7"),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let order = read(SESSIONS, &fields, "node-b").unwrap();
        let expected =
            [Anchor::Record("r1".into()), Anchor::Delegation("d1".into()), Anchor::Session("s1".into())];
        assert_eq!(order.heard, expected.map(Heard::Ended));
    }

    #[test]
    fn a_pause_is_no_end_and_nonsense_is_nothing() {
        let pause =
            Message::new(SESSIONS, "z", "suspended").with("agent_session_id", "s").with("event", "suspend");
        assert_eq!(read(SESSIONS, &sent(pause), "b").unwrap().heard, [Heard::Suspended("s".into())]);
        for nonsense in [
            Message::new(SESSIONS, "z", "test"),
            Message::new(STANDING, "z", "test").with("event", "zone_thawed"),
            Message::new(STANDING, "z", "test")
                .with("event", "application_revoked")
                .with("application_id", "a"),
        ] {
            let stream = nonsense.stream;
            assert_eq!(read(stream, &sent(nonsense), "b"), None);
        }
    }
}
