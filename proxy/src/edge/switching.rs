//! Connections for requests that ask to switch protocols.
//!
//! The proxy hands the request over to the upstream in two pieces, the head and the end of a body that has none, and
//! takes the upstream's answer beside them. When the 101 overtakes the second piece, the proxy takes that end for the
//! end of the upgraded connection and closes it (Pingora 0.9.1, `proxy_h1.rs`). An upstream on the same machine is
//! fast enough for this. So nothing is read at the first asking after something was written: what lies ready is
//! handed over first.

use std::io;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::prelude::Result;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;

use super::dialled::{self, Reading};

/// Connects a request that asks for an upgrade to its upstream.
#[derive(Debug)]
pub(super) struct UpgradeDial;

#[async_trait]
impl L4Connect for UpgradeDial {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        dialled::dial(address, || Polite { wrote: false }).await
    }
}

struct Polite {
    /// Something was written, and nobody has asked to read since.
    wrote: bool,
}

impl Reading for Polite {
    fn instead(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        std::mem::take(&mut self.wrote).then(|| {
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn wrote(&mut self) {
        self.wrote = true;
    }
}
