//! The steps of a governed call, in the order the official clients make them.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::super::exit::Failed;
use super::super::http::{Answer, Client};
use super::mandate::Mandate;
use super::story::Story;
use crate::control::Endpoints;

/// What is to be called, as whom, and where.
#[derive(Debug)]
pub(in super::super) struct Plan {
    pub(in super::super) endpoints: Endpoints,
    pub(in super::super) zone: String,
    pub(in super::super) application: String,
    pub(in super::super) resource: String,
    /// Separated by spaces.
    pub(in super::super) scopes: String,
    pub(in super::super) method: Method,
    pub(in super::super) path: String,
    pub(in super::super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(in super::super) body: Bytes,
}

/// Makes the call, and remembers what is to be cleaned up.
pub(in super::super) struct Caller<'a> {
    plan: &'a Plan,
    secret: &'a str,
    client: Client,
    lifecycle: Option<Mandate>,
    /// Sessions that were started and not ended, oldest first.
    sessions: Vec<String>,
}

/// How the way to the upstream ended.
#[derive(Debug)]
pub(in super::super) enum Ended {
    /// The gateway answered, for the upstream or for itself.
    AtGateway(Answer),
    /// An earlier step was refused.
    Before(&'static str, Answer),
}

/// Why a step is the last one.
pub(super) enum Stop {
    Refused(&'static str, Answer),
    Failed(Failed),
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl<'a> Caller<'a> {
    pub(in super::super) fn new(plan: &'a Plan, secret: &'a str, ca: Option<&Path>) -> Self {
        Self { plan, secret, client: Client::new(ca), lifecycle: None, sessions: Vec::new() }
    }

    /// Goes all the way to the gateway's answer, or to the first refusal.
    pub(super) async fn drive(&mut self, story: &mut Story<'_>) -> Result<Ended, Failed> {
        match self.steps(story).await {
            Ok(answer) => Ok(Ended::AtGateway(answer)),
            Err(Stop::Refused(step, answer)) => Ok(Ended::Before(step, answer)),
            Err(Stop::Failed(failed)) => Err(failed),
        }
    }

    async fn steps(&mut self, story: &mut Story<'_>) -> Result<Answer, Stop> {
        let mandate = self.obtain(story).await?;
        self.request(&mandate, story).await
    }

    /// Goes as far as a gateway mandate, or to the first refusal.
    pub(in super::super) async fn mandate(
        &mut self,
        story: &mut Story<'_>,
    ) -> Result<Result<Mandate, Ended>, Failed> {
        match self.obtain(story).await {
            Ok(mandate) => Ok(Ok(mandate)),
            Err(Stop::Refused(step, answer)) => Ok(Err(Ended::Before(step, answer))),
            Err(Stop::Failed(failed)) => Err(failed),
        }
    }

    async fn obtain(&mut self, story: &mut Story<'_>) -> Result<Mandate, Stop> {
        let lifecycle = self.mint("mint a session mandate", "agent:lifecycle", &[], story).await?;
        story.mandate("session", &lifecycle, false)?;
        self.lifecycle = Some(lifecycle);
        let source = self.start_session("start the delegating session", story).await?;
        let target = self.start_session("start the acting session", story).await?;
        let delegation = self.delegate(&source, &target, story).await?;

        let scopes = self.plan.scopes.as_str();
        let bound = [("agent_session_id", target.as_str()), ("delegation_edge_id", delegation.as_str())];
        let mandate = self.mint("mint a gateway mandate, good for one use", scopes, &bound, story).await?;
        story.mandate("gateway", &mandate, true)?;
        Ok(mandate)
    }

    /// Ends the sessions, the acting one first; says what could not be ended, and is no reason to fail.
    pub(super) async fn end_sessions(&mut self, story: &mut Story<'_>) -> Result<(), Failed> {
        let sessions = std::mem::take(&mut self.sessions);
        for session in sessions.iter().rev() {
            let path = format!("agents/{session}");
            match self.coordinate("end a session", Method::DELETE, &path, None, story).await {
                Ok(_) => {}
                Err(Stop::Refused(_, answer)) => {
                    story.detail(&format!(
                        "not ended ({}); it ends by itself in {SESSION_SECONDS} s",
                        answer.status
                    ))?;
                }
                Err(Stop::Failed(failed)) => return Err(failed),
            }
        }
        Ok(())
    }

    async fn mint(
        &self,
        step: &'static str,
        scope: &str,
        bound: &[(&str, &str)],
        story: &mut Story<'_>,
    ) -> Result<Mandate, Stop> {
        let plan = self.plan;
        let mut fields = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("zone_id", plan.zone.as_str()),
            ("application_id", plan.application.as_str()),
            ("client_secret", self.secret),
            ("resource", plan.resource.as_str()),
            ("scope", scope),
        ];
        fields.extend_from_slice(bound);
        let request = Request::post(format!("{}/oauth/2/token", plan.endpoints.issuer))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form(&fields)));
        let answer = self.send(step, request, story).await?;
        story.detail(&format!("scope `{scope}` on `{}`", plan.resource))?;
        let token = member(&answer, "access_token")?;
        Ok(Mandate::new(token))
    }

