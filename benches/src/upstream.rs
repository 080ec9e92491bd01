//! The upstream of the load scenarios: a fixed answer of 66 bytes, as cheap as it can be, and on one path the first
//! event of a stream that stays open.

use std::net::{SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// 66 bytes of body.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 66\r\n\r\n\
    {\"ok\":true,\"padding\":\"012345678901234567890123456789012345678901\"}";

/// Where the answer is an event stream of one event and no end.
pub const STREAM_PATH: &str = "/read/stream";

const FIRST_EVENT: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
    b\r\ndata: one\n\n\r\n";

/// Serves on a free port, on a thread of its own, until the process ends. Requests must have no body.
///
/// # Errors
/// No port or no thread.
pub fn start() -> anyhow::Result<SocketAddr> {
    serving(serve)
}

/// Serves connections in this way, on a free port, on a thread of its own, until the process ends.
pub(crate) fn serving<F>(serve: fn(TcpStream) -> F) -> anyhow::Result<SocketAddr>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("upstream".into()).spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    })?;
    Ok(address)
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8_192);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        // A proxy sends one request at a time on a connection.
        if buffer.ends_with(b"\r\n\r\n") {
            let streams = buffer.windows(STREAM_PATH.len()).any(|part| part == STREAM_PATH.as_bytes());
            stream.write_all(if streams { FIRST_EVENT } else { ANSWER }).await?;
            buffer.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_body_has_the_length_its_head_says() {
        let at = super::ANSWER.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        assert_eq!(super::ANSWER.len() - at - 4, 66);
    }
}
