//! Reads on the way what an upstream says a call cost: from a header, a JSON body, or the events of a stream.
//!
//! Nothing is held back. A body is kept up to its bound to be read as a whole; of a stream only the event under way is.

use std::sync::Arc;

use caracal_policies::{Budget, Measure, UnitsFrom};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::slot::Slot;
use crate::gate::response;

/// Bytes of a body that is read for what it cost. A longer one counts as silent.
const MAX_BODY: usize = 1024 * 1024;
/// Bytes of one event. A longer one is passed over.
const MAX_EVENT: usize = 256 * 1024;

/// Reads one answer for the budgets that want to know.
pub(super) struct Meter {
    budgets: Vec<Arc<Budget>>,
    /// For each of them the numbers of its sum, as far as they were said.
    sums: Vec<Vec<Option<u64>>>,
    form: Form,
    kept: Vec<u8>,
    /// What is kept became too long: a body is given up, an event is skipped.
    overlong: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Unread,
    Body,
    Events,
}

/// A budget's name and what the answer says.
pub(super) type Found = (Arc<str>, u64);

/// Keeps what the upstream said the call cost until that is settled.
pub(super) fn keep(slot: &Slot, found: &[Found]) {
    if found.is_empty() {
        return;
    }
    slot.note(|open| {
        if let Some(spending) = &mut open.spending {
            found.iter().for_each(|(budget, units)| spending.found(budget, *units));
        }
    });
}

impl Meter {
    /// For these budgets; none when there are none.
    pub(super) fn new(budgets: Vec<Arc<Budget>>) -> Option<Self> {
        (!budgets.is_empty()).then(|| Self {
            budgets,
            sums: Vec::new(),
            form: Form::Unread,
            kept: Vec::new(),
            overlong: false,
        })
    }

    /// The head of the answer, also of a second one.
    pub(super) fn head(&mut self, headers: &HeaderMap) -> Vec<Found> {
        let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
        self.form = match () {
            () if response::encoded(headers) => Form::Unread,
            () if kind.starts_with(b"text/event-stream") => Form::Events,
            () => Form::Body,
        };
        self.kept.clear();
        self.sums = self.budgets.iter().map(|budget| vec![None; summands(budget).len()]).collect();
        self.overlong = false;
        let said = self.budgets.iter().filter_map(|budget| {
            let Measure::Units { from: UnitsFrom::Header(name), .. } = &budget.measure else { return None };
            let units = headers.get(&**name)?.to_str().ok()?.trim().parse().ok()?;
            Some((Arc::clone(&budget.name), units))
        });
        said.collect()
    }

    /// A piece of the body as the upstream sent it.
    pub(super) fn piece(&mut self, piece: &[u8], end: bool) -> Vec<Found> {
        match self.form {
            Form::Unread => Vec::new(),
            Form::Body => {
                self.keep(piece, MAX_BODY);
                if !end {
                    return Vec::new();
                }
                let mut found = self.read_kept();
                found.extend(self.summed());
                found
            }
            Form::Events => {
                let mut found = Vec::new();
                for line in piece.split_inclusive(|byte| *byte == b'\n') {
                    self.keep(line, MAX_EVENT);
                    if self.kept.ends_with(b"\n\n") || self.kept.ends_with(b"\n\r\n") {
                        found.extend(self.read_event());
                    }
                }
                if end {
                    found.extend(self.read_event());
                    found.extend(self.summed());
                }
                found
            }
        }
    }

    fn keep(&mut self, piece: &[u8], most: usize) {
        self.overlong |= self.kept.len().saturating_add(piece.len()) > most;
        if self.overlong {
            // Its end is still looked for.
            self.kept.drain(..self.kept.len().saturating_sub(3));
            self.kept.extend(piece.iter().skip(piece.len().saturating_sub(3)));
        } else {
            self.kept.extend_from_slice(piece);
        }
    }

    fn read_event(&mut self) -> Vec<Found> {
        let mut data = Vec::new();
        for line in self.kept.split(|byte| *byte == b'\n') {
            if let Some(text) = line.strip_prefix(b"data:") {
                data.extend_from_slice(text);
            }
        }
        self.kept = data;
        let found = self.read_kept();
        self.overlong = false;
        found
    }

    fn read_kept(&mut self) -> Vec<Found> {
        let kept = std::mem::take(&mut self.kept);
        if self.overlong || kept.is_empty() {
            return Vec::new();
        }
        let Ok(value) = serde_json::from_slice::<Value>(&kept) else { return Vec::new() };
        for (budget, said) in self.budgets.iter().zip(&mut self.sums) {
            for (places, said) in summands(budget).iter().zip(said) {
                *said = places.iter().find_map(|place| units(value.pointer(place)?)).or(*said);
            }
        }
        let said = self.budgets.iter().filter_map(|budget| {
            let Measure::Units { from: UnitsFrom::Pointer(pointer), .. } = &budget.measure else {
                return None;
            };
            Some((Arc::clone(&budget.name), units(value.pointer(pointer)?)?))
        });
        said.collect()
    }

    /// The sums of which something was said. Only at the end of an answer: before it, what is missing may still come,
    /// and a caller who leaves early would be charged for less than was done.
    fn summed(&self) -> Vec<Found> {
        let sums = self.budgets.iter().zip(&self.sums).filter(|(_, said)| said.iter().any(Option::is_some));
        sums.map(|(budget, said)| {
            let sum = said.iter().flatten().fold(0_u64, |sum, units| sum.saturating_add(*units));
            (Arc::clone(&budget.name), sum)
        })
        .collect()
    }
}

