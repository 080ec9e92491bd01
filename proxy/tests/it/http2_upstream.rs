//! Upstreams that speak HTTP/2: which protocol is spoken, what passes, what is shared, what is sent again.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use caracal::serve::ServeOptions;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::edge::{Agent, CANARY, ECHO, Edge, Plan, ZONE, eventually, install_crypto};
use crate::upstream_tls::{Authority, secrets};
use crate::{framing, secure};

const PATIENCE: Duration = Duration::from_secs(5);

/// Calls in a row, none of which waits for another one's connection.
const CALLS: usize = 6;

type Body = BoxBody<Bytes, Infallible>;

/// A request as the upstream understood it, and the connection it came on.
#[derive(Clone, Debug)]
struct Seen {
    connection: usize,
    version: Version,
    authority: Option<String>,
    headers: HeaderMap,
    body: Bytes,
}

/// Speaks HTTP/2 where ALPN says so, or without TLS where it is told to.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Bodies that ended before their time.
    broken: Arc<AtomicUsize>,
    plain: Version,
}

/// Counts when it is dropped.
struct Counting(Arc<AtomicUsize>);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Server {
    async fn plain(version: Version) -> Self {
        Self::start(None, version).await
    }

    /// With this certificate, and these protocols in ALPN.
    async fn secured(ca: &Authority, protocols: &[&str]) -> Self {
        install_crypto();
        let own = ca.issue("127.0.0.1");
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let builder = rustls::ServerConfig::builder().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![own.der()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::start(Some(TlsAcceptor::from(Arc::new(config))), Version::HTTP_11).await
    }

    async fn start(acceptor: Option<TlsAcceptor>, plain: Version) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, seen: Arc::default(), broken: Arc::default(), plain };
        let accepting = server.clone();
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((tcp, _)) = listener.accept().await {
                connection += 1;
                let (server, acceptor) = (accepting.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => server.serve(tcp, server.plain, connection).await,
                        Some(acceptor) => {
                            let Ok(tls) = acceptor.accept(tcp).await else { return };
                            let agreed = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                            let version = if agreed { Version::HTTP_2 } else { Version::HTTP_11 };
                            server.serve(tls, version, connection).await;
                        }
                    }
                });
            }
        });
        server
    }

    async fn serve<S>(&self, stream: S, version: Version, connection: usize)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| self.clone().answer(request, connection));
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http2.serve_connection(io, service).await.ok();
        } else {
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok();
        }
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        connection: usize,
    ) -> Result<Response<Body>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let authority = head.uri.authority().map(ToString::to_string);
        let name = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let seen = Seen { connection, version: head.version, authority, headers: head.headers, body };
        self.seen.lock().push(seen);
        let body = match name.as_str() {
            "stream" => {
                let held = Counting(Arc::clone(&self.broken));
                let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"first")))]);
                let rest = stream::pending().inspect(move |_| {
                    let _ = &held;
                });
                BodyExt::boxed(StreamBody::new(first.chain(rest)))
            }
            "trailers" => {
                let trailers = HeaderMap::from_iter([
                    (http::HeaderName::from_static("grpc-status"), "0".parse().unwrap()),
                    (http::HeaderName::from_static("x-key"), CANARY.parse().unwrap()),
                ]);
                let body = Full::new(Bytes::from_static(b"told"));
                BodyExt::boxed(body.with_trailers(std::future::ready(Some(Ok(trailers)))))
            }
            "flood" => BodyExt::boxed(Full::new(Bytes::from(vec![b'x'; 20_000_000]))),
            _ => BodyExt::boxed(Full::new(Bytes::from_static(b"ok"))),
        };
        let mut response = Response::new(body);
        if name == "stream" {
            let events = http::HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert(http::header::CONTENT_TYPE, events);
        }
        Ok(response)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

/// An edge, not yet started, whose echo resource is at `address` and says `more` about it.
async fn prepared(scheme: &str, address: SocketAddr, ca: &Authority, more: &str) -> Edge {
    let plan = Plan {
        config: "[egress.authorities]\ninternal = \"internal-ca.pem\"\n".into(),
        resource: format!("{more}\nreusable_mandates = true"),
        granted: vec!["echo:read", "echo:write"],
        ..Plan::default()
    };
    let mut edge = Edge::prepared(plan).await;
    edge.upstream.address = address;
    let text = edge.bundle_text().replace(&edge.upstream.url(), &format!("{scheme}://{address}"));
    std::fs::write(edge.bundle(), text).unwrap();
    std::fs::write(edge.path("internal-ca.pem"), &ca.pem).unwrap();
    secrets(&edge, "", &[]);
    edge
}

async fn started(scheme: &str, address: SocketAddr, ca: &Authority, more: &str) -> Edge {
    let mut edge = prepared(scheme, address, ca, more).await;
    edge.boot(ServeOptions::default()).await.unwrap();
    edge
}

