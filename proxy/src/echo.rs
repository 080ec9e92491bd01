//! An upstream that shows what reached it: the other end of the quickstart, and of many tests.
//!
//! Credentials and mandates are shown as fingerprints. The point of the edge is that nobody on the caller's
//! side sees them, so the answer that goes back to the caller must not undo it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Answers every request with what it received, until `stop` becomes true or its sender is gone.
///
/// Shape: JSON with `request_number` (1, 2, 3, ... over the whole life), `method`, `path` (raw, with the
/// query), `headers` (text, or a list where a name came more than once) and `body` (`bytes`, `sha256`).
/// `/stream` sends five server-sent events, 100 ms apart, or as many as `?events=` says. `show_demo` shows credentials as they are and is
/// meant for secrets marked `demo = true`; mandates stay fingerprints even then.
pub async fn serve(listener: TcpListener, show_demo: bool, mut stop: watch::Receiver<bool>) {
    let credentials = if show_demo { Credentials::Shown } else { Credentials::Fingerprinted };
    let echo = Arc::new(Echo { credentials, received: AtomicU64::new(0) });
    let router = Router::new().route("/stream", any(stream_events)).fallback(any(describe)).with_state(echo);
    let stopped = async move {
        // A sender that is gone means the process is going: stop as well.
        let _gone = stop.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the echo upstream stopped");
    }
}

#[derive(Debug)]
struct Echo {
    credentials: Credentials,
    received: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credentials {
    Fingerprinted,
    Shown,
}

impl Echo {
    fn count(&self) -> u64 {
        self.received.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

async fn describe(State(echo): State<Arc<Echo>>, request: Request) -> Response {
    let request_number = echo.count();
    let (head, body) = request.into_parts();
    let Ok(body) = digest_of(body).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let answer = json!({
        "request_number": request_number,
        "method": head.method.as_str(),
        "path": shown_path(&head.uri, echo.credentials),
        "headers": shown_headers(&head.headers, echo.credentials),
        "body": body,
    });
    ([(header::CONTENT_TYPE, "application/json")], format!("{answer:#}\n")).into_response()
}

async fn stream_events(
    State(echo): State<Arc<Echo>>,
    uri: Uri,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let request_number = echo.count();
    let asked = uri.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("events="));
    let of = asked.and_then(|number| number.parse().ok()).unwrap_or(STREAM_EVENTS).min(MOST_EVENTS);
    let events = stream::iter(1..=of).then(move |event| async move {
        tokio::time::sleep(STREAM_PAUSE).await;
        let data = json!({ "request_number": request_number, "event": event, "of": of });
        Ok(Event::default().event("tick").data(data.to_string()))
    });
    Sse::new(events)
}

async fn digest_of(body: Body) -> Result<Value, axum::Error> {
    let mut bytes = 0_usize;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        bytes = bytes.saturating_add(chunk.len());
        hash.update(&chunk);
    }
    Ok(json!({ "bytes": bytes, "sha256": hex::encode(hash.finish()) }))
}

fn shown_headers(headers: &HeaderMap, credentials: Credentials) -> Value {
    let mut shown = Map::new();
    for name in headers.keys() {
        let mut values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| {
                let text = String::from_utf8_lossy(value.as_bytes());
                Value::from(shown_header(name.as_str(), &text, credentials))
            })
            .collect();
        let value = if values.len() == 1 { values.pop().unwrap_or_default() } else { Value::from(values) };
        shown.insert(name.as_str().to_owned(), value);
    }
    Value::from(shown)
}

/// Keeps the scheme word readable (`Bearer sha256:...`): it is part of the shape, not of the secret.
fn shown_header(name: &str, value: &str, credentials: Credentials) -> String {
    let (scheme, secret) = match value.split_once(' ') {
        Some((scheme, rest)) if SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)) => {
            (Some(scheme), rest)
        }
        Some(_) | None => (None, value),
    };
    let hidden = is_mandate(secret) || (credentials == Credentials::Fingerprinted && is_credential(name));
    match (hidden, scheme) {
        (false, _) => value.to_owned(),
        (true, Some(scheme)) => format!("{scheme} {}", fingerprint(secret.as_bytes())),
        (true, None) => fingerprint(secret.as_bytes()),
    }
}

