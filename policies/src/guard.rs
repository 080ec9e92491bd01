//! Guards: conditions over a request, in CEL, that can refuse it or have a person asked. They can allow nothing.
//!
//! Only the syntax is taken from the `cel` crate. Its interpreter has no fuel and calls values of two kinds unequal,
//! which lets a request through where a guard looks for a value; here that is a fault, and a fault denies. So the tree
//! is compiled into one of our own, with types, captured facts and worst case known at load.

mod expression;
mod facts;
mod node;
mod time;

use std::fmt;
use std::sync::Arc;

pub use self::facts::{Fault, GuardFacts};
use self::node::{Fact, Node, is_placeholder_of};
use crate::authorize::UseRequest;
use crate::data::TierDeclaration;
use crate::operations::{Operation, OperationMethod};
use crate::read::PlacedName;
use crate::report::Place;

/// What a guard does when its condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuardMode {
    /// It refuses the request.
    #[default]
    Enforce,
    /// It is counted and recorded, and refuses nothing.
    Shadow,
}

/// One guard of a resource.
#[derive(Clone)]
pub struct Guard {
    /// Its name, which no other guard of the resource has.
    pub name: Arc<str>,
    /// The condition as it is written.
    pub when: Box<str>,
    /// What it does.
    pub mode: GuardMode,
    /// Whom it asks where the condition holds; none for one that refuses.
    pub ask: Option<Ask>,
    /// What it looks at.
    pub(crate) about: About,
    root: Node,
    reads: Reads,
    /// Placeholders it reads.
    params: Vec<Box<str>>,
    /// A fact it reads that only an MCP server has, or never.
    of_mcp: Option<(&'static str, bool)>,
    /// Where it is declared.
    pub place: Place,
}

/// What a guard asks of a person before the very request may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The tier as the zone declares it: who answers, and how long that is waited for.
    pub tier: TierDeclaration,
    /// JSON pointers to what whoever answers is shown of the body, or of the arguments of a tool; sorted.
    pub show: Vec<Box<str>>,
}

impl Ask {
    /// In a tier of which only the name is known yet; see [`Guards::in_tiers`].
    pub(crate) fn undeclared(tier: &PlacedName, show: &[PlacedName]) -> Self {
        let tier = TierDeclaration {
            tier: Arc::clone(&tier.value),
            approver: None,
            ttl_seconds: None,
            privacy: None,
            self_approval: None,
        };
        let mut show: Vec<Box<str>> = show.iter().map(|pointer| (*pointer.value).into()).collect();
        show.sort_unstable();
        Self { tier, show }
    }
}

/// Which requests a guard looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum About {
    Everything,
    /// Requests that one of these operations decides: methods and templates, sorted.
    Operations(Vec<(OperationMethod, Box<str>)>),
    /// Calls of one of these tools, sorted.
    Tools(Vec<Box<str>>),
}

/// Facts that have to be fetched for a guard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Header fields.
    pub headers: bool,
    /// The query.
    pub query: bool,
    /// The body, or the arguments of a tool call.
    pub body: bool,
}

/// The guards of a resource, sorted by name. Never empty.
#[derive(Debug)]
pub struct Guards {
    all: Vec<Arc<Guard>>,
    reads: Reads,
    asks: bool,
}

/// A guard whose condition holds, or has no answer.
#[derive(Debug, Clone)]
pub struct Fired {
    /// The guard.
    pub guard: Arc<Guard>,
    /// Why there is no answer, where there is none.
    pub fault: Option<Fault>,
}

/// Why the guards of a resource do not let a request pass. With either, the guards in shadow mode that fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// This one refuses it.
    Refused(Fired, Vec<Fired>),
    /// Nothing refuses it, and these ask for a person's yes, sorted by name. Never empty.
    Asked(Vec<Fired>, Vec<Fired>),
}

/// What guards look at in one request.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a UseRequest<'a, 'a>,
    pub(crate) facts: &'a GuardFacts<'a>,
    /// The template of the operation that decides.
    pub(crate) template: Option<&'a str>,
}

/// How the guards of a resource judge a request.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// The guard that refuses it.
    pub(crate) refused: Option<Fired>,
    /// Guards that ask for a person's yes.
    pub(crate) asked: Vec<Fired>,
    /// Guards in shadow mode that would have done either.
    pub(crate) shadowed: Vec<Fired>,
}

