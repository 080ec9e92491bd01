//! How a call ended: the upstream's answer or the denial, and the ledger's record of it.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::exit::{Exit, Failed};
use super::super::http::Answer;
use super::super::out::{Style, visible};
use super::super::{Global, edge};
use super::caller::{Ended, Plan};
use super::story::Story;
use crate::control::{self, ControlError, Request};
use crate::ledger::{Record, render};

/// Tells the ending, and which exit code it deserves.
pub(super) async fn tell(
    global: &Global,
    plan: &Plan,
    ended: Result<Ended, Failed>,
    story: &mut Story<'_>,
) -> Result<Exit, Failed> {
    let (step, answer) = match ended? {
        Ended::AtGateway(answer) => (None, answer),
        Ended::Before(step, answer) => (Some(step), answer),
    };
    let verdict = Verdict::of(step, &answer);
    let body = body(&answer);
    match verdict {
        Verdict::Answered | Verdict::UpstreamRefused => upstream(&answer, &body, verdict, story)?,
        Verdict::Denied | Verdict::Failed => refusal(plan, step, &answer, &body, verdict, story)?,
    }
    story.set("outcome", verdict.word().into());
    story.set("status", answer.status.as_u16().into());
    story.set("headers", headers(&answer));
    story.set("body", body.clone());
    records(global, step, &answer, &body, story).await?;
    Ok(verdict.exit())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The upstream answered 2xx.
    Answered,
    /// The upstream answered something else.
    UpstreamRefused,
    /// The edge said no.
    Denied,
    /// The edge could not.
    Failed,
}

impl Verdict {
    /// `step` is the step before the gateway that was refused, if one was.
    pub(super) fn of(step: Option<&str>, answer: &Answer) -> Self {
        let no = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if answer.status.is_success() {
            Self::Answered
        } else if step.is_none() && !is_ours(&body(answer)) {
            Self::UpstreamRefused
        } else if no {
            Self::Denied
        } else {
            Self::Failed
        }
    }

    fn exit(self) -> Exit {
        match self {
            Self::Answered => Exit::Done,
            Self::Denied => Exit::Denied,
            Self::UpstreamRefused | Self::Failed => Exit::Failed,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Answered => "allowed",
            Self::UpstreamRefused => "upstream_refused",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// Whether the edge itself wrote this body, rather than the upstream.
fn is_ours(body: &Value) -> bool {
    body.get("type").and_then(Value::as_str).is_some_and(|kind| kind.starts_with("urn:caracal:error:"))
}

fn upstream(answer: &Answer, body: &Value, verdict: Verdict, story: &mut Story<'_>) -> Result<(), Failed> {
    let style = if verdict == Verdict::Answered { Style::Good } else { Style::Bad };
    story.heading(style, &format!("the upstream answered {}", answer.status))?;
    match body {
        Value::String(text) => {
            for line in visible(text).lines() {
                story.line(&format!("  {line}"))?;
            }
            Ok(())
        }
        Value::Null => story.line("  (no body)"),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => story.block(body, "  "),
    }
}

fn refusal(
    plan: &Plan,
    step: Option<&str>,
    answer: &Answer,
    body: &Value,
    verdict: Verdict,
    story: &mut Story<'_>,
) -> Result<(), Failed> {
    let word = if verdict == Verdict::Denied { "denied" } else { "failed" };
    let place = step.unwrap_or("make the governed call");
    story.heading(Style::Bad, &format!("{word}: {} at the step \"{place}\"", answer.status))?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(visible);
    if let Some(code) = text("error") {
        let description = text("error_description").unwrap_or_default();
        story.line(&format!("  why:       {code}: {description}"))?;
    }
    story.line(&format!(
        "  asked for: scope `{}` on `{}` in zone `{}`",
        plan.scopes, plan.resource, plan.zone
    ))?;
    if let Some(missing) = body.get("missing").and_then(Value::as_object) {
        for (what, names) in missing {
            let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            story.line(&format!("  missing:   {}: {}", visible(what), visible(&names.join(", "))))?;
        }
    }
    if let Some(next) = text("next_step") {
        story.line(&format!("  next step: {next}"))?;
    }
    story.line("  body:")?;
    story.block(body, "    ")
}

/// The ledger's records of the decision, when an edge is running here to give them.
async fn records(
    global: &Global,
    step: Option<&str>,
    answer: &Answer,
    body: &Value,
    story: &mut Story<'_>,
) -> Result<(), Failed> {
    let request_id = answer.headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let refused = body.get("decision_id").filter(|_| step.is_some() || is_ours(body)).and_then(Value::as_str);
    story.set("request_id", json!(request_id));
    let Some(id) = refused.or(request_id) else { return Ok(()) };

    // What went through the gateway has two records, the decision and the result.
    let wanted = if step.is_none() && !is_ours(body) { 2 } else { 1 };
    let found = ask(global, id, wanted).await;
    let decision_id = refused.or_else(|| found.as_ref().ok()?.iter().find_map(decision_of));
    story.set("decision_id", json!(decision_id));
    let shown =
        decision_id.map_or_else(|| format!("request {id}"), |decision| format!("decision {decision}"));
    story.heading(Style::Strong, &visible(&shown))?;
    match found {
        Ok(found) => {
            for value in &found {
                record(value, story)?;
            }
            story.set("records", found.into());
        }
        Err(reason) => story.line(&format!("  its record is in the ledger of the edge ({reason})"))?,
    }
    match refused {
        Some(id) => story.line(&format!("  rule by rule: caracal explain {}", visible(id))),
        None => Ok(()),
    }
}

fn record(value: &Value, story: &mut Story<'_>) -> Result<(), Failed> {
    match serde_json::from_value::<Record>(value.clone()) {
        Ok(record) => story.line(&format!("  {}", render(&record, story.in_colour()))),
        Err(_of_another_version) => story.block(value, "  "),
    }
}

/// The decision a record is about; both records of a request name it.
fn decision_of(record: &Value) -> Option<&str> {
    record.pointer("/metadata_json/decision_id").or_else(|| record.get("id"))?.as_str()
}

/// Asks the running edge until `wanted` records are there, or for [`PATIENCE`] tries.
async fn ask(global: &Global, id: &str, wanted: usize) -> Result<Vec<Value>, String> {
    let state_dir =
        edge::state_dir(global).map_err(|_unknown| "no configuration here names it".to_owned())?;
    let socket = control::socket_path(&state_dir);
    let mut found = Vec::new();
    for _ in 0..PATIENCE {
        match control::call(&socket, &Request::Decision { id: id.to_owned() }).await {
            Ok(mut data) => match data.get_mut("records").map(Value::take) {
                Some(Value::Array(records)) => found = records,
                _ => return Err("it is of another version".to_owned()),
            },
            Err(ControlError::Failed(failure)) if failure.code == "unknown_decision" => {}
            Err(error) => return Err(error.to_string()),
        }
        if found.len() >= wanted {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(found)
}

/// The body as JSON where it is JSON, as text where it is text, null where there is none.
pub(super) fn body(answer: &Answer) -> Value {
    if answer.body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(&answer.body).unwrap_or_else(|_not_json| match std::str::from_utf8(&answer.body) {
        Ok(text) => text.into(),
        Err(_binary) => format!("({} bytes)", answer.body.len()).into(),
    })
}

fn headers(answer: &Answer) -> Value {
    let mut headers = Map::new();
    for name in answer.headers.keys() {
        let values: Vec<String> = answer
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        headers.insert(name.to_string(), values.join(", ").into());
    }
    headers.into()
}

/// Tries for a record; the ledger hands records on within 50 ms.
const PATIENCE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);
