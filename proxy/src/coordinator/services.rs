//! The routes of agent services.

use axum::response::Response;
use http::Uri;
use serde_json::{Value, json};

use super::body::Body;
use super::call::{About, Call, Reply};
use super::query::Query;
use super::refused::Refused;
use super::sessions::envelope;
use crate::state::{AgentService, RegisterService};

/// Most protocol versions or capabilities.
const MAX_WORDS: usize = 64;
/// Longest of them, in characters.
const MAX_WORD: usize = 128;
/// Longest endpoint, in bytes.
const MAX_URL: usize = 2_048;

/// `POST /agent-services`: registers a service, or describes it anew.
pub(super) async fn register(call: Call) -> Response {
    call.change("agent_service_register", registered).await
}

async fn registered(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let request = request(call, Body::required(&call.headers, &call.body)?)?;
    about.insert("application_id".into(), json!(request.application));
    about.insert("endpoint_url".into(), json!(request.endpoint_url));
    let service = call.app().state.register_service(request).await?;
    about.insert("service_id".into(), json!(service.id));
    Ok(Reply::created(service.to_json(), false))
}

fn request(call: &Call, mut body: Body) -> Result<RegisterService, Refused> {
    let application = body.string("application_id");
    let endpoint = body.string("endpoint_url");
    if !endpoint.is_empty() && !is_endpoint(&endpoint) {
        body.issue(
            "endpoint_url",
            "must be an absolute http or https URL without user, password or fragment",
        );
    }
    let mut words = |name: &str| {
        body.strings(
            name,
            MAX_WORDS,
            |word| (1..=MAX_WORD).contains(&word.chars().count()),
            "must be at most 64 strings of 1 to 128 characters",
        )
    };
    let (protocol_versions, capabilities) = (words("protocol_versions"), words("capabilities"));
    let (framework_name, framework_version) = framework(&mut body);
    let metadata = body.object("metadata").unwrap_or_default();
    body.finish()?;
    Ok(RegisterService {
        zone: call.zone.as_str().into(),
        caller: call.caller.clone(),
        application_known: call.application_known(&application),
        application: application.into(),
        endpoint_url: endpoint.into(),
        protocol_versions,
        framework_name,
        framework_version,
        capabilities,
        metadata: Value::Object(metadata),
    })
}

/// `framework`: a name, and a version or none.
fn framework(body: &mut Body) -> (Option<String>, Option<String>) {
    let Some(framework) = body.object("framework") else { return (None, None) };
    let word = |name: &str| match framework.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if (1..=MAX_WORD).contains(&word.chars().count()) => Ok(Some(word.clone())),
        Some(_) => Err(()),
    };
    match (word("name"), word("version")) {
        (Ok(Some(name)), Ok(version)) => (Some(name), version),
        _ => {
            body.issue("framework", "must have a name and may have a version, each of 1 to 128 characters");
            (None, None)
        }
    }
}

/// Whether it can be called by others. Credentials have no place in a list that a whole zone reads.
fn is_endpoint(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else { return false };
    let called = url.scheme_str().is_some_and(|scheme| ["http", "https"].contains(&scheme));
    let host = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    text.len() <= MAX_URL && called && host && !text.contains('#')
}

/// `GET /agent-services`.
pub(super) async fn list(call: Call) -> Response {
    let outcome = Query::parse(&call.query).and_then(|query| {
        let found = call.app().state.list_services(&call.zone, &query.page()?)?;
        Ok(envelope(&found, AgentService::to_json))
    });
    call.read(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_absolute_url_without_secrets() {
        for good in ["http://127.0.0.1:9000/a", "https://agent.example/run?x=1", "https://[::1]:8443"] {
            assert!(is_endpoint(good), "{good}");
        }
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL));
        for bad in [
            "",
            "/run",
            "ftp://a.example",
            "a.example:80",
            "https://u:p@a.example",
            "https://a.example/#f",
            &long,
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }
}
