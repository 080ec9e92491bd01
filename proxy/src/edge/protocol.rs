//! The protocol an upstream is spoken to in, and what of HTTP/2 needs care.

use caracal_policies::UpstreamProtocol;
use http::Version;
use pingora::prelude::{Error, ErrorType, HttpPeer};
use pingora::{ErrorSource, RetryType};

/// Requests on one connection at once. Source: what common servers allow, and RFC 9113 section 6.5.2 asks for.
const STREAMS: usize = 100;
/// What an upstream may send ahead of a caller that does not read, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for a connection: more than all of its streams, so that callers that do not read never stop the others.
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// Sets the protocol of a connection. `alone` is one that no other request may use; an upgrade needs HTTP/1.1.
pub(super) fn choose(peer: &mut HttpPeer, protocol: UpstreamProtocol, upgrade: bool, alone: bool) {
    match protocol {
        UpstreamProtocol::Http1 => return,
        UpstreamProtocol::Http2 => peer.options.set_http_version(2, 2),
        UpstreamProtocol::Auto if peer.is_tls() && !upgrade => peer.options.set_http_version(2, 1),
        UpstreamProtocol::Auto => return,
    }
    peer.options.max_h2_streams = if alone { 1 } else { STREAMS };
    peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
    peer.options.h2_connection_window_size = Some(CONNECTION_WINDOW);
}

/// Whether a request may be sent in this version; an upstream may have agreed to another one than was asked for.
pub(super) fn allows(protocol: UpstreamProtocol, version: Version) -> bool {
    protocol != UpstreamProtocol::Http2 || version == Version::HTTP_2
}

/// Whether the upstream said that it did not look at the request (RFC 9113 section 8.7), so that it may be sent again
/// whatever it is. The library marks these, and no others of this kind, as to be repeated.
pub(super) fn untouched(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::H2Error | ErrorType::H2Downgrade)
        && *error.esource() == ErrorSource::Upstream
        && matches!(error.retry, RetryType::Decided(true))
}