/// A mandate that is good for several calls.
async fn reusable(edge: &Edge) -> String {
    let agent = Agent::provision(edge, &["echo:read"]).await;
    let (status, body) =
        agent.try_mint(edge, &["echo:read"], &[("reusable", "true"), ("ttl_seconds", "120")]).await;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_is_spoken_to_in_the_protocol_that_its_resource_says() {
    let ca = Authority::new();
    const BOTH: &[&str] = &["h2", "http/1.1"];
    for (protocols, protocol, expected) in [
        (None, "http1", Some(Version::HTTP_11)),
        (None, "auto", Some(Version::HTTP_11)),
        (None, "http2", Some(Version::HTTP_2)),
        (Some(BOTH), "http1", Some(Version::HTTP_11)),
        (Some(BOTH), "auto", Some(Version::HTTP_2)),
        (Some(BOTH), "http2", Some(Version::HTTP_2)),
        (Some(&["http/1.1"]), "auto", Some(Version::HTTP_11)),
        (Some(&["http/1.1"]), "http2", None),
        (Some(&[]), "auto", Some(Version::HTTP_11)),
        (Some(&[]), "http2", None),
    ] {
        let case = format!("{protocols:?} {protocol}");
        let server = match protocols {
            Some(protocols) => Server::secured(&ca, protocols).await,
            None => Server::plain(if protocol == "http2" { Version::HTTP_2 } else { Version::HTTP_11 }).await,
        };
        let (scheme, tls) =
            if protocols.is_some() { ("https", "tls = { ca = \"internal\" }") } else { ("http", "") };
        let more = format!("upstream_protocol = \"{protocol}\"\n{tls}");
        let edge = started(scheme, server.address, &ca, &more).await;
        let mandate = reusable(&edge).await;
        for _ in 0..CALLS {
            let answer = edge.get("/read/a?x=%20", &mandate).header("connection", "keep-alive").send();
            let status = answer.await.unwrap().status().as_u16();
            assert_eq!(status, if expected.is_some() { 200 } else { 502 }, "{case}");
        }
        let seen = server.seen();
        let Some(expected) = expected else {
            assert!(seen.is_empty(), "{case}: nothing is sent in another protocol");
            continue;
        };
        assert_eq!(seen.len(), CALLS, "{case}");
        // A caller may be back before its connection is, but not each time.
        assert!(seen.iter().all(|one| one.connection < CALLS), "{case}: none was used again");
        for one in seen {
            assert_eq!(one.version, expected, "{case}");
            assert_eq!(one.headers["x-api-key"], CANARY, "{case}");
            assert!(!one.headers.contains_key("authorization"), "{case}");
            if expected == Version::HTTP_2 {
                assert_eq!(one.authority.as_deref(), Some(server.address.to_string().as_str()), "{case}");
                assert!(!one.headers.contains_key("host"), "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_in_both_directions_and_are_searched() {
    let (ca, server) = (Authority::new(), Server::plain(Version::HTTP_2).await);
    let mut edge = prepared("http", server.address, &ca, "upstream_protocol = \"http2\"").await;
    secure::boot(&mut edge).await;
    let mandate = edge.mandate().await;
    let mut sender = secure::connect(&edge).await;
    let request = secure::request("POST", "/read/trailers", &mandate).header("te", "trailers");
    let response = sender.send_request(request.body(Full::new(Bytes::from("asked"))).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().unwrap().clone();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-key"].to_str().unwrap(), "*".repeat(CANARY.len()));
    assert_eq!(body.to_bytes(), "told");
    let seen = server.seen().remove(0);
    assert_eq!((seen.headers["te"].to_str().unwrap(), seen.body), ("trailers", Bytes::from("asked")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_ends_its_stream_at_the_upstream_and_the_shared_connection_goes_on() {
    let (ca, server) = (Authority::new(), Server::plain(Version::HTTP_2).await);
    let edge = started("http", server.address, &ca, "upstream_protocol = \"http2\"").await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let other = reusable(&edge).await;
    let going_on = edge.get("/read/stream", &other).send().await.unwrap();
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let mut cut = edge.get("/read/stream", &mandate).send().await.unwrap();
    assert_eq!(cut.chunk().await.unwrap().unwrap(), "first");
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
    assert_eq!(edge.http.delete(url).bearer_auth(&agent.bearer).send().await.unwrap().status(), 204);
    let rest = tokio::time::timeout(PATIENCE, cut.chunk()).await.expect("it is cut");
    assert!(rest.is_err(), "what is cut does not look complete");
    eventually("its stream is over", async || server.broken.load(Ordering::SeqCst) == 1).await;
    assert_eq!(edge.get("/read/a", &other).send().await.unwrap().text().await.unwrap(), "ok");
    assert_eq!(server.broken.load(Ordering::SeqCst), 1, "the other stream goes on");
    assert!(server.seen().iter().all(|seen| seen.connection == 1), "all of them shared a connection");
    drop(going_on);
    eventually("a caller that goes away ends its own", async || server.broken.load(Ordering::SeqCst) == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_hears_why_it_ends_over_http_2_too() {
    let (ca, server) = (Authority::new(), Server::plain(Version::HTTP_2).await);
    let edge = started("http", server.address, &ca, "upstream_protocol = \"http2\"").await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let mut events =
        edge.get("/read/stream", &mandate).header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(events.chunk().await.unwrap().unwrap(), "first");
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
    assert_eq!(edge.http.delete(url).bearer_auth(&agent.bearer).send().await.unwrap().status(), 204);
    let word = tokio::time::timeout(PATIENCE, events.chunk()).await.expect("it is cut").unwrap().unwrap();
    assert!(word.starts_with(b"\n\nevent: caracal-revoked\n"), "{word:?}");
    let rest = tokio::time::timeout(PATIENCE, events.chunk()).await.expect("it ends");
    assert!(rest.is_err(), "what is cut does not look complete");
    eventually("its stream is over", async || server.broken.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_read_stops_nobody_on_the_same_connection() {
    let (ca, server) = (Authority::new(), Server::plain(Version::HTTP_2).await);
    let edge = started("http", server.address, &ca, "upstream_protocol = \"http2\"").await;
    let mandate = reusable(&edge).await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(edge.running().addresses.gateway).await.unwrap();
        let head = format!(
            "GET /read/flood HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 1_000]).await.unwrap();
        stalled.push(stream);
    }
    for _ in 0..20 {
        let answer = tokio::time::timeout(PATIENCE, edge.get("/read/a", &mandate).send()).await;
        assert_eq!(answer.expect("nobody waits").unwrap().status(), 200);
    }
    // Another call may be back before its place on the connection is.
    let beside = server.seen().iter().filter(|seen| seen.connection == 1).count();
    assert!(beside > 13, "{beside} of 23 were on the connection of those that do not read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_refused_where_http_2_is_spoken_and_uses_http_1_where_that_is_free() {
    let ca = Authority::new();
    let server = Server::secured(&ca, &["h2", "http/1.1"]).await;
    let upgrade = |mandate: &str| {
        format!(
            "GET /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
        )
    };
    for (protocol, expected) in [("http2", 403), ("auto", 200)] {
        let more = format!("upstream_protocol = \"{protocol}\"\ntls = {{ ca = \"internal\" }}");
        let edge = started("https", server.address, &ca, &more).await;
        let mandate = edge.mandate().await;
        let (status, text) = framing::exchange(&edge, upgrade(&mandate).as_bytes()).await;
        assert_eq!(status, expected, "{text}");
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].version, Version::HTTP_11);
}

/// What is refused.
#[derive(Clone, Copy)]
enum Refuse {
    Stream,
    Connection,
}

/// A server of HTTP/2 that says of its first request that it did not look at it, and answers every other one with 200.
/// Gives how often it was asked.
async fn refusing_once(how: Refuse) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let asked = Arc::clone(&counted);
            tokio::spawn(async move {
                tcp.read_exact(&mut [0; 24]).await?;
                tcp.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await?;
                loop {
                    let mut head = [0; 9];
                    tcp.read_exact(&mut head).await?;
                    let [a, b, c, kind, flags, s, t, u, v] = head;
                    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
                    let mut payload = vec![0; length];
                    tcp.read_exact(&mut payload).await?;
                    let id = [s, t, u, v];
                    match (kind, flags & ACK_OR_END) {
                        (SETTINGS, 0) => tcp.write_all(&[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0]).await?,
                        (HEADERS, _) if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
                            let refused = match how {
                                Refuse::Stream => {
                                    [&[0, 0, 4, RST_STREAM, 0], &id[..], &[0, 0, 0, 7]].concat()
                                }
                                // The last one looked at was number 0, and there is no error.
                                Refuse::Connection => [&[0, 0, 8, GOAWAY, 0][..], &[0; 12]].concat(),
                            };
                            tcp.write_all(&refused).await?;
                        }
                        // `:status: 200` of the static table, and the end of headers and stream.
                        (HEADERS, _) => {
                            tcp.write_all(&[&[0, 0, 1, HEADERS, 5], &id[..], &[0x88]].concat()).await?;
                        }
                        _ => {}
                    }
                }
                #[expect(unreachable_code, reason = "names the type of the errors")]
                Ok::<_, std::io::Error>(())
            });
        }
    });
    (address, asked)
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK_OR_END: u8 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_upstream_did_not_look_at_is_sent_again_once_whatever_it_is() {
    for how in [Refuse::Stream, Refuse::Connection] {
        let ca = Authority::new();
        let (address, asked) = refusing_once(how).await;
        let edge = started("http", address, &ca, "upstream_protocol = \"http2\"").await;
        let agent = Agent::provision(&edge, &["echo:write"]).await;
        let mandate = agent.mint(&edge, &["echo:write"]).await;
        let request = edge.http.post(format!("{}/write/a", edge.gateway()));
        let request = request.header("x-caracal-resource", ECHO).bearer_auth(mandate).body("twelve bytes");
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let lines = edge.ledger_with("gateway_resource_request", 1).await;
        let result = lines.iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap();
        assert_eq!(result["metadata_json"]["request_bytes"], 12, "what is sent twice came once");
    }
}
