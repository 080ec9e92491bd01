//! The throw-away edge and its upstream, both on loopback.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use bytes::Bytes;
use caracal_policies::KeySlot;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::super::call::caller::{Caller, Ended, Plan};
use super::super::call::story::Story;
use super::super::exit::Failed;
use super::super::http::Client;
use super::super::out::Out;
use super::super::secret;
use super::Probe;
use super::files::{self, APPLICATION, Folder, RESOURCE, SCOPE};
use super::judge::{Seen, judge};
use crate::config;
use crate::control::Endpoints;
use crate::gate::slots;
use crate::serve::{self, Embedding, Running, ServeOptions, Sockets};

/// What the upstream got, in order.
type Log = Arc<Mutex<Vec<Seen>>>;

pub(super) struct Site {
    running: Running,
    upstream: JoinHandle<()>,
    seen: Log,
    /// Of the application, in every zone.
    secret: Zeroizing<String>,
    /// By probe.
    credentials: Vec<String>,
    // Last, so that the folder outlives what writes into it.
    _folder: Folder,
}

impl Site {
    pub(super) async fn start(probes: &[Probe]) -> Result<Self, Failed> {
        let failed = |error: std::io::Error| Failed::because("the self-check cannot be set up", &error);
        let bind = || TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
        let sockets =
            || Ok(Sockets { gateway: bind()?, authority: bind()?, coordinator: bind()?, ops: bind()? });
        let (upstream, sockets) = (bind().map_err(failed)?, sockets().map_err(failed)?);
        let (seen, address) = (Log::default(), upstream.local_addr().map_err(failed)?);
        let secret = secret::generate()?;
        let mut credentials = Vec::new();
        for _ in probes {
            credentials.push(secret::generate()?.to_string());
        }
        let folder = Folder::new().map_err(failed)?;
        let issuer = sockets.authority.local_addr().map_err(failed)?;
        write(&folder, probes, &credentials, &secret, issuer, address).map_err(failed)?;
        let upstream = listen(upstream, Arc::clone(&seen)).map_err(failed)?;
        let config = config::load(&folder.path().join("caracal.toml"))?;
        let running = serve::start_with(config, sockets, ServeOptions::default(), Embedding::default());
        let running = Box::pin(running)
            .await
            .map_err(|error| Failed::because("the edge of the self-check does not start", &error))?;
        Ok(Self { running, upstream, seen, secret, credentials, _folder: folder })
    }

    /// Calls through one provider, and says what is wrong with what the upstream got.
    pub(super) async fn try_one(
        &self,
        number: usize,
        probe: &Probe,
        out: &mut Out,
    ) -> Result<Vec<String>, Failed> {
        let addresses = self.running.addresses;
        let plan = Plan {
            endpoints: Endpoints {
                issuer: format!("http://{}", addresses.authority),
                coordinator: format!("http://{}", addresses.coordinator),
                gateway: format!("http://{}", addresses.gateway),
            },
            zone: files::zone(number),
            application: APPLICATION.to_owned(),
            resource: RESOURCE.to_owned(),
            scopes: SCOPE.to_owned(),
            method: Method::GET,
            path: "/probe".to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
        };
        // Tells nothing: the story of a document is told by its end, which does not come.
        let mut story = Story::new(out, true);
        let mut caller = Caller::new(&plan, &self.secret, None);
        let token = match caller.mandate(&mut story).await? {
            Ok(mandate) => Zeroizing::new(mandate.expose().to_owned()),
            Err(Ended::Before(step, answer)) => {
                return Ok(vec![format!("the edge refused to {step}: {}", answer.status)]);
            }
            Err(Ended::AtGateway(answer)) => return Ok(vec![format!("the edge answered {}", answer.status)]),
        };
        let request = request(probe, &plan, &token)?;
        let answer = Client::new(None).send(request).await;
        let answer = answer.map_err(|error| Failed::because("the edge of the self-check", &error))?;
        let seen = std::mem::take(&mut *self.seen.lock());
        if !answer.status.is_success() {
            return Ok(vec![format!("the edge answered {} in place of the upstream", answer.status)]);
        }
        let [seen] = seen.as_slice() else {
            return Ok(vec![format!("the upstream got {} requests for one", seen.len())]);
        };
        let secret = self.credentials.get(number).map_or("", String::as_str);
        Ok(judge(probe, seen, &token, secret))
    }

    pub(super) async fn stop(self) -> Result<(), Failed> {
        self.upstream.abort();
        let stopped = self.running.stop().await;
        stopped.map_err(|error| Failed::because("the edge of the self-check does not stop", &error))
    }
}

fn write(
    folder: &Folder,
    probes: &[Probe],
    credentials: &[String],
    secret: &str,
    issuer: SocketAddr,
    upstream: SocketAddr,
) -> std::io::Result<()> {
    let hash = secret::hash(secret);
    std::fs::create_dir(folder.path().join("bundles"))?;
    folder.put("caracal.toml", &files::config(issuer, probes.len()))?;
    folder.put("secrets.toml", &files::secrets(credentials, upstream))?;
    for (number, probe) in probes.iter().enumerate() {
        let name = format!("bundles/{}.toml", files::zone(number));
        folder.put(&name, &files::bundle(number, probe, &hash, upstream))?;
    }
    Ok(())
}

/// An upstream that writes down every request and answers 204.
fn listen(listener: TcpListener, seen: Log) -> std::io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let note = async |State(seen): State<Log>, request: Request| {
        let (head, _body) = request.into_parts();
        seen.lock().push(Seen { target: head.uri.to_string(), headers: head.headers });
        http::StatusCode::NO_CONTENT
    };
    let router = Router::new().fallback(note).with_state(seen);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the upstream of the self-check stopped");
        }
    }))
}

/// The governed request, with the token in every place where a client of the provider may carry its key.
fn request(probe: &Probe, plan: &Plan, token: &str) -> Result<http::Request<Full<Bytes>>, Failed> {
    let provider = probe.provider.as_deref();
    let own = provider.into_iter().flat_map(|provider| &provider.key_slots);
    let queries = own.filter_map(|slot| match slot {
        KeySlot::Query(name) => Some(format!("{name}={token}")),
        KeySlot::Header(_) | KeySlot::Bearer(_) | KeySlot::BasicUser | KeySlot::BasicPassword => None,
    });
    let query: Vec<String> = std::iter::once("kept=1".to_owned()).chain(queries).collect();
    let url = format!("{}{}?{}", plan.endpoints.gateway, plan.path, query.join("&"));
    let odd = |error: http::Error| Failed::because("the call of the self-check", &error);
    let mut request = http::Request::builder()
        .uri(url)
        .header("x-caracal-resource", RESOURCE)
        .body(Full::default())
        .map_err(odd)?;
    let value = |text: &str| {
        HeaderValue::try_from(text).map_err(|error| Failed::because("the call of the self-check", &error))
    };
    for name in slots::stripped_by(provider) {
        let name = HeaderName::try_from(name)
            .map_err(|error| Failed::because("the call of the self-check", &error))?;
        // The one slot that is read when the resource is named in a header.
        let held =
            if name == http::header::AUTHORIZATION { format!("Bearer {token}") } else { token.to_owned() };
        request.headers_mut().insert(name, value(&held)?);
    }
    Ok(request)
}
