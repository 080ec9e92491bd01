//! Budgets and rates: how much may be done in a time, each counted for somebody. The counting itself is not in here.

use std::fmt;
use std::sync::Arc;

/// A limit on what callers may do. A rate is one too, with a [`Span`] of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its name, unique in the zone.
    pub name: Arc<str>,
    /// For whom it is counted.
    pub per: BudgetPer,
    /// Only calls of this application count.
    pub application: Option<Arc<str>>,
    /// Only calls of this resource count; its identifier.
    pub resource: Option<Arc<str>>,
    /// What is counted.
    pub measure: Measure,
    /// How much there is. For a rate, the calls that its span takes back.
    pub limit: u64,
    /// When what was used comes back.
    pub span: Span,
}

/// For whom a budget is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetPer {
    /// Each application, over all its sessions.
    Application,
    /// Each resource, over all its callers.
    Resource,
    /// Each session, with every session below it and everything that was delegated from there.
    Session,
    /// Each delegation, with every delegation made from it.
    Delegation,
}

/// What a budget counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// Governed calls.
    Calls,
    /// Bytes of request and response bodies.
    Bytes {
        /// What is set aside before a call whose size nobody knows yet.
        max_per_call: u64,
    },
    /// What the upstream says a call cost.
    Units {
        /// What is set aside before the upstream has said it.
        max_per_call: u64,
        /// Where it says so.
        from: UnitsFrom,
    },
}

/// Where an upstream says what a call cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitsFrom {
    /// A JSON pointer (RFC 6901) into the body, or into the events of a stream.
    Pointer(Arc<str>),
    /// The sum of several numbers. Of each, the places where it may be, the first that has it counts.
    Sum(Vec<Vec<Arc<str>>>),
    /// A response header, in lower case.
    Header(Arc<str>),
}

/// When what was used comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// All of it, every so many seconds.
    Window {
        /// Length of the window.
        seconds: u64,
    },
    /// Never: it lasts as long as the session or delegation.
    Life,
    /// Steadily: `limit` calls in so many seconds.
    Rate {
        /// The seconds.
        seconds: u64,
        /// Calls that may come at once.
        burst: u64,
    },
}

impl Budget {
    /// Whether a call of the application to the resource (its identifier) counts.
    pub fn covers(&self, application: &str, resource: &str) -> bool {
        self.application.as_ref().is_none_or(|own| **own == *application)
            && self.resource.as_ref().is_none_or(|own| **own == *resource)
    }

    /// What is taken before a call.
    pub fn taken_before(&self) -> u64 {
        match self.measure {
            Measure::Calls => 1,
            Measure::Bytes { max_per_call } | Measure::Units { max_per_call, .. } => max_per_call,
        }
    }

    /// The most that may be used: the limit, or a rate's burst.
    pub fn most(&self) -> u64 {
        if let Span::Rate { burst, .. } = self.span { burst } else { self.limit }
    }

    /// Whether it is a rate.
    pub fn is_rate(&self) -> bool {
        matches!(self.span, Span::Rate { .. })
    }

    /// What tells its accounts from those of another budget. Another name, measure or span begins new ones; another
    /// limit does not.
    pub fn key(&self) -> String {
        let span = match self.span {
            Span::Window { seconds } => format!("window-{seconds}"),
            Span::Life => "life".to_owned(),
            Span::Rate { seconds, .. } => format!("rate-{seconds}"),
        };
        format!("{}/{}/{}/{span}", self.name, self.per.word(), self.measure.word())
    }
}

impl BudgetPer {
    /// The word bundles use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Resource => "resource",
            Self::Session => "session",
            Self::Delegation => "delegation",
        }
    }
}

impl Measure {
    /// The word bundles use.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Bytes { .. } => "bytes",
            Self::Units { .. } => "units",
        }
    }
}

/// In words: `1000 calls in 3600 s for each application, at resource://x`.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.limit, self.measure.word())?;
        match self.span {
            Span::Window { seconds } => write!(f, " in {seconds} s")?,
            Span::Life => f.write_str(" in its life")?,
            Span::Rate { seconds, burst } => write!(f, " in {seconds} s, {burst} at once,")?,
        }
        write!(f, " for each {}", self.per.word())?;
        match &self.measure {
            Measure::Calls => {}
            Measure::Bytes { max_per_call } => write!(f, ", {max_per_call} set aside for a call")?,
            Measure::Units { max_per_call, from } => {
                write!(f, ", {max_per_call} set aside for a call and settled by `{from}`")?;
            }
        }
        if let Some(application) = &self.application {
            write!(f, ", by application `{application}`")?;
        }
        if let Some(resource) = &self.resource {
            write!(f, ", at `{resource}`")?;
        }
        Ok(())
    }
}

/// A pointer or a header as it is written; a sum as `/a|/b + /c`.
impl fmt::Display for UnitsFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(text) | Self::Header(text) => f.write_str(text),
            Self::Sum(parts) => {
                let parts: Vec<String> = parts.iter().map(|places| places.join("|")).collect();
                f.write_str(&parts.join(" + "))
            }
        }
    }
}