/// Why a condition cannot be used: place within it, what was found and what was expected.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) at: Option<(usize, usize)>,
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl Guard {
    /// Compiles a guard.
    ///
    /// # Errors
    /// What is wrong with its condition.
    pub(crate) fn new(
        name: Arc<str>,
        when: &str,
        mode: GuardMode,
        ask: Option<Ask>,
        about: About,
        place: Place,
    ) -> Result<Self, Unusable> {
        let compiled = expression::compile(when).map_err(|wrong| Unusable {
            at: wrong.at,
            found: wrong.found,
            expected: wrong.expected,
        })?;
        let (mut reads, mut params, mut of_mcp) = (Reads::default(), Vec::new(), None);
        for fact in compiled.facts {
            match fact {
                Fact::Body => (reads.body, of_mcp) = (true, Some(("body", false))),
                Fact::McpArguments => (reads.body, of_mcp) = (true, Some(("mcp.arguments", true))),
                Fact::McpMethod => of_mcp = Some(("mcp.method", true)),
                Fact::McpTool => of_mcp = Some(("mcp.tool", true)),
                Fact::Param(name) => params.push(name),
                Fact::Header(_) => reads.headers = true,
                Fact::Query(_) => reads.query = true,
                Fact::Method
                | Fact::Path
                | Fact::Segments
                | Fact::Application
                | Fact::Subject
                | Fact::Session
                | Fact::Labels
                | Fact::Depth
                | Fact::Source
                | Fact::Time(_) => {}
            }
        }
        let shows = ask.as_ref().is_some_and(|ask| !ask.show.is_empty());
        reads.body |= shows && mode == GuardMode::Enforce;
        Ok(Self {
            name,
            when: when.into(),
            mode,
            ask,
            about,
            root: compiled.root,
            reads,
            params,
            of_mcp,
            place,
        })
    }

    /// A fact it reads that a resource with `mcp`, or one without, never has.
    pub(crate) fn impossible(&self, mcp: bool) -> Option<&'static str> {
        self.of_mcp.filter(|(_, needs)| *needs != mcp).map(|(name, _)| name)
    }

    /// A placeholder it reads that none of these templates has.
    pub(crate) fn unknown_param(&self, templates: &[&str]) -> Option<&str> {
        let known = |name: &str| {
            templates
                .iter()
                .any(|template| template.split('/').any(|segment| is_placeholder_of(segment, name)))
        };
        self.params.iter().map(|name| &**name).find(|name| !known(name))
    }

    /// Whether it looks at requests that this operation decides, with this tool.
    fn concerns(&self, operation: Option<&Operation>, tool: Option<&str>) -> bool {
        match &self.about {
            About::Everything => true,
            About::Operations(operations) => operation.is_some_and(|operation| {
                operations.iter().any(|(method, path)| *method == operation.method && *path == operation.path)
            }),
            About::Tools(tools) => tool.is_some_and(|tool| tools.iter().any(|known| **known == *tool)),
        }
    }
}

impl Guards {
    /// The guards of a resource; none when there are none.
    pub(crate) fn new(mut all: Vec<Arc<Guard>>) -> Option<Arc<Self>> {
        all.sort_by(|one, two| one.name.cmp(&two.name));
        let mut reads = Reads::default();
        for guard in &all {
            reads.headers |= guard.reads.headers;
            reads.query |= guard.reads.query;
            reads.body |= guard.reads.body;
        }
        let asks = all.iter().any(|guard| guard.ask.is_some() && guard.mode == GuardMode::Enforce);
        (!all.is_empty()).then(|| Arc::new(Self { all, reads, asks }))
    }

    /// The same guards, asking in the tiers as they are declared; none where they do so already.
    pub(crate) fn in_tiers(&self, declared: &[TierDeclaration]) -> Option<Arc<Self>> {
        let other = |guard: &Guard| {
            let ask = guard.ask.as_ref()?;
            declared.iter().find(|tier| tier.tier == ask.tier.tier && **tier != ask.tier)
        };
        if !self.all.iter().any(|guard| other(guard).is_some()) {
            return None;
        }
        let all = self.all.iter().map(|guard| match (other(guard), &guard.ask) {
            (Some(tier), Some(Ask { show, .. })) => {
                let ask = Some(Ask { tier: tier.clone(), show: show.clone() });
                Arc::new(Guard { ask, ..Guard::clone(guard) })
            }
            _ => Arc::clone(guard),
        });
        Some(Arc::new(Self { all: all.collect(), reads: self.reads, asks: self.asks }))
    }