    async fn start_session(&mut self, step: &'static str, story: &mut Story<'_>) -> Result<String, Stop> {
        let body = json!({
            "application_id": self.plan.application,
            "labels": [self.plan.application],
            "ttl_seconds": SESSION_SECONDS,
        });
        let answer = self.coordinate(step, Method::POST, "agents", Some(body), story).await?;
        let id = member(&answer, "agent_session_id")?;
        self.sessions.push(id.clone());
        story.detail(&id)?;
        Ok(id)
    }

    async fn delegate(&self, source: &str, target: &str, story: &mut Story<'_>) -> Result<String, Stop> {
        let scopes: Vec<&str> = self.plan.scopes.split_ascii_whitespace().collect();
        let body = json!({
            "issuer_application_id": self.plan.application,
            "receiver_application_id": self.plan.application,
            "source_session_id": source,
            "target_session_id": target,
            "scopes": scopes,
            "constraints": { "resources": [self.plan.resource] },
            "ttl_seconds": SESSION_SECONDS,
        });
        let step = "delegate the scopes from one to the other";
        let answer = self.coordinate(step, Method::POST, "delegations", Some(body), story).await?;
        let id = member(&answer, "delegation_edge_id")?;
        story.detail(&id)?;
        Ok(id)
    }

    async fn coordinate(
        &self,
        step: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
        story: &mut Story<'_>,
    ) -> Result<Answer, Stop> {
        let zone = utf8_percent_encode(&self.plan.zone, NON_ALPHANUMERIC);
        let url = format!("{}/zones/{zone}/{path}", self.plan.endpoints.coordinator);
        let bearer = self.lifecycle.as_ref().map_or("", Mandate::expose);
        let request =
            Request::builder().method(method).uri(url).header(header::AUTHORIZATION, secret_bearer(bearer)?);
        let request = match body {
            Some(body) => {
                request.header(header::CONTENT_TYPE, "application/json").body(Full::from(body.to_string()))
            }
            None => request.body(Full::default()),
        };
        self.send(step, request, story).await
    }

    /// The governed request itself. Whatever the answer is, it is the answer.
    async fn request(&self, mandate: &Mandate, story: &mut Story<'_>) -> Result<Answer, Stop> {
        let plan = self.plan;
        let mut request = Request::builder()
            .method(plan.method.clone())
            .uri(format!("{}{}", plan.endpoints.gateway, plan.path))
            .header("x-caracal-resource", &plan.resource)
            .header(header::AUTHORIZATION, secret_bearer(mandate.expose())?);
        for (name, value) in &plan.headers {
            request = request.header(name, value);
        }
        match self.send("make the governed call", request.body(Full::from(plan.body.clone())), story).await {
            Err(Stop::Refused(_, answer)) => Ok(answer),
            answered => answered,
        }
    }

    async fn send(
        &self,
        step: &'static str,
        request: http::Result<Request<Full<Bytes>>>,
        story: &mut Story<'_>,
    ) -> Result<Answer, Stop> {
        let request = request.map_err(|error| Failed::because(step, &error))?;
        let (method, shown) = (request.method().clone(), without_query(request.uri()));
        let answer = self.client.send(request).await.map_err(|error| Failed::because(step, &error))?;
        story.step(step, &method, &shown, &answer)?;
        if answer.status.is_success() { Ok(answer) } else { Err(Stop::Refused(step, answer)) }
    }
}

fn secret_bearer(token: &str) -> Result<HeaderValue, Failed> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_odd| Failed::new("the authority gave a mandate that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn without_query(uri: &http::Uri) -> String {
    let text = uri.to_string();
    match text.split_once('?') {
        Some((path, _query)) => format!("{path}?..."),
        None => text,
    }
}

/// `application/x-www-form-urlencoded`, with everything escaped that could be escaped.
fn form(fields: &[(&str, &str)]) -> String {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

fn member(answer: &Answer, name: &str) -> Result<String, Failed> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match body.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        _ => Err(Failed::new(format!("an answer of the edge has no `{name}`; is that URL an edge?"))),
    }
}

/// Long enough for one slow call; a crash of ours leaves nothing behind for longer.
const SESSION_SECONDS: u32 = 120;
