use axum::Router;
use axum::extract::Request as Received;
use axum::routing::any;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

fn get(url: &str) -> Request<Full<Bytes>> {
    Request::get(url).body(Full::default()).unwrap()
}

async fn plain() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = any(|request: Received| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        format!("{} {} for {host}", request.method(), request.uri())
    });
    tokio::spawn(axum::serve(listener, Router::new().fallback(told)).into_future());
    format!("http://{address}")
}

#[tokio::test]
async fn a_request_arrives_in_origin_form_with_its_host() {
    let base = plain().await;
    let answer = Client::new(None).send(get(&format!("{base}/a%2Fb?c=d"))).await.unwrap();
    let host = base.trim_start_matches("http://");
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, format!("GET /a%2Fb?c=d for {host}"));
}

#[tokio::test]
async fn an_address_nobody_listens_on_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = Client::new(None).send(get(&format!("http://{address}/?token=t"))).await.unwrap_err();
    assert_eq!(error.to_string(), format!("`{address}` cannot be reached"));
}

#[tokio::test]
async fn other_schemes_are_refused_and_no_query_is_repeated() {
    for url in ["ftp://host/x?secret=s", "/only/a/path?secret=s"] {
        let error = Client::new(None).send(get(url)).await.unwrap_err().to_string();
        assert!(error.contains("not an http or https URL") && !error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn tls_answers_are_read_when_the_authority_is_trusted_and_not_otherwise() {
    crate::cli::tests::crypto();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut seen = [0; 1024];
            let _read = stream.read(&mut seen).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    std::fs::write(&ours, cert.pem()).unwrap();
    std::fs::write(&other, generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem())
        .unwrap();

    let url = format!("https://localhost:{port}/");
    let refused = Client::new(Some(&other)).send(get(&url)).await.unwrap_err();
    assert!(matches!(refused, HttpError::Connect(..)), "{refused}");
    assert_eq!(Client::new(Some(&ours)).send(get(&url)).await.unwrap().status, StatusCode::NO_CONTENT);
}
