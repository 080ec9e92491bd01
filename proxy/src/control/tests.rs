use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinHandle;

use super::*;

/// Answers `status`, refuses `freeze`, and holds `reload` until two callers are waiting.
#[derive(Debug)]
struct Desk {
    seen: AtomicUsize,
    both: Barrier,
}

#[async_trait]
impl ControlHandler for Desk {
    async fn handle(&self, request: Request, operator: Operator) -> Result<Value, Failure> {
        self.seen.fetch_add(1, Ordering::SeqCst);
        if request == Request::Status {
            return Ok(json!({ "uid": operator.uid }));
        }
        if request == Request::Reload {
            self.both.wait().await;
            return Ok(Value::Null);
        }
        Err(Failure::new("unknown_zone", format!("no such zone in {request:?}")))
    }
}

struct Running {
    folder: TempDir,
    path: PathBuf,
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn running() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(folder.path());
    let socket = ControlSocket::bind(&path).unwrap();
    let desk = Arc::new(Desk { seen: AtomicUsize::new(0), both: Barrier::new(2) });
    let (stop, stopped) = watch::channel(false);
    let handler: Arc<dyn ControlHandler> = desk.clone();
    let task = tokio::spawn(socket.serve(handler, stopped));
    Running { folder, path, desk, stop, task }
}

async fn say(path: &Path, line: &[u8]) -> Response {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(line).await.unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test]
async fn an_operator_is_known_by_uid_and_answered() {
    let edge = running();
    let data = call(&edge.path, &Request::Status).await.unwrap();
    assert_eq!(data["uid"], rustix::process::geteuid().as_raw());
}

#[tokio::test]
async fn a_declined_act_reports_the_handlers_code() {
    let edge = running();
    let error = call(&edge.path, &Request::Freeze { zone: "nowhere".into() }).await.unwrap_err();
    let ControlError::Failed(failure) = error else { panic!("{error}") };
    assert_eq!(failure.code, "unknown_zone");
}

#[tokio::test]
async fn two_operators_are_served_at_the_same_time() {
    let edge = running();
    // Each waits for the other inside the handler: one at a time would never end.
    let (one, two) = tokio::join!(call(&edge.path, &Request::Reload), call(&edge.path, &Request::Reload));
    assert_eq!((one.unwrap(), two.unwrap()), (Value::Null, Value::Null));
    assert_eq!(edge.desk.seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn malformed_lines_are_refused_and_reach_no_handler() {
    let edge = running();
    let lines: [&[u8]; 6] = [
        b"\n",
        b"freeze quickstart\n",
        b"{\"op\":\"burn\",\"zone\":\"a\"}\n",
        b"{\"op\":\"freeze\"}\n",
        b"{\"op\":\"freeze\",\"zone\":\"a\",\"force\":true}\n",
        b"{\"op\":\"freeze\",\"zone\":\"\xff\"}\n",
    ];
    for line in lines {
        let answer = say(&edge.path, line).await;
        assert!(!answer.ok);
        assert_eq!(answer.error.unwrap().code, "malformed_request", "{line:?}");
    }
    assert_eq!(edge.desk.seen.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_oversized_line_is_refused_without_being_read_to_its_end() {
    let edge = running();
    let answer = say(&edge.path, &vec![b'x'; MAX_REQUEST_BYTES]).await;
    assert_eq!(answer.error.unwrap().code, "request_too_large");
    assert_eq!(edge.desk.seen.load(Ordering::SeqCst), 0);
    assert!(call(&edge.path, &Request::Status).await.is_ok(), "the socket still serves others");
}

#[tokio::test]
async fn one_connection_carries_several_requests() {
    let edge = running();
    let stream = UnixStream::connect(&edge.path).await.unwrap();
    let (read, mut write) = stream.into_split();
    write.write_all(b"{\"op\":\"status\"}\n{\"op\":\"keys_list\"}\n").await.unwrap();
    let mut lines = BufReader::new(read).lines();
    let first: Response = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let second: Response = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert!(first.ok && !second.ok);
}

#[tokio::test]
async fn socket_and_folder_are_closed_to_others() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = socket_path(folder.path());
    let _socket = ControlSocket::bind(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(folder.path()), mode(&path)), (0o700, 0o600));
}

#[test]
fn only_the_owner_and_root_are_permitted() {
    assert!(server::permitted(1000, 1000));
    assert!(server::permitted(0, 1000));
    assert!(!server::permitted(1001, 1000));
    assert!(!server::permitted(1000, 0), "a process of root is not controlled by a user");
}

#[tokio::test]
async fn a_missing_process_is_named_with_the_way_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = call(&socket_path(folder.path()), &Request::Status).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("no caracal is running on "), "{text}");
    assert!(text.contains("caracal serve --config"), "{text}");
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_a_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(folder.path());
    drop(ControlSocket::bind(&path).unwrap());
    assert!(matches!(call(&path, &Request::Status).await, Err(ControlError::NotRunning { .. })));
    drop(ControlSocket::bind(&path).unwrap());

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "not a socket").unwrap();
    assert_eq!(ControlSocket::bind(&path).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a socket");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let error = ControlSocket::bind(&folder.path().join("x".repeat(120))).unwrap_err();
    assert!(error.to_string().contains("shorter `state_dir`"), "{error}");
}

#[tokio::test]
async fn stopping_finishes_the_act_under_way_and_removes_the_socket() {
    let edge = running();
    let path = edge.path.clone();
    let waiting = tokio::spawn(async move { call(&path, &Request::Reload).await });
    while edge.desk.seen.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    edge.stop.send(true).unwrap();
    edge.desk.both.wait().await;
    assert_eq!(waiting.await.unwrap().unwrap(), Value::Null);
    edge.task.await.unwrap();
    assert!(!edge.path.exists());
    drop(edge.folder);
}
