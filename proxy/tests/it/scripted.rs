//! An upstream that answers exactly what a test wrote, byte for byte, one connection at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::edge::Edge;

/// What is done with the n-th request of a connection, counted from 0: bytes to answer, or `None` to close.
pub type Script = dyn Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync;

/// A running scripted upstream.
pub struct Scripted {
    pub address: SocketAddr,
    heads: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Scripted {
    pub async fn start(script: impl Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let script: Arc<Script> = Arc::new(script);
        let (seen, opened) = (Arc::clone(&heads), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { address, heads, connections }
    }

    /// Starts one and points the edge's echo resource at it.
    pub async fn behind(
        edge: &mut Edge,
        script: impl Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let scripted = Self::start(script).await;
        edge.upstream.address = scripted.address;
        edge.write_files();
        if edge.running.is_some() {
            edge.running().app.reloader.reload().await;
        }
        scripted
    }

    /// Request heads that arrived.
    pub fn heads(&self) -> usize {
        self.heads.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, heads: Arc<AtomicUsize>) {
    let mut buffer = Vec::new();
    for at in 0.. {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        heads.fetch_add(1, Ordering::SeqCst);
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        buffer.drain(..end);
        while buffer.len() < length.unwrap_or(0) {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        buffer.drain(..length.unwrap_or(0));
        let Some(answer) = script(at, &head) else { return };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}
