//! Accepts connections for the gateway and gives every request its slot.
//!
//! Around Pingora's proxy stands our own [`HttpServerApp`]: it races the whole request with its slot, so that an
//! idle stream ends the moment its authority does, catches panics, and writes the result record where no hook
//! of the proxy would run.

use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::listeners::TcpSocketOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ShutdownWatch};
use pingora::services::Service as _;
use pingora::services::listening::Service;

use super::capped::Capped;
use super::finish;
use super::gateway::Gateway;
use super::last_word;
use super::slot::{SLOT, Slot};
use crate::app::App;
use crate::listen::ReloadingTls;

/// How much of a response may sit in the kernel after a cut, in bytes.
const SEND_BUFFER: usize = 256 * 1024;

/// Idle connections kept to all upstreams together.
const IDLE_UPSTREAM_CONNECTIONS: usize = 512;

/// Serves the gateway on an already bound listener until `stop` turns true.
///
/// # Errors
/// When the certificate cannot be loaded.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<Arc<ReloadingTls>>,
    stop: ShutdownWatch,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?.to_string();
    let conf = Arc::new(server_conf());
    let inner = Arc::new(http_proxy(&conf, Gateway::new(Arc::clone(&app))));
    let (most, metrics) = (app.config.limits.max_connections, Arc::clone(&app.metrics));
    let guarded = Capped::new(Guarded { app, inner }, most, metrics);
    let mut service = Service::new("gateway".to_owned(), guarded);
    let mut options = TcpSocketOptions::default();
    options.tcp_snd_buf = Some(SEND_BUFFER);
    match tls {
        None => service.add_tcp_with_settings(&address, options),
        Some(tls) => {
            let mut settings = TlsSettings::intermediate(tls.cert_path(), tls.key_path())
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            // The resolver follows reloads; the paths above are only where the first pair came from.
            settings.set_cert_resolver(tls.resolver());
            settings.enable_h2();
            service.add_tls_with_settings(&address, Some(options), settings);
        }
    }
    let mut fds = Fds::new();
    fds.add(address, listener.into_raw_fd());
    service.start_service(Some(Arc::new(Mutex::new(fds))), stop, 1).await;
    Ok(())
}

fn server_conf() -> ServerConf {
    ServerConf {
        // One attempt, one more where the upstream closed an idle connection before it saw the request or did not take
        // the token, and one for each further address where nothing was sent yet. The hooks decide which it is.
        max_retries: 6,
        upstream_keepalive_pool_size: IDLE_UPSTREAM_CONNECTIONS,
        ..ServerConf::default()
    }
}

struct Guarded {
    app: Arc<App>,
    inner: Arc<HttpProxy<Gateway>>,
}

#[async_trait]
impl HttpServerApp for Guarded {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let slot = Arc::new(Slot::default());
        let handler = SLOT.scope(Arc::clone(&slot), self.inner.process_new_http(session, shutdown));
        let mut handler = std::pin::pin!(AssertUnwindSafe(handler).catch_unwind());
        let finished = tokio::select! {
            biased;
            () = slot.ended() => None,
            outcome = &mut handler => Some(outcome),
        };
        let finished = match finished {
            None if slot.has_last_word() => tokio::time::timeout(last_word::PATIENCE, handler).await.ok(),
            finished => finished,
        };
        let (reused, panicked) = match finished {
            None => (None, false),
            Some(Ok(reused)) => (reused, false),
            Some(Err(_)) => (None, true),
        };
        if panicked {
            self.app.metrics.panics.inc();
            tracing::error!("a request handler panicked; the connection is closed");
        }
        finish::from_outside(&self.app, &slot, panicked);
        reused
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.inner.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.inner.server_options()
    }

    async fn http_cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}
