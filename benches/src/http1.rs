//! Just enough of HTTP/1.1 to put load on a server: prepared requests, kept-alive connections, sized answers.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A kept-alive connection that sends one request at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its whole body.
    pub body: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4_096) })
    }

    /// Sends a prepared request and reads the whole answer.
    ///
    /// # Errors
    /// The connection ends early, or the answer has no `Content-Length`.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<Reply> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                return self.finish(at.saturating_add(4)).await;
            }
        }
    }

    async fn finish(&mut self, body_at: usize) -> anyhow::Result<Reply> {
        let head = std::str::from_utf8(self.buffer.get(..body_at).unwrap_or_default())?;
        let status: u16 = head.get(9..12).context("no status")?.parse()?;
        let length = match field(head, "content-length") {
            Some(length) => length.parse::<usize>()?,
            None if status == 204 => 0,
            None => bail!("an answer of unknown length: {head}"),
        };
        let end = body_at.saturating_add(length);
        while self.buffer.len() < end {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection in the middle of an answer");
        }
        Ok(Reply { status, body: self.buffer.get(body_at..end).unwrap_or_default().to_vec() })
    }
}

/// An answer that has begun and is not over.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl Stream {
    /// Sends a prepared request on a connection of its own and waits for the head and the first event.
    ///
    /// # Errors
    /// The answer is no success, or ends before its first event.
    pub async fn open(address: SocketAddr, request: &[u8]) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut buffer = Vec::new();
        while !buffer.windows(5).any(|five| five == b"data:") {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the stream ended before its first event");
        }
        let head = String::from_utf8_lossy(&buffer).into_owned();
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        Ok(Self(stream))
    }

    /// Waits until the connection is over, however it ends.
    ///
    /// # Errors
    /// More than a last word of 64 KiB came.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let mut last = Vec::new();
        while matches!(self.0.read_buf(&mut last).await, Ok(1..)) {
            ensure!(last.len() < 65_536, "the stream goes on");
        }
        Ok(())
    }
}

/// Reads the head of a message, and how many bytes of its body came with it; `None` when the other side is done.
///
/// # Errors
/// It ends in the middle, or is no text.
pub(crate) async fn head(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> anyhow::Result<Option<(String, usize)>> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            ensure!(buffer.is_empty(), "the connection ended in the middle of a head");
            return Ok(None);
        }
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let (head, rest) = buffer.split_at(at.saturating_add(4));
            return Ok(Some((std::str::from_utf8(head)?.to_owned(), rest.len())));
        }
    }
}

pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// A `GET`.
#[must_use]
pub fn get(host: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\naccept: */*\r\n{fields}\r\n")
        .into_bytes()
}

/// The head of a `POST` with a body of this many bytes.
#[must_use]
pub fn post_head(host: &str, path: &str, length: usize, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{fields}\r\n").into_bytes()
}

/// A request without a body, with a bearer.
#[must_use]
pub fn with_bearer(method: &str, host: SocketAddr, path: &str, bearer: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {bearer}\r\n\r\n").into_bytes()
}

/// A `POST` of JSON with a bearer.
#[must_use]
pub fn post_json(host: SocketAddr, path: &str, bearer: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {bearer}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A `POST` of a form.
#[must_use]
pub fn post_form(host: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let body = pairs.join("&");
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
