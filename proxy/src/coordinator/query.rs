//! Query strings of the lists and of an end.

use percent_encoding::percent_decode_str;

use super::refused::Refused;
use crate::authority::is_id;
use crate::state::{
    InvocationFilter, InvocationStatus, Lifecycle, PageRequest, SessionFilter, SessionStatus,
};

/// Rows of a page when nothing else is asked for.
const DEFAULT_LIMIT: usize = 100;
/// Most rows of a page.
const MAX_LIMIT: usize = 500;
/// Longest label looked for, in characters.
const MAX_LABEL: usize = 64;
/// Longest reason of an end, in characters.
const MAX_REASON: usize = 256;

/// A decoded query string. Names nobody asks for are ignored; a name that is asked for may occur once.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// 400 `invalid_query` for text that is not UTF-8 after decoding.
    pub(super) fn parse(raw: &str) -> Result<Self, Refused> {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_not_utf8| invalid())
        };
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, Refused>>().map(Self)
    }

    fn one(&self, name: &str) -> Result<Option<&str>, Refused> {
        let mut found = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (found.next(), found.next()) {
            (one, None) => Ok(one),
            _ => Err(invalid()),
        }
    }

    /// `limit` and `cursor`.
    ///
    /// # Errors
    /// 400 `invalid_query`.
    pub(super) fn page(&self) -> Result<PageRequest, Refused> {
        let limit = match self.one("limit")? {
            None => DEFAULT_LIMIT,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(invalid)?
            }
            Some(_) => return Err(invalid()),
        };
        let cursor = match self.one("cursor")? {
            Some(cursor) if !is_id(cursor) => return Err(invalid()),
            cursor => cursor.map(str::to_owned),
        };
        Ok(PageRequest { limit, cursor })
    }

    /// `status`, `lifecycle`, `application_id` and `label`.
    ///
    /// # Errors
    /// 400 `invalid_query`.
    pub(super) fn sessions(&self) -> Result<SessionFilter, Refused> {
        let word = |name, known: &dyn Fn(&str) -> bool| match self.one(name)? {
            Some(word) if !known(word) => Err(invalid()),
            word => Ok(word),
        };
        let status = word("status", &|word| SessionStatus::from_word(word).is_some())?;
        let lifecycle = word("lifecycle", &|word| Lifecycle::from_word(word).is_some())?;
        let application = word("application_id", &is_id)?;
        let label = word("label", &|label| (1..=MAX_LABEL).contains(&label.chars().count()))?;
        Ok(SessionFilter {
            status: status.and_then(SessionStatus::from_word),
            lifecycle: lifecycle.and_then(Lifecycle::from_word),
            application: application.map(str::to_owned),
            label: label.map(str::to_owned),
        })
    }

    /// `status`, `service_id` and `session_id`.
    ///
    /// # Errors
    /// 400 `invalid_query`.
    pub(super) fn invocations(&self) -> Result<InvocationFilter, Refused> {
        let id = |name| match self.one(name)? {
            Some(id) if !is_id(id) => Err(invalid()),
            id => Ok(id.map(str::to_owned)),
        };
        let status = self.one("status")?.map(|word| InvocationStatus::from_word(word).ok_or_else(invalid));
        Ok(InvocationFilter {
            status: status.transpose()?,
            service: id("service_id")?,
            session: id("session_id")?,
        })
    }

    /// `reason`; `requested` when there is none.
    ///
    /// # Errors
    /// 400 `invalid_query`.
    pub(super) fn reason(&self) -> Result<&str, Refused> {
        let reason = self.one("reason")?.unwrap_or("requested");
        let fits = (1..=MAX_REASON).contains(&reason.chars().count()) && !reason.contains(char::is_control);
        if fits { Ok(reason) } else { Err(invalid()) }
    }
}

const fn invalid() -> Refused {
    Refused::new(400, "invalid_query")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(raw: &str) -> Query {
        Query::parse(raw).unwrap()
    }

    #[test]
    fn pages_have_a_default_a_limit_and_a_cursor() {
        let page = query("").page().unwrap();
        assert_eq!((page.limit, page.cursor), (100, None));
        let page = query("limit=500&cursor=a-1&unknown=x").page().unwrap();
        assert_eq!((page.limit, page.cursor.as_deref()), (500, Some("a-1")));
        for bad in [
            "limit=0",
            "limit=501",
            "limit=x",
            "limit=",
            "limit=+1",
            "limit=1&limit=1",
            "cursor=",
            "cursor=%20",
        ] {
            assert_eq!(query(bad).page().unwrap_err().code, "invalid_query", "{bad}");
        }
    }

    #[test]
    fn filters_know_their_words() {
        let filter =
            query("status=active&lifecycle=service&application_id=a&label=x%20y").sessions().unwrap();
        assert_eq!(filter.status, Some(SessionStatus::Active));
        assert_eq!(filter.lifecycle, Some(Lifecycle::Service));
        assert_eq!((filter.application.as_deref(), filter.label.as_deref()), (Some("a"), Some("x y")));
        for bad in ["status=gone", "lifecycle=x", "application_id=%2F", "label="] {
            assert_eq!(query(bad).sessions().unwrap_err().code, "invalid_query", "{bad}");
        }
        assert_eq!(Query::parse("label=%ff").unwrap_err().code, "invalid_query");
    }

    #[test]
    fn invocations_are_filtered_by_known_words_and_ids() {
        let filter = query("status=timed_out&service_id=s&session_id=a").invocations().unwrap();
        assert_eq!(filter.status, Some(InvocationStatus::TimedOut));
        assert_eq!((filter.service.as_deref(), filter.session.as_deref()), (Some("s"), Some("a")));
        for bad in ["status=gone", "service_id=", "session_id=%2F"] {
            assert_eq!(query(bad).invocations().unwrap_err().code, "invalid_query", "{bad}");
        }
    }

    #[test]
    fn an_end_is_requested_unless_told_otherwise() {
        assert_eq!(query("").reason().unwrap(), "requested");
        assert_eq!(query("reason=done+now").reason().unwrap(), "done now");
        let long = format!("reason={}", "x".repeat(257));
        for bad in ["reason=", "reason=a%0ab", long.as_str()] {
            assert_eq!(query(bad).reason().unwrap_err().code, "invalid_query");
        }
    }
}