fn shown_path(uri: &Uri, credentials: Credentials) -> String {
    let Some(query) = uri.query() else {
        return uri.path().to_owned();
    };
    let pairs: Vec<_> = query
        .split('&')
        .map(|pair| {
            let Some((name, value)) = pair.split_once('=') else {
                return pair.to_owned();
            };
            let plain_name = percent_decode_str(name).decode_utf8_lossy();
            let plain_value: Vec<u8> = percent_decode_str(value).collect();
            let credential = credentials == Credentials::Fingerprinted && is_credential(&plain_name);
            if credential || is_mandate(&String::from_utf8_lossy(&plain_value)) {
                format!("{name}={}", fingerprint(&plain_value))
            } else {
                pair.to_owned()
            }
        })
        .collect();
    format!("{}?{}", uri.path(), pairs.join("&"))
}

/// Whether a header or query parameter of this name usually carries a credential. Rather one too many.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    CREDENTIAL_WORDS.iter().any(|word| name.contains(word))
}

/// A JWS in compact form whose header is a JSON object: three parts, the first one beginning with `{"`.
fn is_mandate(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.starts_with("eyJ") && text.split('.').count() == 3 && text.split('.').all(is_part)
}

fn fingerprint(secret: &[u8]) -> String {
    let hash = hex::encode(digest::digest(&digest::SHA256, secret));
    format!("sha256:{}", hash.get(..16).unwrap_or_default())
}

const STREAM_EVENTS: u32 = 5;
/// Most events one request may ask for: almost three hours.
const MOST_EVENTS: u32 = 100_000;
const STREAM_PAUSE: Duration = Duration::from_millis(100);
const SCHEMES: &[&str] = &["Basic", "Bearer", "Token", "ApiKey"];
const CREDENTIAL_WORDS: &[&str] = &[
    "auth",
    "key",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "cookie",
    "identity",
    "signature",
];

#[cfg(test)]
mod tests {
    use super::*;

    const MANDATE: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";

    async fn started(show_demo: bool) -> (String, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        (base, stop, tokio::spawn(serve(listener, show_demo, stopped)))
    }

    #[tokio::test]
    async fn a_request_is_described_with_its_credentials_as_fingerprints() {
        let (base, stop, server) = started(false).await;
        let client = reqwest::Client::new();
        let answer: Value = client
            .post(format!("{base}/write/a%2Fb?x=1&api%5Fkey=hush&plain={MANDATE}"))
            .header("x-api-key", "hush")
            .header("authorization", format!("Bearer {MANDATE}"))
            .header("x-team", "a")
            .header("x-team", "b")
            .body("hello")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let hush = fingerprint(b"hush");
        let mandate = fingerprint(MANDATE.as_bytes());
        assert_eq!(answer["request_number"], 1);
        assert_eq!(answer["method"], "POST");
        assert_eq!(answer["path"], format!("/write/a%2Fb?x=1&api%5Fkey={hush}&plain={mandate}"));
        assert_eq!(answer["headers"]["x-api-key"], hush);
        assert_eq!(answer["headers"]["authorization"], format!("Bearer {mandate}"));
        assert_eq!(answer["headers"]["x-team"], json!(["a", "b"]));
        assert_eq!(answer["body"]["bytes"], 5);
        let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(answer["body"]["sha256"], hello);
        assert!(!answer.to_string().contains(MANDATE));
        stop.send(true).unwrap();
        drop(client);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn the_stream_sends_five_events_and_every_request_counts() {
        let (base, stop, server) = started(true).await;
        let text = reqwest::get(format!("{base}/stream")).await.unwrap().text().await.unwrap();
        assert_eq!(text.matches("event: tick").count(), 5);
        let text = reqwest::get(format!("{base}/stream?events=2")).await.unwrap().text().await.unwrap();
        assert_eq!(text.matches("event: tick").count(), 2);
        let answer: Value = reqwest::get(base).await.unwrap().json().await.unwrap();
        assert_eq!(answer["request_number"], 3);
        drop(stop);
        server.await.unwrap();
    }

    #[test]
    fn demo_credentials_may_be_shown_but_mandates_never_are() {
        assert_eq!(shown_header("x-api-key", "hush", Credentials::Shown), "hush");
        let shown = shown_header("authorization", &format!("Bearer {MANDATE}"), Credentials::Shown);
        assert!(shown.starts_with("Bearer sha256:"), "{shown}");
        assert!(shown_header("x-anything", MANDATE, Credentials::Shown).starts_with("sha256:"));
        assert_eq!(shown_header("accept", "a b.c", Credentials::Fingerprinted), "a b.c");
    }
}
