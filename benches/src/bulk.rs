//! The stream scenarios' upstream, and the clients that read from it: ten MiB either way, and events that carry the
//! moment they were written at.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http1::{field, head};

/// Bytes of a large body: as many as the edge takes by default.
pub const LARGE: usize = 10 * 1_024 * 1_024;
/// Events of one stream.
pub const EVENTS: usize = 100;
/// Between two events of a stream.
const PAUSE: Duration = Duration::from_millis(5);

/// Where `GET` answers with [`LARGE`] bytes.
pub const DOWNLOAD: &str = "/read/large";
/// Where `POST` takes a body.
pub const UPLOAD: &str = "/write/large";
/// Where `GET` answers with [`EVENTS`] events.
pub const STREAM: &str = "/read/events";

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// What large bodies are made of, [`PIECES`] times.
static PIECE: [u8; 65_536] = [b'x'; 65_536];
const PIECES: usize = LARGE / 65_536;

/// Since this process began to look, for writer and reader alike.
fn now() -> Duration {
    BEGAN.elapsed()
}

/// Serves on a free port, on a thread of its own, until the process ends.
///
/// # Errors
/// No port or no thread.
pub fn start() -> anyhow::Result<SocketAddr> {
    crate::upstream::serving(serve)
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(65_536);
    loop {
        let Some((head, rest)) = head(&mut stream, &mut buffer).await? else { return Ok(()) };
        if head.starts_with(&format!("GET {STREAM} ")) {
            events(&mut stream).await?;
        } else if head.starts_with(&format!("GET {DOWNLOAD} ")) {
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n").as_bytes())
                .await?;
            send_large(&mut stream).await?;
        } else {
            let length: usize = field(&head, "content-length").context("a body of known length")?.parse()?;
            skip(&mut stream, length.saturating_sub(rest)).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
}

async fn events(stream: &mut TcpStream) -> anyhow::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..EVENTS {
        tokio::time::sleep(PAUSE).await;
        let event = format!("data: {:020}\n\n", now().as_nanos());
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
    }
    Ok(stream.write_all(b"0\r\n\r\n").await?)
}

async fn send_large(stream: &mut TcpStream) -> anyhow::Result<()> {
    for _ in 0..PIECES {
        stream.write_all(&PIECE).await?;
    }
    Ok(())
}

/// Reads this many bytes and forgets them.
async fn skip(stream: &mut TcpStream, mut bytes: usize) -> anyhow::Result<()> {
    let mut piece = vec![0; 65_536];
    while bytes > 0 {
        let read = stream.read(&mut piece).await?;
        ensure!(read > 0, "the other side ended {bytes} bytes early");
        bytes = bytes.saturating_sub(read);
    }
    Ok(())
}

/// Sends this request and reads the [`LARGE`] bytes of its answer.
///
/// # Errors
/// The answer is another one, or ends early.
pub async fn download(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<()> {
    stream.write_all(request).await?;
    let mut buffer = Vec::with_capacity(65_536);
    let (head, rest) = head(stream, &mut buffer).await?.context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length: usize = field(&head, "content-length").context("no length")?.parse()?;
    ensure!(length == LARGE, "{length} bytes");
    skip(stream, length.saturating_sub(rest)).await
}

/// Sends this head and [`LARGE`] bytes, and reads the answer.
///
/// # Errors
/// The answer is no success.
pub async fn upload(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<()> {
    stream.write_all(request).await?;
    send_large(stream).await?;
    let mut buffer = Vec::new();
    let (head, rest) = head(stream, &mut buffer).await?.context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    skip(stream, 2_usize.saturating_sub(rest)).await
}

/// Sends this request and says how long after it was written each event of the answer was here.
///
/// # Errors
/// The answer is no such stream, or ends early.
pub async fn delays(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<Vec<Duration>> {
    stream.write_all(request).await?;
    let mut delays = Vec::with_capacity(EVENTS);
    let mut unread = Vec::with_capacity(4_096);
    while delays.len() < EVENTS || !unread.ends_with(b"\r\n0\r\n\r\n") {
        ensure!(stream.read_buf(&mut unread).await? > 0, "the stream ended after {} events", delays.len());
        let here = now();
        while let Some(at) = unread.windows(2).position(|two| two == b"\n\n") {
            let text = std::str::from_utf8(unread.get(..at).unwrap_or_default())?;
            let (_, written) = text.rsplit_once("data: ").with_context(|| format!("no event in {text}"))?;
            delays.push(here.saturating_sub(Duration::from_nanos(written.parse()?)));
            unread.drain(..at.saturating_add(2));
        }
    }
    Ok(delays)
}