/// Of each number that is summed, the places where it may be.
fn summands(budget: &Budget) -> &[Vec<Arc<str>>] {
    match &budget.measure {
        Measure::Units { from: UnitsFrom::Sum(parts), .. } => parts,
        Measure::Units { .. } | Measure::Bytes { .. } | Measure::Calls => &[],
    }
}

/// A whole number, or what is above a broken one.
fn units(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| number.is_finite() && (0.0..1e12).contains(number))?;
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "its range was checked"
        )]
        Some(number.ceil() as u64)
    })
}

#[cfg(test)]
mod tests {
    use caracal_policies::{BudgetPer, Span};
    use http::HeaderValue;

    use super::*;

    fn meter(from: UnitsFrom, kind: &'static str) -> (Meter, Vec<Found>) {
        let budget = Budget {
            name: "b".into(),
            per: BudgetPer::Application,
            application: None,
            resource: None,
            measure: Measure::Units { max_per_call: 9, from },
            limit: 9,
            span: Span::Life,
        };
        let mut meter = Meter::new(vec![Arc::new(budget)]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert("x-cost", HeaderValue::from_static("7"));
        let found = meter.head(&headers);
        (meter, found)
    }

    fn pointer() -> UnitsFrom {
        UnitsFrom::Pointer("/usage/total".into())
    }

    fn read(kind: &'static str, pieces: &[&[u8]]) -> Option<u64> {
        read_from(pointer(), kind, pieces)
    }

    fn read_from(from: UnitsFrom, kind: &'static str, pieces: &[&[u8]]) -> Option<u64> {
        let (mut meter, _) = meter(from, kind);
        let last = pieces.len().saturating_sub(1);
        let found = pieces.iter().enumerate().flat_map(|(at, piece)| meter.piece(piece, at == last));
        found.last().map(|(_, units)| units)
    }

    /// As Anthropic tells it: in a body, in the first event, and in the last one.
    fn sum() -> UnitsFrom {
        let places =
            |name: &str| vec![format!("/usage/{name}").into(), format!("/message/usage/{name}").into()];
        UnitsFrom::Sum(vec![places("input"), places("output")])
    }

    #[test]
    fn numbers_that_are_told_apart_are_summed_at_the_end() {
        let body = br#"{"usage":{"input":40,"output":2}}"#;
        assert_eq!(read_from(sum(), "application/json", &[&body[..9], &body[9..]]), Some(42));
        assert_eq!(read_from(sum(), "application/json", &[br#"{"usage":{"output":2}}"#]), Some(2));
        assert_eq!(read_from(sum(), "application/json", &[br#"{"usage":{"output":null}}"#]), None);
        let stream = b"event: start\ndata: {\"message\":{\"usage\":{\"input\":40,\"output\":1}}}\n\n\
            data: {\"type\":\"ping\"}\n\ndata: {\"usage\":{\"output\":5}}\n\n\
            data: {\"usage\":{\"input\":50,\"output\":7}}\n\ndata: {\"type\":\"stop\"}\n\n";
        for cut in 0..stream.len() {
            let pieces = [&stream[..cut], &stream[cut..], &[]];
            assert_eq!(read_from(sum(), "text/event-stream", &pieces), Some(57), "cut at {cut}");
        }
        // One that does not come to its end has said nothing that counts.
        let (mut meter, _) = meter(sum(), "text/event-stream");
        assert_eq!(meter.piece(stream, false), []);
        // Another answer begins anew.
        meter.head(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]));
        assert_eq!(meter.piece(b"data: {}\n\n", true), []);
    }

    #[test]
    fn a_header_says_it() {
        let (_, found) = meter(UnitsFrom::Header("x-cost".into()), "text/plain");
        assert_eq!(found, [("b".into(), 7)]);
    }

    #[test]
    fn a_body_says_it_however_it_is_cut() {
        let body = br#"{"id":1,"usage":{"total":42}}"#;
        for cut in 0..body.len() {
            assert_eq!(read("application/json", &[&body[..cut], &body[cut..]]), Some(42));
        }
        assert_eq!(read("application/json", &[br#"{"usage":{"total":2.5}}"#]), Some(3));
        assert_eq!(read("application/json", &[br#"{"usage":{"total":-1}}"#]), None);
        assert_eq!(read("application/json", &[br#"{"usage":"#]), None);
        assert_eq!(read("application/json", &[&vec![b' '; MAX_BODY], body]), None, "longer than is read");
    }

    #[test]
    fn the_last_event_that_says_it_counts() {
        let stream = b"data: {\"usage\":null}\n\nid: 1\r\ndata: {\"usage\":{\"total\":5}}\r\n\r\ndata: {\"usage\":{\"total\":8}}\n\ndata: [DONE]\n\n";
        for cut in 0..stream.len() {
            assert_eq!(read("text/event-stream", &[&stream[..cut], &stream[cut..]]), Some(8), "cut at {cut}");
        }
        let long =
            [b"data: ".to_vec(), vec![b'x'; MAX_EVENT], b"\n\ndata: {\"usage\":{\"total\":3}}\n\n".to_vec()]
                .concat();
        assert_eq!(read("text/event-stream", &[&long]), Some(3), "an event that is too long is passed over");
    }
}
