//! A plugin of your own: every request names the change ticket it is made for, and the ticket must be open.
//!
//! It adds the fact `ticket.number`, which goes into the ledger with the decision, and refuses on it. It
//! removes the header afterwards: the upstream has no use for it.
//!
//! ```toml
//! plugins = [ { name = "ticket", open = ["CHG-1001", "CHG-1002"] } ]
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use caracal_plugins::{Declaration, Phase, Plugin, RequestView, Verdict};
use serde::Deserialize;

/// The name under which a registry knows it: `registry.register(NAME, make)`.
pub const NAME: &str = "ticket";

/// Builds the plugin from its table in a bundle.
///
/// # Errors
/// What is wrong with the table; the loader adds file, line and column.
pub fn make(table: &toml::Table) -> Result<Arc<dyn Plugin>, String> {
    let settings = Settings::deserialize(table.clone()).map_err(|error| error.message().to_owned())?;
    if settings.open.is_empty() {
        return Err("`open` lists no ticket, so every request would be refused".to_owned());
    }
    let header = settings
        .header
        .parse()
        .map_err(|_invalid| format!("`header` is not a header name: `{}`", settings.header))?;
    let declaration =
        Declaration { phases: vec![Phase::Request], request_headers: vec![header], ..Declaration::default() };
    Ok(Arc::new(Ticket { header: settings.header, open: settings.open, declaration }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "default_header")]
    header: String,
    open: BTreeSet<String>,
}

fn default_header() -> String {
    "x-ticket".to_owned()
}

#[derive(Debug)]
struct Ticket {
    header: String,
    open: BTreeSet<String>,
    declaration: Declaration,
}

impl Plugin for Ticket {
    fn name(&self) -> &'static str {
        NAME
    }

    fn declares(&self) -> Declaration {
        self.declaration.clone()
    }

    fn on_request(&self, view: &mut RequestView<'_>) -> Verdict {
        let mut named = view.headers(&self.header).map(|value| value.to_str().unwrap_or_default().to_owned());
        let number = match (named.next(), named.next()) {
            (None, _) => return Verdict::refuse("ticket_missing"),
            (Some(_), Some(_)) => return Verdict::refuse("ticket_ambiguous"),
            (Some(number), None) => number,
        };
        drop(named);
        if !self.open.contains(&number) {
            return Verdict::refuse("ticket_not_open");
        }
        view.add_fact("number", &number);
        view.remove_header(&self.header);
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use caracal_plugins::{Chain, ChainStop, Facts, Registry};
    use caracal_policies::{Place, PluginSpec};
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn chain(settings: &str) -> Result<Chain, String> {
        let mut registry = Registry::stock();
        registry.register(NAME, make).unwrap();
        let place = Place { file: "resources.toml".into(), line: 1, column: 1 };
        let spec = PluginSpec { name: NAME.to_owned(), config: settings.parse().unwrap(), place };
        Chain::build(&registry, &[spec]).map_err(|problems| problems[0].message.clone())
    }

    fn call(tickets: &[&'static str]) -> (Result<(), ChainStop>, HeaderMap, Facts) {
        let mut headers = HeaderMap::new();
        for ticket in tickets {
            headers.append("x-ticket", HeaderValue::from_static(ticket));
        }
        let mut facts = Facts::new();
        let chain = chain(r#"open = ["CHG-1001", "CHG-1002"]"#).unwrap();
        let answer = chain.on_request("GET", "/read/hello", &mut headers, &mut facts);
        (answer, headers, facts)
    }

    #[test]
    fn an_open_ticket_becomes_a_fact_and_leaves_the_request() {
        let (answer, headers, facts) = call(&["CHG-1002"]);
        assert_eq!(answer, Ok(()));
        assert_eq!(facts.find("ticket.number"), Some("CHG-1002"));
        assert!(headers.is_empty());
    }

    #[test]
    fn a_request_without_exactly_one_open_ticket_is_refused() {
        for (tickets, code) in [
            (&[][..], "ticket_missing"),
            (&["CHG-9"][..], "ticket_not_open"),
            (&["CHG-1001", "CHG-1002"][..], "ticket_ambiguous"),
        ] {
            let (answer, _, facts) = call(tickets);
            assert_eq!(answer, Err(ChainStop::Refused { plugin: NAME, code }));
            assert_eq!(facts.iter().count(), 0);
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_at_load() {
        assert!(chain("open = []").unwrap_err().contains("every request would be refused"));
        assert!(chain("opened = [\"A\"]").unwrap_err().contains("unknown field `opened`"));
        assert!(chain("open = [\"A\"]\nheader = \"a b\"").unwrap_err().contains("not a header name"));
        assert!(chain("open = [\"A\"]\nheader = \"authorization\"").unwrap_err().contains("not let in"));
    }
}
