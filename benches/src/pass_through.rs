//! The bare pass-through: Pingora of this build with the one hook it cannot do without.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, Result};
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use tokio::sync::watch;

struct PassThrough(SocketAddr);

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _modules: &mut pingora::modules::http::HttpModules) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

/// Serves until the process ends, on the same kind of runtime as the edge.
///
/// # Errors
/// The runtime cannot be started.
pub fn run(listen: &str, upstream: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let conf = Arc::new(ServerConf { upstream_keepalive_pool_size: 512, ..ServerConf::default() });
    let mut service = http_proxy_service(&conf, PassThrough(upstream));
    service.add_tcp(listen);
    runtime.block_on(async move {
        let (_stop, stopped) = watch::channel(false);
        let served = tokio::spawn(async move { service.start_service(None, stopped, 1).await });
        served.await
    })?;
    Ok(())
}
