//! What a token endpoint says (RFC 6749 sections 5.1 and 5.2).

use caracal_mandates::json_object;
use http::StatusCode;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Trouble, Unavailable};

/// The longest a token is kept, and how long one is whose answer does not say, in seconds.
const MAX_LIFETIME_S: i64 = 3_600;
/// As good as for ever, in seconds: ten years.
const LONG_S: i64 = 10 * 365 * 24 * 3_600;
/// Bytes of a token; it has to fit into a header.
const MAX_TOKEN: usize = 16 * 1024;

/// The codes of the RFCs. Only a code from here is repeated: anything else the other side may have made up.
const CODES: [&str; 12] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "slow_down",
    "invalid_client_metadata",
];

/// A good answer.
pub(super) struct Answer {
    pub(super) access_token: Zeroizing<String>,
    /// What fresh tokens are got with.
    pub(super) refresh_token: Option<Zeroizing<String>>,
    /// How long it is kept.
    pub(super) lifetime_s: i64,
    /// How long it lives, where the answer says so.
    pub(super) stated_s: Option<i64>,
}

/// Reads an answer.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Result<Answer, Trouble> {
    if status != StatusCode::OK {
        return Err(refused(status, body));
    }
    let malformed = |detail: &str| Trouble::new(Unavailable::Malformed, detail);
    let mut object = json_object(body).ok_or_else(|| malformed("the answer is no JSON object"))?;
    let Some(Value::String(token)) = object.remove("access_token") else {
        return Err(malformed("the answer has no `access_token`"));
    };
    let access_token = Zeroizing::new(token);
    let bearer = match object.get("token_type") {
        None => true,
        Some(Value::String(word)) => word.is_empty() || word.eq_ignore_ascii_case("bearer"),
        Some(_) => false,
    };
    if !bearer {
        return Err(malformed("the `token_type` is not Bearer"));
    }
    let fits = (1..=MAX_TOKEN).contains(&access_token.len());
    if !fits || !access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("the `access_token` cannot be sent in a header"));
    }
    let refresh_token = match object.remove("refresh_token") {
        None | Some(Value::Null) => None,
        Some(Value::String(token)) => Some(Zeroizing::new(token)).filter(|token| !token.is_empty()),
        Some(_) => return Err(malformed("the `refresh_token` is no text")),
    };
    let sendable = |token: &Zeroizing<String>| {
        token.len() <= MAX_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !refresh_token.as_ref().is_none_or(sendable) {
        return Err(malformed("the `refresh_token` cannot be sent"));
    }
    let stated_s =
        lifetime(object.get("expires_in")).ok_or_else(|| malformed("`expires_in` is no time ahead"))?;
    let lifetime_s = stated_s.map_or(MAX_LIFETIME_S, |stated| stated.min(MAX_LIFETIME_S));
    Ok(Answer { access_token, refresh_token, lifetime_s, stated_s })
}

/// Seconds, if the answer says any; some servers write them as a text. The outer none: they are no time ahead.
fn lifetime(expires_in: Option<&Value>) -> Option<Option<i64>> {
    let seconds = match expires_in {
        None | Some(Value::Null) => return Some(None),
        Some(Value::Number(number)) => number.as_i64().or_else(|| number.as_u64().map(|_beyond| LONG_S))?,
        Some(Value::String(digits)) => digits.parse().ok()?,
        Some(_) => return None,
    };
    (seconds > 0).then(|| Some(seconds.min(LONG_S)))
}

/// The code, if it is one of the RFCs'.
pub(super) fn known_code(said: &str) -> Option<&'static str> {
    CODES.iter().find(|code| said == **code).copied()
}

fn refused(status: StatusCode, body: &[u8]) -> Trouble {
    let object = json_object(body);
    let said = object.as_ref().and_then(|object| object.get("error")).and_then(Value::as_str);
    let code = said.and_then(known_code);
    let detail =
        format!("the answer is {}, {}", status.as_u16(), code.unwrap_or("without an OAuth error code"));
    let why = match status.as_u16() {
        429 => Unavailable::Limited,
        500..=599 => Unavailable::Unreachable,
        400..=499 => Unavailable::Refused,
        // Redirects too: credentials do not go where an answer says.
        _ => Unavailable::Malformed,
    };
    // A server that is failing may say anything.
    let spent = code == Some("invalid_grant") && status.is_client_error();
    Trouble { again: status.is_server_error(), spent, ..Trouble::new(why, detail) }
}
