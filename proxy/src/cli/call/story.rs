//! What a call tells: lines while it happens, or one document at the end.

use http::Method;
use serde_json::{Map, Value, json};

use super::super::exit::Failed;
use super::super::http::Answer;
use super::super::out::{Out, Style};
use super::mandate::Mandate;

/// Tells one call.
pub(in super::super) struct Story<'a> {
    out: &'a mut Out,
    /// The document, when one is wanted.
    document: Option<Map<String, Value>>,
    steps: Vec<Value>,
}

impl<'a> Story<'a> {
    pub(in super::super) fn new(out: &'a mut Out, json: bool) -> Self {
        Self { out, document: json.then(Map::new), steps: Vec::new() }
    }

    /// One exchange with the edge.
    pub(super) fn step(
        &mut self,
        title: &str,
        method: &Method,
        url: &str,
        answer: &Answer,
    ) -> Result<(), Failed> {
        let ms = answer.took.as_secs_f64() * 1_000.0;
        let status = answer.status.as_u16();
        self.steps.push(json!({
            "step": title, "method": method.as_str(), "url": url, "status": status,
            "ms": (ms * 10.0).round() / 10.0,
        }));
        if self.document.is_some() {
            return Ok(());
        }
        let style = if answer.status.is_success() { Style::Good } else { Style::Bad };
        let (title, status) =
            (self.out.paint(Style::Strong, title), self.out.paint(style, &status.to_string()));
        let exchange = self.out.paint(Style::Faint, &format!("{method} {url}"));
        let number = self.steps.len();
        self.out.line(&format!("{number}. {title}: {status} in {ms:.1} ms"))?;
        Ok(self.out.line(&format!("   {exchange}"))?)
    }

    /// A remark on the step before.
    pub(super) fn detail(&mut self, text: &str) -> Result<(), Failed> {
        self.line(&format!("   {text}"))
    }

    /// A mandate that was minted: its fingerprint, and with `claims` what it says.
    pub(super) fn mandate(&mut self, class: &str, mandate: &Mandate, claims: bool) -> Result<(), Failed> {
        let said = mandate.claims();
        self.detail(&format!("{class} mandate {}", mandate.fingerprint()))?;
        if claims {
            self.block(&said, "     ")?;
            self.set("mandate", json!({ "fingerprint": mandate.fingerprint(), "claims": said }));
        }
        Ok(())
    }

    /// One line for people.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failed> {
        if self.document.is_some() { Ok(()) } else { Ok(self.out.line(text)?) }
    }

    /// A heading for people.
    pub(super) fn heading(&mut self, style: Style, text: &str) -> Result<(), Failed> {
        let painted = self.out.paint(style, text);
        self.line(&format!("\n{painted}"))
    }

    /// A JSON value for people, indented.
    pub(super) fn block(&mut self, value: &Value, indent: &str) -> Result<(), Failed> {
        for line in format!("{value:#}").lines() {
            self.line(&format!("{indent}{line}"))?;
        }
        Ok(())
    }

    /// Whether lines may carry colour.
    pub(super) fn in_colour(&self) -> bool {
        self.out.in_colour()
    }

    /// A member of the document for machines.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        if let Some(document) = &mut self.document {
            document.insert(name.to_owned(), value);
        }
    }

    /// Ends the story; prints the document, when one is wanted.
    pub(super) fn finish(self) -> Result<(), Failed> {
        if let Some(mut document) = self.document {
            document.insert("steps".to_owned(), self.steps.into());
            self.out.value(&Value::Object(document), true)?;
        }
        Ok(())
    }
}
