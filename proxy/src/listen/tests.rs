use std::fs;

use axum::routing::{get, post};
use http::StatusCode;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;

struct Served {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

async fn serving(router: Router, tls: Option<Arc<ReloadingTls>>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(Bounds::default(), listener, tls, dress(router), stopped));
    Served { address, stop, task }
}

async fn handler_that_panics() -> &'static str {
    panic!("on purpose")
}

#[tokio::test]
async fn ids_are_echoed_when_usable_and_made_otherwise() {
    let served = serving(Router::new().route("/", get(|| async { "ok" })), None).await;
    let client = reqwest::Client::new();
    let url = format!("http://{}/", served.address);
    let answer = client.get(&url).header("X-Request-Id", "mine/1").send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "mine/1");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    for bad in ["has space", &"x".repeat(129), ""] {
        let answer = client.get(&url).header("X-Request-Id", bad).send().await.unwrap();
        assert_eq!(answer.headers()["x-request-id"].len(), 36, "{bad}");
    }
    let twice =
        client.get(&url).header("X-Request-Id", "a").header("X-Request-Id", "b").send().await.unwrap();
    assert_eq!(twice.headers()["x-request-id"].len(), 36);
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_connection_lives_on() {
    let router = Router::new().route("/", get(handler_that_panics)).route("/ok", get(|| async { "ok" }));
    let served = serving(router, None).await;
    let client = reqwest::Client::new();
    let answer = client.get(format!("http://{}/", served.address)).send().await.unwrap();
    assert_eq!(answer.status(), 500);
    assert!(answer.headers().contains_key("x-request-id"));
    assert_eq!(answer.text().await.unwrap(), r#"{"error":"internal_error"}"#);
    assert_eq!(client.get(format!("http://{}/ok", served.address)).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn stopping_finishes_what_runs_and_accepts_no_more() {
    let (entered, mut inside) = tokio::sync::mpsc::channel::<()>(1);
    let (release, gate) = watch::channel(false);
    let handler = move || {
        let (entered, mut gate) = (entered.clone(), gate.clone());
        async move {
            entered.send(()).await.unwrap();
            gate.wait_for(|open| *open).await.unwrap();
            "finished"
        }
    };
    let served = serving(Router::new().route("/", get(handler)), None).await;
    let url = format!("http://{}/", served.address);
    let call = tokio::spawn(async move { reqwest::get(url).await.unwrap().text().await.unwrap() });
    inside.recv().await.unwrap();
    served.stop.send(true).unwrap();
    release.send(true).unwrap();
    assert_eq!(call.await.unwrap(), "finished");
    served.task.await.unwrap().unwrap();
    TcpStream::connect(served.address).await.unwrap_err();
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let served = serving(Router::new().route("/", get(|| async { "ok" })), None).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n",
        "a".repeat(2 * Bounds::default().head_bytes)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer[..], b"HTTP/1.1 431");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let handler = |request: axum::extract::Request| async move {
        match read_body(request.into_body(), 8).await {
            Ok(bytes) => (StatusCode::OK, bytes.len().to_string()),
            Err(problem) => (StatusCode::PAYLOAD_TOO_LARGE, format!("{problem:?}")),
        }
    };
    let served = serving(Router::new().route("/", post(handler)), None).await;
    let client = reqwest::Client::new();
    let url = format!("http://{}/", served.address);
    assert_eq!(client.post(&url).body("12345678").send().await.unwrap().text().await.unwrap(), "8");
    assert_eq!(client.post(&url).body("123456789").send().await.unwrap().text().await.unwrap(), "TooLarge");
}

struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
    key: String,
}

fn certificate(name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    Certificate { der: made.cert.der().clone(), pem: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

/// Connects trusting only `trusted`; the body of `GET /`.
async fn over_tls(address: SocketAddr, trusted: &Certificate) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_certificate_is_replaced_in_place_and_a_bad_one_is_not() {
    let folder = TempDir::new().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (first, second) = (certificate("localhost"), certificate("localhost"));
    let write = |pem: &str, private: &str| {
        fs::write(&cert, pem).unwrap();
        fs::write(&key, private).unwrap();
    };
    write(&first.pem, &first.key);
    let tls = ReloadingTls::open(&cert, &key).unwrap();
    let served =
        serving(Router::new().route("/", get(|| async { "over tls" })), Some(Arc::clone(&tls))).await;
    assert!(over_tls(served.address, &first).await.unwrap().ends_with("over tls"));

    write(&second.pem, &first.key);
    assert!(matches!(tls.reload(), Err(TlsProblem::Mismatch { .. })));
    write("", &first.key);
    tls.reload().unwrap_err();
    over_tls(served.address, &first).await.unwrap();

    write(&second.pem, &second.key);
    assert!(tls.reload().unwrap());
    assert!(!tls.reload().unwrap());
    over_tls(served.address, &second).await.unwrap();
    over_tls(served.address, &first).await.unwrap_err();
    assert!(!format!("{tls:?}").contains("PRIVATE"));
}
