//! A token endpoint on loopback that checks what it is shown, and misbehaves on request.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::upstream::{Seen, read_body, read_head, respond};

/// The client that is known, and the secret it starts with.
pub const CLIENT: &str = "edge client";
pub const CLIENT_SECRET: &str = "cs-canary:+%/9d2f 6b1e";

/// How the next requests are answered.
#[derive(Clone)]
pub enum Mode {
    /// As RFC 6749 says, with these members beside the token.
    Good(&'static str),
    /// With this, whatever was asked.
    Raw(String),
    /// Not at all.
    Silent,
    /// As `Good`, but each answer waits for a permit.
    Gated(Arc<Semaphore>),
}

#[derive(Clone)]
pub struct TokenServer {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    mode: Arc<Mutex<Mode>>,
    secret: Arc<Mutex<String>>,
    /// What the metadata says: issuer and token endpoint.
    pub metadata: Arc<Mutex<(String, String)>>,
}

pub const LIFE: &str = r#""token_type":"bEaReR","expires_in":3600"#;

impl TokenServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let base = format!("http://{address}");
        let server = Self {
            address,
            seen: Arc::default(),
            mode: Arc::new(Mutex::new(Mode::Good(LIFE))),
            secret: Arc::new(Mutex::new(CLIENT_SECRET.to_owned())),
            metadata: Arc::new(Mutex::new((base.clone(), format!("{base}/oauth/token")))),
        };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}/oauth/token", self.address)
    }

    pub fn answer(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    pub fn rotate(&self, secret: &str) {
        secret.clone_into(&mut self.secret.lock());
    }

    /// Requests for a token.
    pub fn asked(&self) -> Vec<Seen> {
        self.seen.lock().iter().filter(|seen| seen.line().starts_with("POST ")).cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.asked().len()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(head) = read_head(&mut stream, &mut buffer).await {
            let body = read_body(&mut stream, &mut buffer, &head).await;
            let seen = Seen { head, body };
            self.seen.lock().push(seen.clone());
            let mode = self.mode.lock().clone();
            let text = match mode {
                Mode::Silent => std::future::pending().await,
                Mode::Raw(text) => text,
                Mode::Good(members) => self.good(&seen, members),
                Mode::Gated(gate) => {
                    gate.acquire().await.unwrap().forget();
                    self.good(&seen, LIFE)
                }
            };
            if stream.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn good(&self, seen: &Seen, members: &str) -> String {
        if seen.line().starts_with("GET /.well-known/openid-configuration ") {
            let (issuer, endpoint) = self.metadata.lock().clone();
            return respond(200, "", &format!(r#"{{"issuer":"{issuer}","token_endpoint":"{endpoint}"}}"#));
        }
        if !seen.line().starts_with("POST /oauth/token ") {
            return respond(404, "", "");
        }
        let form = form(&seen.body);
        let value = |name: &str| form.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        let basic =
            seen.header("authorization").first().and_then(|value| value.strip_prefix("Basic ")).map(|text| {
                let pair = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
                let (id, secret) = pair.split_once(':').unwrap();
                (decoded(id), decoded(secret))
            });
        let posted = value("client_id").zip(value("client_secret"));
        let signed = value("client_assertion").or_else(|| value("assertion")).is_some();
        let secret = self.secret.lock().clone();
        if !signed && basic.or(posted) != Some((CLIENT.to_owned(), secret)) {
            return respond(401, "", r#"{"error":"invalid_client","error_description":"cs-canary"}"#);
        }
        let number = self.count();
        respond(200, "", &format!(r#"{{"access_token":"at-{number}-{}",{members}}}"#, "t".repeat(24)))
    }
}

/// The fields of a form, decoded.
pub fn form(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned()
}
