//! Refusals as gRPC says them: status 200 and a head that is also the end, with the status of the call in it.
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Trailers-Only"; pushback is gRFC A6.

use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use crate::gate::refusal::Refusal;
use crate::refusal::Particulars;

/// What `grpc-message` encodes: everything but the printable characters of ASCII, and the percent sign.
const MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// Whether a request is a call of gRPC, whose client reads trailers. gRPC-Web is not: it reads bodies.
pub(super) fn is_call(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_2 && request.method == Method::POST && is_grpc(&request.headers)
}

/// `application/grpc`, alone or with a format or parameters behind it.
fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The refusal in the form of gRPC, without what every refusal says of itself.
pub(super) fn head(refusal: &Refusal, particulars: &Particulars) -> pingora::Result<ResponseHeader> {
    let answer = refusal.answer();
    let message = format!("{}; {}", answer.told(particulars), answer.next_step);
    let mut header = ResponseHeader::build(200, Some(10))?;
    header.insert_header(CONTENT_TYPE, "application/grpc")?;
    header.insert_header("grpc-status", status(answer.status).to_string())?;
    header.insert_header("grpc-message", utf8_percent_encode(&message, MESSAGE).to_string())?;
    match answer.wait(particulars) {
        Some(seconds) => {
            header.insert_header("grpc-retry-pushback-ms", seconds.saturating_mul(1_000).to_string())?;
        }
        // Otherwise a client with a retry policy would try again what cannot pass.
        None if !answer.may_pass_later(particulars) => {
            header.insert_header("grpc-retry-pushback-ms", "-1")?
        }
        None => {}
    }
    Ok(header)
}

/// Writes the head as the end of the stream. Pingora's own way leaves the end to an empty frame of data, and clients take
/// a head with a status and data after it for a broken answer.
pub(super) fn write(session: &mut Session, header: ResponseHeader) -> pingora::Result<()> {
    match &mut *session.downstream_session {
        ServerSession::H2(stream) => stream.write_response_header(Box::new(header), true),
        ServerSession::H1(_) | ServerSession::Subrequest(_) | ServerSession::Custom(_) => {
            Error::e_explain(ErrorType::InternalError, "a call of gRPC is one over HTTP/2")
        }
    }
}

/// The status of gRPC for one of HTTP.
const fn status(http: u16) -> u8 {
    match http {
        499 => CANCELLED,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 | 421 => UNIMPLEMENTED,
        413 | 429 | 431 => RESOURCE_EXHAUSTED,
        400..=498 => INVALID_ARGUMENT,
        504 => DEADLINE_EXCEEDED,
        502 | 503 => UNAVAILABLE,
        _ => INTERNAL,
    }
}

const CANCELLED: u8 = 1;
const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

#[cfg(test)]
mod tests {
    use caracal_policies::DenyReason;

    use super::*;

    fn request(method: &str, version: Version, content_type: &str) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/shop.Inventory/Get", None).unwrap();
        request.set_version(version);
        request.insert_header(CONTENT_TYPE, content_type).unwrap();
        request
    }

    #[test]
    fn a_call_is_a_post_over_http2_with_the_content_type_of_grpc_and_not_of_its_web_form() {
        for (content_type, call) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            assert_eq!(is_call(&request("POST", Version::HTTP_2, content_type)), call, "{content_type}");
        }
        assert!(!is_call(&request("POST", Version::HTTP_11, "application/grpc")));
        assert!(!is_call(&request("GET", Version::HTTP_2, "application/grpc")));
    }

    #[test]
    fn a_refusal_has_a_status_a_message_and_says_whether_to_try_again() {
        let told = |refusal: Refusal| {
            let particulars = Particulars { reason: refusal.reason(), ..Particulars::default() };
            let head = head(&refusal, &particulars).unwrap();
            assert_eq!(head.status.as_u16(), 200);
            let value = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            (value("grpc-status").unwrap(), value("grpc-message").unwrap(), value("grpc-retry-pushback-ms"))
        };
        for (refusal, status, pushback) in [
            (Refusal::TokenMissing, "16", Some("-1")),
            (Refusal::OperationNotPermitted, "7", Some("-1")),
            (Refusal::PathMalformed, "3", Some("-1")),
            (Refusal::Misdirected, "12", Some("-1")),
            (Refusal::BodyTooLarge, "8", Some("-1")),
            (Refusal::TooManyFailures, "8", Some("60000")),
            (Refusal::Restarting, "14", Some("1000")),
            (Refusal::UpstreamTimeout, "4", Some("1000")),
            (Refusal::Internal, "13", Some("-1")),
        ] {
            let (found, message, wait) = told(refusal);
            assert_eq!((found.as_str(), wait.as_deref()), (status, pushback), "{refusal:?}");
            assert!(message.is_ascii() && !message.is_empty());
        }
        let (_, message, _) = told(Refusal::Denied(DenyReason::RoleScopeMismatch));
        assert!(message.starts_with("policy denied (role_scope_mismatch); "), "{message}");
    }

    #[test]
    fn a_message_is_encoded_as_grpc_wants_it() {
        assert_eq!(utf8_percent_encode("100 % \u{fc}\n", MESSAGE).to_string(), "100 %25 %C3%BC%0A");
    }
}
