//! The calling side of the control socket.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Failure, MAX_RESPONSE_BYTES, Request, Response, folder_of};

/// Why a running process could not be asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens on the socket.
    #[error(
        "no caracal is running on `{}`; start one with `caracal serve --config FILE`", .state_dir.display()
    )]
    NotRunning {
        /// The state folder that was tried.
        state_dir: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("uid {} may not control the caracal on `{}`: run this as its owner or as root", .uid, .state_dir.display())]
    NotPermitted {
        /// The state folder that was tried.
        state_dir: PathBuf,
        /// Our own effective uid.
        uid: u32,
    },
    /// Somebody other than the folder's owner answers there.
    #[error("the process on `{}` runs as uid {}, who does not own that folder: not asking it", .path.display(), .uid)]
    Impostor {
        /// The socket.
        path: PathBuf,
        /// Who answers.
        uid: u32,
    },
    /// Connecting, writing or reading failed.
    #[error("talking to the caracal on `{}` failed", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// No answer in time.
    #[error("the caracal on `{}` did not answer in time", .path.display())]
    TimedOut {
        /// The socket.
        path: PathBuf,
    },
    /// An answer that is none.
    #[error("the caracal on `{}` gave an answer this version does not understand", .path.display())]
    Malformed {
        /// The socket.
        path: PathBuf,
    },
    /// The process understood and did not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Sends one request to the process that serves `path` and waits for its answer.
///
/// # Errors
/// [`ControlError::NotRunning`] when nobody listens there; [`ControlError::Failed`] with the process's own code
/// when it declined; the other variants when it could not be asked.
pub async fn call(path: &Path, request: &Request) -> Result<Value, ControlError> {
    match timeout(ANSWER_LIMIT, exchange(path, request)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ControlError::TimedOut { path: path.to_owned() }),
    }
}

async fn exchange(path: &Path, request: &Request) -> Result<Value, ControlError> {
    let failed = |source| ControlError::Io { path: path.to_owned(), source };
    let malformed = || ControlError::Malformed { path: path.to_owned() };
    let mut stream = UnixStream::connect(path).await.map_err(|error| unreachable(path, error))?;
    check_server(path, &stream)?;

    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(failed)?;

    let mut text = Vec::new();
    let limit = u64::try_from(MAX_RESPONSE_BYTES).unwrap_or(u64::MAX);
    BufReader::new(stream).take(limit).read_until(b'\n', &mut text).await.map_err(failed)?;
    if text.last() != Some(&b'\n') {
        return Err(malformed());
    }
    match serde_json::from_slice::<Response>(&text) {
        Ok(Response { ok: true, data, .. }) => Ok(data.unwrap_or_default()),
        Ok(Response { ok: false, error: Some(failure), .. }) => Err(failure.into()),
        Ok(Response { ok: false, error: None, .. }) | Err(_) => Err(malformed()),
    }
}

fn unreachable(path: &Path, source: io::Error) -> ControlError {
    let state_dir = folder_of(path).to_owned();
    let kind = source.kind();
    if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        ControlError::NotRunning { state_dir }
    } else if kind == io::ErrorKind::PermissionDenied {
        ControlError::NotPermitted { state_dir, uid: rustix::process::geteuid().as_raw() }
    } else {
        ControlError::Io { path: path.to_owned(), source }
    }
}

/// Makes sure that the folder's owner answers: whoever could only write into the folder must not pose as the edge.
fn check_server(path: &Path, stream: &UnixStream) -> Result<(), ControlError> {
    let failed = |source| ControlError::Io { path: path.to_owned(), source };
    let server = stream.peer_cred().map_err(failed)?.uid();
    let folder = folder_of(path);
    let owner = std::fs::metadata(folder).map_err(failed)?.uid();
    if server == owner || server == 0 {
        return Ok(());
    }
    Err(ControlError::Impostor { path: path.to_owned(), uid: server })
}

/// Longer than a handler may take, so that its own answer wins.
const ANSWER_LIMIT: Duration = Duration::from_secs(75);
