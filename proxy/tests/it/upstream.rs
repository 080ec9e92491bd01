//! An upstream that keeps the exact bytes it received and misbehaves on request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request as it arrived on the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// All values of a header, in order.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// A plain HTTP/1.1 server on a free port.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let accepting = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().last().cloned().expect("the upstream was called")
    }

    pub fn count(&self) -> usize {
        self.seen.lock().len()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(head) = read_head(&mut stream, &mut buffer).await {
            let body = read_body(&mut stream, &mut buffer, &head).await;
            let seen = Seen { head, body };
            let path = seen.line().split(' ').nth(1).unwrap_or_default().to_owned();
            self.seen.lock().push(seen.clone());
            if !answer(&mut stream, &path, &seen).await {
                return;
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, path: &str, seen: &Seen) -> bool {
    let key = seen.header("x-api-key").first().copied().unwrap_or_default().to_owned();
    let path = path.split('?').next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let text = match name {
        "reset" => return false,
        "slow" => {
            std::future::pending::<()>().await;
            return false;
        }
        "stale" if seen.header("authorization").iter().any(|value| value.contains("at-1-")) => {
            respond(401, "", "expired")
        }
        "never" => respond(401, "", "no"),
        "long" => respond(200, "", &"x".repeat(70_000)),
        "redirect" => respond(302, "Location: http://evil.example/\r\n", ""),
        "relative" => respond(302, "Location: /next\r\nServer: secret-stack\r\n", ""),
        "cookie" => respond(200, "Set-Cookie: session=derived\r\nSet-Cookie: theme=dark\r\n", "ok"),
        "leak" => respond(200, &format!("X-Echo: {key}\r\nX-Encoded: key={}\r\n", hex(&key)), "ok"),
        "mirror" => {
            let sent = seen.header("authorization").concat();
            let bare = sent.rsplit(' ').next().unwrap_or_default().to_owned();
            respond(
                200,
                &format!("X-Seen: {sent}\r\n"),
                &format!("{{\"seen\":\"{bare}\",\"hex\":\"{}\"}}", hex(&bare)),
            )
        }
        "sse" => {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            if stream.write_all(head.as_bytes()).await.is_err() {
                return false;
            }
            if stream.write_all(b"b\r\ndata: one\n\n\r\n").await.is_err() {
                return false;
            }
            // Stays open and silent until the other side goes away.
            let mut byte = [0];
            drop(stream.read(&mut byte).await);
            return false;
        }
        "part" => {
            // Less than was promised, and then silence.
            let part = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(60_000));
            if stream.write_all(part.as_bytes()).await.is_err() {
                return false;
            }
            let mut byte = [0];
            drop(stream.read(&mut byte).await);
            return false;
        }
        _ => respond(200, "", &format!("hello {}", seen.line())),
    };
    stream.write_all(text.as_bytes()).await.is_ok()
}

pub fn respond(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

pub async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            let head = String::from_utf8_lossy(buffer).into_owned();
            *buffer = rest;
            return Some(head);
        }
        more(stream, buffer).await?;
    }
}

pub async fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &str) -> Vec<u8> {
    let lower = head.to_ascii_lowercase();
    if lower.contains("transfer-encoding: chunked") {
        while !buffer.windows(5).any(|window| window == b"0\r\n\r\n") {
            if more(stream, buffer).await.is_none() {
                break;
            }
        }
        return std::mem::take(buffer);
    }
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    while buffer.len() < length {
        if more(stream, buffer).await.is_none() {
            break;
        }
    }
    let rest = buffer.split_off(length.min(buffer.len()));
    std::mem::replace(buffer, rest)
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = vec![0; 16 * 1024];
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut chunk)).await;
    match read {
        Ok(Ok(count)) if count > 0 => {
            buffer.extend_from_slice(&chunk[..count]);
            Some(())
        }
        _ => None,
    }
}
