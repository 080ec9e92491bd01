//! `Link` fields of an answer (RFC 8288): a target at the upstream becomes the same target at the edge, where a client
//! that follows it, to the next page of a list, is decided on like before.

use caracal_policies::{Scheme, Upstream};
use http::HeaderValue;

/// Longer fields, and those that would become longer, stay as they are.
const MAX: usize = 16 * 1024;

/// The field with its targets at the upstream moved to `base`, the root of the resource as the caller addresses it.
///
/// `None` when there is nothing to move, and for a field that is malformed: that is left to its reader.
#[must_use]
pub fn moved(field: &HeaderValue, upstream: &Upstream, base: &str) -> Option<HeaderValue> {
    let mut rest = field.to_str().ok().filter(|text| text.len() <= MAX)?;
    let mut written = String::with_capacity(rest.len());
    let own = upstream.authority();
    let mut any = false;
    while let Some((before, link)) = rest.split_once('<') {
        if !before.chars().all(|between| matches!(between, ' ' | '\t' | ',')) {
            return None;
        }
        let (target, after) = link.split_once('>')?;
        let parameters = end_of_parameters(after)?;
        written.push_str(before);
        written.push('<');
        match within(target, upstream, &own) {
            Some(path) => {
                any = true;
                written.push_str(base);
                written.push_str(path);
            }
            None => written.push_str(target),
        }
        written.push('>');
        written.push_str(after.get(..parameters)?);
        rest = after.get(parameters..)?;
        if written.len() > MAX {
            return None;
        }
    }
    let ends_well = rest.chars().all(|between| matches!(between, ' ' | '\t' | ','));
    if !any || !ends_well {
        return None;
    }
    written.push_str(rest);
    HeaderValue::from_str(&written).ok()
}

/// Where the parameters of a link end: at a comma outside quotes, or with the field. `None` for an open quote, and for
/// anything but a parameter behind the target.
fn end_of_parameters(text: &str) -> Option<usize> {
    if !matches!(text.trim_start_matches([' ', '\t']).bytes().next(), None | Some(b';' | b',')) {
        return None;
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some(at),
            b'<' | b'>' if !quoted => return None,
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// What follows the upstream's origin and base path, if the target is there; `own` is the upstream's authority.
fn within<'a>(target: &'a str, upstream: &Upstream, own: &str) -> Option<&'a str> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte)) {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    let (expected, port) = match upstream.scheme {
        Scheme::Http => ("http", ":80"),
        Scheme::Https => ("https", ":443"),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let same = authority.eq_ignore_ascii_case(own)
        || (upstream.port == upstream.scheme.default_port()
            && authority.strip_suffix(port).is_some_and(|host| host.eq_ignore_ascii_case(own)));
    if !same || !scheme.eq_ignore_ascii_case(expected) {
        return None;
    }
    let rest = path.strip_prefix(upstream.base_path.as_str())?;
    matches!(rest.bytes().next(), None | Some(b'/' | b'?' | b'#')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::{MAX, moved};
    use caracal_policies::{Scheme, Upstream};
    use http::HeaderValue;

    const BASE: &str = "https://edge.example:8081/api";

    fn upstream(scheme: Scheme, port: u16) -> Upstream {
        Upstream { scheme, host: "up.example".into(), port, base_path: "/v3".into(), query: Vec::new() }
    }

    fn of(field: &str) -> Option<String> {
        let moved = moved(&HeaderValue::from_str(field).unwrap(), &upstream(Scheme::Https, 443), BASE);
        moved.map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn links_to_the_upstream_lead_to_the_edge() {
        for (field, expected) in [
            (
                "<https://up.example/v3/a?page=2>; rel=\"next\"",
                "<https://edge.example:8081/api/a?page=2>; rel=\"next\"",
            ),
            ("<HTTPS://UP.example:443/v3>", "<https://edge.example:8081/api>"),
            ("<https://up.example/v3?p=2>;rel=next", "<https://edge.example:8081/api?p=2>;rel=next"),
            (
                ", <https://up.example/v3/a,b>; title=\"x, <y> \\\" z\" , <https://up.example/v3/c>; rel=last,",
                ", <https://edge.example:8081/api/a,b>; title=\"x, <y> \\\" z\" , <https://edge.example:8081/api/c>; rel=last,",
            ),
            (
                "<https://other.example/v3/a>; rel=a, <https://up.example/v3/b>; rel=b",
                "<https://other.example/v3/a>; rel=a, <https://edge.example:8081/api/b>; rel=b",
            ),
        ] {
            assert_eq!(of(field).as_deref(), Some(expected), "{field}");
        }
    }

    #[test]
    fn links_to_other_places_stay() {
        for field in [
            "",
            "<>",
            "</v3/a>; rel=next",
            "<//up.example/v3/a>",
            "<http://up.example/v3/a>",
            "<https://up.example:8443/v3/a>",
            "<https://up.example:80/v3/a>",
            "<https://up.example./v3/a>",
            "<https://up.example.evil/v3/a>",
            "<https://up.example@evil/v3/a>",
            "<https://user@up.example/v3/a>",
            "<https://up.example\\@evil/v3/a>",
            "<https://up.example/v3 /a>",
            "<https://up.example/v30/a>",
            "<https://up.example/V3/a>",
            "<https://up.example/a>",
            "<https://up.example>",
        ] {
            assert_eq!(of(field), None, "{field}");
        }
    }

    #[test]
    fn malformed_fields_stay_whole() {
        let good = "<https://up.example/v3/a>; rel=next";
        for field in [
            format!("{good}, <https://up.example/v3/b"),
            format!("{good}, https://up.example/v3/b"),
            format!("rel=prev, {good}"),
            format!("{good}; title=\"open"),
            format!("{good} {good}"),
            format!("<https://up.example/v3/a> rel=next, {good}"),
            format!("{good}; title=\"{}\"", "x".repeat(MAX)),
            format!("{good}, ").repeat(MAX / 37),
        ] {
            assert_eq!(of(&field), None, "{field:.200}");
        }
        assert!(of(good).is_some());
    }

    #[test]
    fn another_port_is_part_of_the_origin() {
        let upstream = upstream(Scheme::Http, 8080);
        let moved = |text: &str| moved(&HeaderValue::from_str(text).unwrap(), &upstream, BASE);
        assert!(moved("<http://up.example:8080/v3/a>").is_some());
        assert!(moved("<http://up.example/v3/a>").is_none());
        assert!(moved("<http://up.example:8080:80/v3/a>").is_none());
    }
}