    /// Every guard.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Guard>> {
        self.all.iter()
    }

    /// Whether both refuse the same requests, wherever they are declared.
    pub fn same(&self, other: &Self) -> bool {
        self.all.len() == other.all.len()
            && self.all.iter().zip(&other.all).all(|(one, two)| {
                (&one.name, &one.when, one.mode, &one.ask, &one.about)
                    == (&two.name, &two.when, two.mode, &two.ask, &two.about)
            })
    }

    /// What its guards read, whichever request it is.
    pub fn reads(&self) -> Reads {
        self.reads
    }

    /// The guards that refuse or hold some requests of this operation, whichever tool they call.
    pub fn enforced_on<'a>(
        &'a self,
        operation: Option<&'a Operation>,
    ) -> impl Iterator<Item = &'a Arc<Guard>> {
        self.all.iter().filter(move |guard| {
            let about_tools = matches!(guard.about, About::Tools(_));
            guard.mode == GuardMode::Enforce && (about_tools || guard.concerns(operation, None))
        })
    }

    /// Whether a guard that looks at requests of this operation reads their body.
    pub fn reads_body_of(&self, operation: Option<&Operation>) -> bool {
        self.reads.body && self.all.iter().any(|guard| guard.reads.body && guard.concerns(operation, None))
    }

    /// Whether a guard looks at requests of this operation that has a person asked about the whole of one.
    pub fn asks_of(&self, operation: Option<&Operation>) -> bool {
        self.asks && self.enforced_on(operation).any(|guard| guard.ask.is_some())
    }

    /// Whether any guard has a person asked.
    pub fn asks(&self) -> bool {
        self.asks
    }

    pub(crate) fn judge(&self, asked: &Asked<'_>, operation: Option<&Operation>) -> Judgement {
        let tool = asked.request.call.and_then(crate::mcp::McpCall::tool);
        let mut judgement = Judgement::default();
        let mut locals = Vec::new();
        for guard in self.all.iter().filter(|guard| guard.concerns(operation, tool)) {
            locals.clear();
            let fault = match guard.root.truth(asked, &mut locals) {
                Ok(false) => continue,
                Ok(true) => None,
                Err(fault) => Some(fault),
            };
            let fired = Fired { guard: Arc::clone(guard), fault };
            match guard.mode {
                GuardMode::Shadow => judgement.shadowed.push(fired),
                GuardMode::Enforce if fired.asks() => judgement.asked.push(fired),
                // A condition that holds says more than one without an answer.
                GuardMode::Enforce => match &judgement.refused {
                    Some(first) if first.fault.is_none() || fired.fault.is_some() => {}
                    _ => judgement.refused = Some(fired),
                },
            }
        }
        judgement
    }
}

impl Fired {
    /// Whether its guard has an answer, and that is to ask a person.
    pub fn asks(&self) -> bool {
        self.fault.is_none() && self.guard.ask.is_some()
    }

    /// `held`, or why there is no answer.
    pub fn outcome(&self) -> &'static str {
        self.fault.map_or("held", Fault::word)
    }
}

/// The same guard for the same reason.
impl PartialEq for Fired {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.guard, &other.guard) && self.fault == other.fault
    }
}

impl Eq for Fired {}

impl GuardMode {
    /// The word bundles use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

impl About {
    /// In words, for reports and the digest.
    pub(crate) fn words(&self) -> Vec<String> {
        match self {
            Self::Everything => Vec::new(),
            Self::Operations(operations) => {
                operations.iter().map(|(method, path)| format!("{method} {path}")).collect()
            }
            Self::Tools(tools) => tools.iter().map(|tool| format!("tool {tool}")).collect(),
        }
    }
}

/// Without the compiled tree.
impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("name", &self.name)
            .field("when", &self.when)
            .field("mode", &self.mode)
            .field("ask", &self.ask)
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}
