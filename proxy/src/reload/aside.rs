//! A thread of its own for each reload, which gives way to those that answer requests.

use tokio::sync::oneshot;

/// How far below requests a reload stands where both want the processor: a weight of about a tenth. It still gets on
/// while requests take all there is, because what it brings may narrow.
const NICE: i32 = 10;

/// Runs `work` to its end, also when nobody waits for it any more; nothing where it panicked or could not begin.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let begun = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
        // On Linux this is the thread's own, and no thread may take it back: one of a pool would stay low.
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::debug!(%error, "a reload runs beside requests as their equal");
        }
        // Whoever asked may have gone.
        done.send(work()).ok();
    });
    if let Err(error) = begun {
        tracing::error!(%error, "there is no thread for a reload");
        return None;
    }
    result.await.ok()
}
