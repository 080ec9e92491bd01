//! What names may look like.

use crate::limits;

/// Whether the text can name an application, provider, resource, zone, role, tier or binding key: visible ASCII.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::NAME_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether the text can be the `iss` of identity tokens: visible ASCII.
pub(crate) fn is_issuer(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::ISSUER_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether the text can be the `aud` of identity tokens: visible ASCII.
pub(crate) fn is_audience(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= limits::AUDIENCE_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether the text is a scope: RFC 6749 section 3.3, visible ASCII but `"` and `\`.
pub(crate) fn is_scope(text: &str) -> bool {
    is_name(text) && !text.contains(['"', '\\'])
}

/// Whether the text can be a session label, and so a role: up to 64 characters, no blanks at its ends.
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.chars().count() <= 64
        && text.trim() == text
        && !text.chars().any(char::is_control)
}

/// Whether the text is an RFC 9110 token (header names, methods, cookie names).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= limits::NAME_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether the text names a tool or a method of an MCP server.
pub(crate) fn is_mcp_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
}

/// Whether the text is a scheme word such as `Bearer`.
pub(crate) fn is_scheme_word(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether the text names a budget or a rate; it stands in header fields and metrics.
pub(crate) fn is_budget(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether the text is a trait: a letter, then letters, digits and `._:-`.
pub(crate) fn is_trait(text: &str) -> bool {
    text.len() <= 128
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// Whether a part of a secret reference is well formed.
pub(crate) fn is_secret_part(text: &str) -> bool {
    text.len() <= limits::NAME_BYTES
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether the text is a lower-case DNS name or IPv4 address without a trailing dot.
///
/// A last label of digits only is an address, and resolvers read short forms such as `127.1` as one too, so
/// those must be full IPv4 addresses.
pub(crate) fn is_host(text: &str) -> bool {
    let labels = text.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
            })
    });
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    labels && text.len() <= 253 && (!numeric || text.parse::<std::net::Ipv4Addr>().is_ok())
}

/// Whether a credential must not travel in this header (lower case): it frames the message, routes it, or is ours.
pub(crate) fn is_reserved_header(name: &str) -> bool {
    RESERVED_HEADERS.contains(&name)
        || ["x-caracal-", "x-forwarded-", "proxy-"].iter().any(|prefix| name.starts_with(prefix))
}

const RESERVED_HEADERS: [&str; 21] = [
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
    "set-cookie",
];

/// The name in `known` that `wrong` most likely stands for: at most two edits away. Not looked for among thousands.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const SEARCHED: usize = 2_000;
    let known: Vec<&str> = known.into_iter().take(SEARCHED.saturating_add(1)).collect();
    if wrong.len() > 64 || known.len() > SEARCHED {
        return None;
    }
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(wrong.len()) <= 2)
        .map(|name| (edits(wrong, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .map(|(_, name)| name)
}

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut corner = i;
        let mut before = i.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (right, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let here = corner
                .saturating_add(usize::from(left != right))
                .min(cell.saturating_add(1))
                .min(before.saturating_add(1));
            corner = *cell;
            before = here;
            *cell = here;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_names_or_whole_addresses() {
        for good in ["localhost", "api.example.com", "127.0.0.1", "a-b.c_d.e1"] {
            assert!(is_host(good), "{good}");
        }
        for bad in
            ["", "A.example", "127.1", "0x7f.1", "1", "a..b", "a.", "-a.b", "a b", "a:80", "[::1]", "ex.0x7f"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn credential_headers_that_frame_or_route_are_reserved() {
        for reserved in ["host", "te", "x-caracal-identity", "x-forwarded-for", "proxy-anything"] {
            assert!(is_reserved_header(reserved), "{reserved}");
        }
        for free in ["authorization", "x-api-key", "api-key"] {
            assert!(!is_reserved_header(free), "{free}");
        }
    }

    #[test]
    fn a_typo_finds_its_word() {
        assert_eq!(nearest("scoeps", ["scopes", "hosts"]), Some("scopes"));
        assert_eq!(nearest("completely_else", ["scopes", "hosts"]), None);
    }
}
