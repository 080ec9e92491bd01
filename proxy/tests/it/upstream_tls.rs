//! TLS to upstreams: whom the edge believes, what it proves itself with, and which connections are shared.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use caracal::serve::{ServeError, ServeOptions};
use caracal_plugins::Registry;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SerialNumber};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::edge::{
    APP, CANARY, ECHO, Edge, Plan, ZONE, bootstrap, install_crypto, post, session, write_private,
};

const CA: &str = "[egress.authorities]\ninternal = \"internal-ca.pem\"\n";

/// A certificate authority of a test.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Every certificate has the same serial number.
    pub fn issue(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(7_u64));
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { chain, key: key.serialize_pem() }
    }
}

impl Pair {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }

    /// The members of `tls` that show this certificate, with the key under `secret://tls/<name>`.
    fn members(&self, name: &str) -> String {
        format!("client_certificate = '''\n{}''', client_key = \"secret://tls/{name}\"", self.chain)
    }
}

/// One request, and the connection it came on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    connection: usize,
    asked_for: Option<String>,
    shown: Option<Vec<u8>>,
}

/// An HTTPS server that keeps connections open.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `clients` are the authorities of client certificates it takes; with `must` it takes nobody without.
    async fn start(own: &Pair, clients: &[&Authority], must: bool) -> Self {
        install_crypto();
        let builder = rustls::ServerConfig::builder();
        let builder = if clients.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for authority in clients {
                roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
            let verifier = if must { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().unwrap())
        };
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![own.der()], key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, opened) = (Arc::clone(&server.seen), Arc::<AtomicUsize>::default());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(acceptor.clone(), stream, connection, Arc::clone(&seen)));
            }
        });
        server
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, connection: usize, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(mut tls) = acceptor.accept(stream).await else { return };
    let (_, state) = tls.get_ref();
    let asked_for = state.server_name().map(str::to_owned);
    let shown = state.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    let mut buffer = Vec::new();
    loop {
        while !buffer.windows(4).any(|window| window == b"\r\n\r\n") {
            if tls.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let upgrade = String::from_utf8_lossy(&buffer).to_ascii_lowercase().contains("\r\nupgrade: ");
        buffer.clear();
        seen.lock().push(Seen { connection, asked_for: asked_for.clone(), shown: shown.clone() });
        if upgrade {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            tls.write_all(head.as_bytes()).await.ok();
            let (mut from, mut to) = tokio::io::split(tls);
            tokio::io::copy(&mut from, &mut to).await.ok();
            return;
        }
        if tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// An edge whose echo resource is at `server` and says `tls` about it.
async fn prepared(server: &Server, config: &str, ca: &Authority, tls: &str, zone: &str) -> Edge {
    let resource = if tls.is_empty() { String::new() } else { format!("tls = {{ {tls} }}") };
    let zone = zone.replace("UPSTREAM", &server.address.to_string());
    let mut edge =
        Edge::prepared(Plan { config: config.to_owned(), resource, zone, ..Plan::default() }).await;
    let url = edge.upstream.url();
    edge.upstream.address = server.address;
    let text = edge.bundle_text().replace(&edge.upstream.url(), &format!("https://{}", server.address));
    assert!(!text.contains(&url));
    std::fs::write(edge.bundle(), text).unwrap();
    std::fs::write(edge.path("internal-ca.pem"), &ca.pem).unwrap();
    edge
}

/// The API key, and the keys of client certificates.
pub fn secrets(edge: &Edge, more_hosts: &str, keys: &[(&str, &Pair)]) {
    let hosts = format!("[\"{}\"{more_hosts}]", edge.upstream.address);
    let lines = keys.iter().map(|(name, pair)| format!("{name} = '''\n{}'''\n", pair.key));
    let text = format!(
        "schema = 1\n[secrets.echo]\nzones = [\"{ZONE}\"]\nhosts = {hosts}\napi_key = \"{CANARY}\"\n[secrets.tls]\nzones = [\"{ZONE}\"]\nhosts = {hosts}\nnone = \"none\"\n{}",
        lines.collect::<String>()
    );
    write_private(&edge.path("secrets.toml"), &text);
}

/// One call of a resource.
async fn call(edge: &Edge, resource: &str) -> (u16, String) {
    let response = request(edge, resource).await.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// A request to a resource, with a delegation for it alone.
async fn request(edge: &Edge, resource: &str) -> reqwest::RequestBuilder {
    let bearer = bootstrap(edge).await;
    let source = session(edge, &bearer, json!({})).await.unwrap();
    let target = session(edge, &bearer, json!({})).await.unwrap();
    let delegation = json!({
        "issuer_application_id": APP, "receiver_application_id": APP,
        "source_session_id": source, "target_session_id": target,
        "constraints": { "resources": [resource] }, "scopes": ["echo:read"], "ttl_seconds": 1020,
    });
    let (_, body) = post(edge, &bearer, "/delegations", delegation).await.unwrap();
    let delegation = body["delegation_edge_id"].as_str().unwrap();
    let fields = [
        ("resource", resource),
        ("scope", "echo:read"),
        ("agent_session_id", target.as_str()),
        ("delegation_edge_id", delegation),
    ];
    let (status, body) = edge.try_token(&fields).await.unwrap();
    assert_eq!(status, 200, "{body}");
    edge.http
        .get(format!("{}/read/a", edge.gateway()))
        .header("x-caracal-resource", resource)
        .bearer_auth(body["access_token"].as_str().unwrap())
}

fn untrusted((status, body): (u16, String)) {
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("there is no TLS with the upstream"), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_is_believed_only_by_the_authorities_it_is_meant_to_have() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start(&ours.issue("127.0.0.1"), &[], false).await;
    for (tls, ca, good) in
        [("", &ours, false), ("ca = \"internal\"", &theirs, false), ("ca = \"internal\"", &ours, true)]
    {
        let mut edge = prepared(&server, CA, ca, tls, "").await;
        secrets(&edge, "", &[]);
        edge.boot(ServeOptions::default()).await.unwrap();
        let answer = call(&edge, ECHO).await;
        if good {
            assert_eq!(answer, (200, "ok".to_owned()));
        } else {
            untrusted(answer);
            assert!(server.seen().is_empty(), "nothing was sent, the key least of all");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_is_secured_like_any_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start(&ours.issue("127.0.0.1"), &[], false).await;
    for (ca, status) in [(&theirs, 502), (&ours, 101)] {
        let mut edge = prepared(&server, CA, ca, "ca = \"internal\"", "").await;
        secrets(&edge, "", &[]);
        edge.boot(ServeOptions::default()).await.unwrap();
        let asked = request(&edge, ECHO).await.header("connection", "upgrade").header("upgrade", "websocket");
        let response = asked.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        if status == 101 {
            let mut stream = response.upgrade().await.unwrap();
            let mut heard = [0; 5];
            stream.write_all(b"hello").await.unwrap();
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");
        }
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_must_be_for_the_name_that_is_asked_for() {
    let ca = Authority::new();
    let server = Server::start(&ca.issue("other.test"), &[], false).await;
    let mut edge = prepared(&server, CA, &ca, "ca = \"internal\"", "").await;
    secrets(&edge, "", &[]);
    edge.boot(ServeOptions::default()).await.unwrap();
    untrusted(call(&edge, ECHO).await);
    assert!(server.seen().is_empty());

    let named = "ca = \"internal\", server_name = \"other.test\"";
    let mut edge = prepared(&server, CA, &ca, named, "").await;
    secrets(&edge, ", \"other.test\"", &[]);
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(call(&edge, ECHO).await.0, 200);
    assert_eq!(server.seen()[0].asked_for.as_deref(), Some("other.test"));
}

/// The name is the upstream's wherever it is served, and nobody is asked where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_must_have_the_upstreams_certificate() {
    let ca = Authority::new();
    let good = Server::start(&ca.issue("ledger.test"), &[], false).await;
    let wrong = Server::start(&ca.issue("127.0.0.1"), &[], false).await;
    let mut edge = prepared(&good, CA, &ca, "ca = \"internal\"", "").await;
    let text = std::fs::read_to_string(edge.bundle()).unwrap();
    let at = format!("https://ledger.test\"\ntargets = [\"{}\", \"{}\"]\n#\"", wrong.address, good.address);
    std::fs::write(edge.bundle(), text.replace(&format!("https://{}", good.address), &at)).unwrap();
    secrets(&edge, ", \"ledger.test\", \"127.0.0.1\"", &[]);
    edge.boot(ServeOptions::default()).await.unwrap();
    for _ in 0..6 {
        assert_eq!(call(&edge, ECHO).await.0, 200);
    }
    assert!(wrong.seen().is_empty());
    assert_eq!(good.seen().len(), 6);
    assert_eq!(good.seen()[0].asked_for.as_deref(), Some("ledger.test"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_wants_a_certificate_gets_the_resources_own() {
    let (ca, clients) = (Authority::new(), Authority::new());
    let server = Server::start(&ca.issue("127.0.0.1"), &[&clients], true).await;
    let own = clients.issue("edge.test");
    let tls = format!("ca = \"internal\", {}", own.members("edge"));
    let mut edge = prepared(&server, CA, &ca, &tls, "").await;
    secrets(&edge, "", &[("edge", &own)]);
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(call(&edge, ECHO).await, (200, "ok".to_owned()));
    assert_eq!(server.seen()[0].shown.as_deref(), Some(&*own.der()));

    let mut edge = prepared(&server, CA, &ca, "ca = \"internal\"", "").await;
    secrets(&edge, "", &[]);
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(call(&edge, ECHO).await.0, 502);
    assert_eq!(server.seen().len(), 1, "without it nothing comes through");
}

/// Four resources at one address: two with certificates of the same serial number, one with none, and one that does
/// not believe the server. Connections are kept, and nobody gets another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_shared_only_by_what_is_secured_alike() {
    let (ca, first, second) = (Authority::new(), Authority::new(), Authority::new());
    let server = Server::start(&ca.issue("127.0.0.1"), &[&first, &second], false).await;
    let (one, two) = (first.issue("edge.test"), second.issue("edge.test"));
    let resource = |name: &str, tls: &str| {
        format!(
            "[[resources]]\nidentifier = \"resource://{name}\"\nupstream_url = \"https://UPSTREAM\"\nscopes = [\"echo:read\"]\n\
             credential_provider = \"provider://echo\"\noperation_enforcement = \"transport_uniform\"\n{tls}\n\
             [grants.\"resource://{name}\"]\napplication = \"one\"\nroles = {{ {APP} = [\"echo:read\"] }}\n"
        )
    };
    let zone = [
        resource("two", &format!("tls = {{ ca = \"internal\", {} }}", two.members("two"))),
        resource("none", "tls = { ca = \"internal\" }"),
        resource("strict", ""),
    ];
    let tls = format!("ca = \"internal\", {}", one.members("one"));
    let mut edge = prepared(&server, CA, &ca, &tls, &zone.concat()).await;
    secrets(&edge, "", &[("one", &one), ("two", &two)]);
    edge.boot(ServeOptions::default()).await.unwrap();
    for _ in 0..2 {
        for name in [ECHO, "resource://two", "resource://none"] {
            assert_eq!(call(&edge, name).await.0, 200, "{name}");
        }
        untrusted(call(&edge, "resource://strict").await);
    }
    let seen = server.seen();
    let shown: Vec<_> = seen.iter().map(|one| one.shown.as_deref()).collect();
    let (one, two) = (one.der(), two.der());
    let expected = [Some(&*one), Some(&*two), None];
    assert_eq!(shown, [expected, expected].concat());
    for at in 0..3 {
        assert_eq!(seen[at].connection, seen[at + 3].connection, "connections are kept: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_secure_a_connection_is_said_at_load() {
    let ca = Authority::new();
    let server = Server::start(&ca.issue("127.0.0.1"), &[], false).await;
    let (own, other) = (ca.issue("edge.test"), ca.issue("edge.test"));
    let missing = "[egress.authorities]\ninternal = \"gone.pem\"\n";
    for (config, tls, expected) in [
        (CA, "ca = \"public\"".to_owned(), "tls_ca"),
        (CA, "server_name = \"other.test\"".to_owned(), "secret_host"),
        (CA, own.members("other"), "client_key"),
        (CA, own.members("gone"), "secret_key_unknown"),
        (missing, "ca = \"internal\"".to_owned(), "[egress.authorities] internal: `"),
    ] {
        let mut edge = prepared(&server, config, &ca, &tls, "").await;
        secrets(&edge, "", &[("own", &own), ("other", &other)]);
        let error = edge.boot(ServeOptions::default()).await.unwrap_err();
        assert!(matches!(error, ServeError::Configuration(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains(expected) && !error.contains("PRIVATE KEY"), "{tls}: {error}");
        let config = caracal::config::load(&edge.path("caracal.toml")).unwrap();
        let report = caracal::reload::check(&config, &Registry::stock()).unwrap_err();
        assert_eq!(report.problems.len(), 1, "`caracal check` says it too: {report}");
    }
}
