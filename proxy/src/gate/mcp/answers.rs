//! Lists of tools on their way back, cut down to what the mandate may call: in JSON answers, and message by message in
//! event streams, across the pieces in which they come. What cannot be read does not pass.

use std::sync::Arc;

use caracal_policies::Resource;
use serde_json::{Map, Value};

/// Bytes of one message of a server that has to be read.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// How an answer carries its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The body is one message.
    Json,
    /// The body is an event stream (HTML, section 9.2), with a message in the data of each event.
    Events,
}

/// The answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// One answer as it comes in.
#[derive(Debug)]
pub struct Answers {
    resource: Arc<Resource>,
    scopes: Box<str>,
    form: Form,
    /// What came and was not read yet.
    came: Vec<u8>,
    event: Event,
}

/// The lines of the event that is under way.
#[derive(Debug, Default)]
struct Event {
    /// All of them as they came, with their ends.
    lines: Vec<u8>,
    /// Those that are not data.
    others: Vec<u8>,
    /// The data, one line below the other.
    data: Vec<u8>,
}

impl Answers {
    /// `scopes` are those of the mandate, separated by spaces.
    #[must_use]
    pub fn new(resource: Arc<Resource>, scopes: &str) -> Self {
        let (came, event) = (Vec::new(), Event::default());
        Self { resource, scopes: scopes.into(), form: Form::Json, came, event }
    }

    /// Says how the messages come, once the head of the answer is there.
    pub fn come_as(&mut self, form: Form) {
        self.form = form;
    }

    /// How the messages come.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Takes in a piece, and gives what may pass of what came so far. `end` says that nothing more comes.
    ///
    /// # Errors
    /// When the answer cannot be read; nothing of it may pass any more.
    pub fn push(&mut self, piece: &[u8], end: bool) -> Result<Vec<u8>, Unreadable> {
        self.came.extend_from_slice(piece);
        let passed = match self.form {
            Form::Json if !end => Vec::new(),
            Form::Json => {
                let whole = std::mem::take(&mut self.came);
                self.allowed(&whole)?.unwrap_or(whole)
            }
            Form::Events => self.events(end)?,
        };
        if self.came.len().saturating_add(self.event.lines.len()) > MAX_MESSAGE {
            return Err(Unreadable);
        }
        Ok(passed)
    }

    /// Reads the lines that are whole. An event that does not end is none, and is dropped.
    fn events(&mut self, end: bool) -> Result<Vec<u8>, Unreadable> {
        let mut passed = Vec::new();
        let came = std::mem::take(&mut self.came);
        let mut rest = came.as_slice();
        while let Some((line, with_end, after)) = next_line(rest, end) {
            rest = after;
            self.event.lines.extend_from_slice(with_end);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                passed.extend_from_slice(&self.judged(event)?);
            } else {
                self.event.take(line, with_end)?;
            }
        }
        self.came = rest.to_vec();
        Ok(passed)
    }

    fn judged(&self, event: Event) -> Result<Vec<u8>, Unreadable> {
        if event.data.is_empty() {
            return Ok(event.lines);
        }
        let Some(allowed) = self.allowed(&event.data)? else { return Ok(event.lines) };
        let mut written = event.others;
        written.extend_from_slice(b"data: ");
        written.extend_from_slice(&allowed);
        written.extend_from_slice(b"\n\n");
        Ok(written)
    }

    /// A message without the tools that may not be called; none when it can stay as it is.
    fn allowed(&self, message: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        let mut members = caracal_mandates::json_object(message).ok_or(Unreadable)?;
        let Some(Value::Object(result)) = members.get_mut("result") else { return Ok(None) };
        if !result.contains_key("tools") {
            return Ok(None);
        }
        let cut = self.cut(result)?;
        // The list is this mandate's: nobody may keep it for others.
        let shared = result.get("cacheScope").is_some_and(|scope| scope != "private");
        if shared {
            result.insert("cacheScope".to_owned(), "private".into());
        }
        Ok((cut || shared).then(|| Value::Object(members).to_string().into_bytes()))
    }

    fn cut(&self, result: &mut Map<String, Value>) -> Result<bool, Unreadable> {
        let Some(Value::Array(tools)) = result.get_mut("tools") else { return Err(Unreadable) };
        let before = tools.len();
        let name = |tool: &Value| tool.get("name").and_then(Value::as_str).map(str::to_owned);
        let mcp = self.resource.mcp.as_ref().ok_or(Unreadable)?;
        if tools.iter().any(|tool| name(tool).is_none()) {
            return Err(Unreadable);
        }
        tools.retain(|tool| name(tool).is_some_and(|name| mcp.may_call(&name, &self.scopes)));
        Ok(tools.len() != before)
    }
}

impl Event {
    /// Takes one line that is not empty. Fields that the format does not have are refused, because others may read
    /// them as data.
    fn take(&mut self, line: &[u8], with_end: &[u8]) -> Result<(), Unreadable> {
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (line.get(..at), line.get(at.saturating_add(1)..)),
            None => (Some(line), Some(&b""[..])),
        };
        let value = value.unwrap_or_default();
        match field.unwrap_or_default() {
            b"data" => {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            }
            b"" | b"event" | b"id" | b"retry" => self.others.extend_from_slice(with_end),
            _ => return Err(Unreadable),
        }
        Ok(())
    }
}

/// The first whole line without and with its end, and what comes after it. A carriage return that came last may be
/// half of an end.
fn next_line(text: &[u8], end: bool) -> Option<(&[u8], &[u8], &[u8])> {
    let at = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
    let (line, rest) = text.split_at(at);
    let length = match rest {
        [b'\r', b'\n', ..] => 2,
        [b'\r'] if !end => return None,
        _ => 1,
    };
    let (with_end, after) = text.split_at(at.saturating_add(length));
    Some((line, with_end, after))
}

#[cfg(test)]
mod tests;
