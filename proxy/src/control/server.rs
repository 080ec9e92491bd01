//! The serving side of the control socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ControlHandler, Failure, MAX_REQUEST_BYTES, Operator, Request, Response, folder_of};

/// A bound control socket that does not serve yet.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the control socket at `path` and serves it until `stop` turns true.
///
/// # Errors
/// When the socket cannot be bound; see [`ControlSocket::bind`].
pub async fn serve(
    path: &Path,
    handler: Arc<dyn ControlHandler>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    ControlSocket::bind(path)?.serve(handler, stop).await;
    Ok(())
}

impl ControlSocket {
    /// Binds the control socket: folder 0700, socket 0600.
    ///
    /// The caller holds the lock of the state folder, so a socket that is already there was left behind by a
    /// process that is gone, and is replaced. Anything else under that name is left alone.
    ///
    /// # Errors
    /// When the folder is not ours to close to others, the path is longer than a Unix socket allows, or
    /// something that is no socket is in the way.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let length = path.as_os_str().len();
        if length > MAX_PATH_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the control socket's path has {length} bytes and Unix allows {MAX_PATH_BYTES}: choose a shorter `state_dir`"
                ),
            ));
        }
        close_folder(path)?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves requests until `stop` turns true or its sender is gone, then removes the socket.
    ///
    /// Acts under way when it stops are finished, for at most [`HANDLER_LIMIT`].
    pub async fn serve(self, handler: Arc<dyn ControlHandler>, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Some(accepted) = self.next_peer(&mut stop).await else { break };
            let Ok(stream) = accepted else { continue };
            // Without a free place the connection is dropped: an operator's client then says so.
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let connection = converse(stream, Arc::clone(&handler), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
        }
        if timeout(HANDLER_LIMIT, connections.join_all()).await.is_err() {
            tracing::warn!("a control request was still running at the end");
        }
        self.remove();
    }

    /// The next connection, or none once the process stops.
    async fn next_peer(&self, stop: &mut watch::Receiver<bool>) -> Option<io::Result<UnixStream>> {
        let accepted = tokio::select! {
            () = stopping(stop) => return None,
            accepted = self.listener.accept() => accepted,
        };
        if let Err(error) = &accepted {
            tracing::warn!(%error, "the control socket could not accept a connection");
            // Out of descriptors: trying again at once would spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(accepted.map(|(stream, _)| stream))
    }

    fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "the control socket could not be removed");
        }
    }
}

/// Waits until the process stops; a sender that is gone means the same.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stopping| *stopping).await);
}

/// Serves one connection: requests one after the other, until the peer leaves or misbehaves.
async fn converse(stream: UnixStream, handler: Arc<dyn ControlHandler>, mut stop: watch::Receiver<bool>) {
    let peer = operator(&stream);
    let (read, mut write) = stream.into_split();
    let operator = match peer {
        Ok(operator) => operator,
        Err(failure) => {
            answer(&mut write, Err(failure)).await;
            return;
        }
    };
    let mut lines = BufReader::new(read);
    loop {
        let line = tokio::select! {
            () = stopping(&mut stop) => return,
            line = next_line(&mut lines) => line,
        };
        let request = match line {
            Line::End => return,
            Line::Refused(failure) => {
                answer(&mut write, Err(failure)).await;
                return;
            }
            Line::Text(text) => serde_json::from_slice::<Request>(&text),
        };
        let result = match request {
            Ok(request) => carry_out(&*handler, request, operator).await,
            // The parser's words may quote the request; an operator's own line may come back to them.
            Err(error) => Err(Failure::new("malformed_request", format!("not a control request: {error}"))),
        };
        if !answer(&mut write, result).await {
            return;
        }
    }
}

async fn carry_out(
    handler: &dyn ControlHandler,
    request: Request,
    operator: Operator,
) -> Result<serde_json::Value, Failure> {
    match timeout(HANDLER_LIMIT, handler.handle(request, operator)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Failure::new(
            "timed_out",
            "the request took too long; `caracal status` shows whether it took effect",
        )),
    }
}

/// The connected operator, or why this peer is none.
fn operator(stream: &UnixStream) -> Result<Operator, Failure> {
    let peer = stream.peer_cred().map_err(|error| {
        Failure::new("unknown_peer", format!("the kernel does not say who is calling: {error}"))
    })?;
    let own = rustix::process::geteuid().as_raw();
    if !permitted(peer.uid(), own) {
        return Err(Failure::new(
            "not_permitted",
            format!("only uid {own}, who runs this process, and root may control it"),
        ));
    }
    Ok(Operator { uid: peer.uid(), pid: peer.pid() })
}

/// Whether a peer with this uid may control a process that runs as `own`.
pub(super) fn permitted(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

enum Line {
    Text(Vec<u8>),
    End,
    Refused(Failure),
}

/// Reads one line of at most [`MAX_REQUEST_BYTES`]; the rest of a longer one is never read.
async fn next_line(lines: &mut BufReader<OwnedReadHalf>) -> Line {
    let mut text = Vec::new();
    let limit = u64::try_from(MAX_REQUEST_BYTES).unwrap_or(u64::MAX);
    let mut bounded = lines.take(limit);
    match timeout(IDLE_LIMIT, bounded.read_until(b'\n', &mut text)).await {
        Err(_elapsed) => Line::Refused(Failure::new("idle", "no request came in time")),
        Ok(Err(_) | Ok(0)) => Line::End,
        Ok(Ok(_)) if text.last() == Some(&b'\n') => Line::Text(text),
        Ok(Ok(_)) if text.len() >= MAX_REQUEST_BYTES => Line::Refused(Failure::new(
            "request_too_large",
            format!("a request line has at most {MAX_REQUEST_BYTES} bytes"),
        )),
        // The peer closed its side in the middle of a line: nobody is owed an answer to half a request.
        Ok(Ok(_)) => Line::End,
    }
}

/// Writes one answer; false when the peer is gone or does not read.
async fn answer(write: &mut OwnedWriteHalf, result: Result<serde_json::Value, Failure>) -> bool {
    let Ok(mut line) = serde_json::to_vec(&Response::from(result)) else {
        tracing::error!("a control response could not be written as JSON");
        return false;
    };
    line.push(b'\n');
    matches!(timeout(WRITE_LIMIT, write.write_all(&line)).await, Ok(Ok(())))
}

/// Closes the socket's folder to everybody else. Peers are checked too; this keeps others from replacing the socket.
fn close_folder(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    let mode = std::fs::metadata(folder)?.mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("`{}` is in the way of the control socket and is no socket", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// `sun_path` of unix(7) has 108 bytes, one of them for the closing zero.
const MAX_PATH_BYTES: usize = 107;

/// Operators at work at the same time; each is a person or a script, not traffic.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may wait between requests.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// How long one act may take; a reload compiles every bundle.
const HANDLER_LIMIT: Duration = Duration::from_secs(60);

/// How long a peer may take to read an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
