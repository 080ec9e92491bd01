//! An identity provider for tests: keys of every kind, and a key set that can change, fail or keep one waiting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair,
};
use axum::Router;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::listen::{Bounds, ReloadingTls};

/// What the key set's URL answers.
#[derive(Clone)]
pub(super) enum Answer {
    Document(String),
    Status(u16),
    Redirect(String),
    /// Never.
    Nothing,
}

pub(super) struct Issuer {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    _stop: tokio::sync::watch::Sender<bool>,
}

struct State {
    answer: Mutex<Answer>,
    fetches: AtomicUsize,
    /// Requests wait here while it is held.
    gate: tokio::sync::Mutex<()>,
}

impl Issuer {
    pub(super) async fn start() -> Self {
        Self::serve(None).await
    }

    pub(super) async fn serve(tls: Option<Arc<ReloadingTls>>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answer: Mutex::new(Answer::Status(404)),
            fetches: AtomicUsize::new(0),
            gate: tokio::sync::Mutex::new(()),
        });
        let answering = Arc::clone(&state);
        let router = Router::new().fallback(move || answer(Arc::clone(&answering)));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let scheme = if tls.is_some() { "https" } else { "http" };
        tokio::spawn(crate::listen::serve(Bounds::default(), listener, tls, router, stopped));
        Self { address, scheme, state, _stop: stop }
    }

    pub(super) fn name(&self) -> String {
        format!("https://id.example/{}", self.address.port())
    }

    pub(super) fn jwks_url(&self) -> String {
        format!("{}://{}/keys", self.scheme, self.address)
    }

    pub(super) fn publish(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.public()).collect();
        self.answer(Answer::Document(json!({ "keys": keys }).to_string()));
    }

    pub(super) fn answer(&self, answer: Answer) {
        *self.state.answer.lock() = answer;
    }

    pub(super) fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    /// Keeps fetches waiting until the guard is dropped.
    pub(super) async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.state.gate.lock().await
    }
}

async fn answer(state: Arc<State>) -> Response {
    state.fetches.fetch_add(1, Ordering::SeqCst);
    drop(state.gate.lock().await);
    let answer = state.answer.lock().clone();
    match answer {
        Answer::Document(text) => ([("content-type", "application/json")], text).into_response(),
        Answer::Status(status) => http::StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Redirect(to) => (http::StatusCode::FOUND, [("location", to)]).into_response(),
        Answer::Nothing => std::future::pending().await,
    }
}

/// A signing key of the issuer.
pub(super) struct Key {
    pub(super) kid: String,
    pub(super) algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Curve(EcdsaKeyPair),
}

impl Key {
    pub(super) fn new(kid: &str, algorithm: &'static str) -> Self {
        let curve = |kind| Pair::Curve(EcdsaKeyPair::generate(kind).unwrap());
        let pair = match algorithm {
            "ES256" => curve(&ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => curve(&ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => curve(&ECDSA_P521_SHA512_FIXED_SIGNING),
            _ => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        };
        Self { kid: kid.to_owned(), algorithm, pair }
    }

    pub(super) fn public(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({
                    "kty": "RSA", "kid": self.kid, "use": "sig",
                    "n": encoded(n.big_endian_without_leading_zero()),
                    "e": encoded(e.big_endian_without_leading_zero()),
                })
            }
            Pair::Curve(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match x.len() {
                    32 => "P-256",
                    48 => "P-384",
                    _ => "P-521",
                };
                json!({ "kty": "EC", "crv": curve, "kid": self.kid, "x": encoded(x), "y": encoded(y) })
            }
        }
    }

    /// A token over these claims, with the usual header.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.kid }), claims)
    }

    pub(super) fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    pub(super) fn token_of(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Curve(pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding = match self.algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{signed}.{}", encoded(signature))
    }
}

pub(super) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
