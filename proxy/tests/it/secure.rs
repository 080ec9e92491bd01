//! The gateway over TLS, spoken to in HTTP/2.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::edge::{Edge, Plan};

/// An edge whose gateway speaks TLS as `localhost`, with everything else as in `plan`.
pub async fn start(plan: Plan) -> Edge {
    let mut edge = Edge::prepared(plan).await;
    boot(&mut edge).await;
    edge
}

/// Starts an edge whose files are written, with TLS at its gateway.
pub async fn boot(edge: &mut Edge) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(edge.path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(edge.path("cert.der"), made.cert.der()).unwrap();
    crate::edge::write_private(&edge.path("key.pem"), &made.signing_key.serialize_pem());
    edge.plan.config += "\n[listeners.gateway]\naddress = \"127.0.0.1:8081\"\ntls = { cert = \"cert.pem\", key = \"key.pem\" }\n";
    edge.boot(caracal::serve::ServeOptions::default()).await.unwrap();
}

/// An HTTP/2 connection to the gateway.
pub async fn connect(edge: &Edge) -> SendRequest<Full<Bytes>> {
    let mut roots = RootCertStore::empty();
    roots.add(std::fs::read(edge.path("cert.der")).unwrap().into()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(edge.running().addresses.gateway).await.unwrap();
    let tls =
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One exchange: status, headers and body of the answer.
pub async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> (http::response::Parts, Bytes) {
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    (head, body.collect().await.unwrap().to_bytes())
}

/// A request to the echo resource in header mode.
pub fn request(method: &str, path: &str, mandate: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"))
        .header("x-caracal-resource", crate::edge::ECHO)
        .header("authorization", format!("Bearer {mandate}"))
}

pub fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}
