//! `caracal who-can`: which applications may send a request, in which roles.

use clap::Args;
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::{Exit, Global, edge};
use crate::control::Request;

pub(super) const HELP: &str = "\
The URL is the upstream's, as the SDKs get it, or a path at the gateway. Every resource that the
request could be one to is shown, and for each the roles that hold what it needs. The answers are
those that a mint and then the request would get at this moment.

  caracal who-can GET https://api.example.com/v1/items/1
  caracal who-can POST /echo/write/hello

Exit codes: 0 told, 1 no resource leads there, 69 no edge is running.";

/// `caracal who-can ...`
#[derive(Debug, Args)]
pub(super) struct WhoCanArgs {
    /// The method, in capitals
    method: String,
    /// The URL at the upstream, or the path at the gateway
    url: String,
    /// Only this zone
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

pub(super) async fn run(global: &Global, args: &WhoCanArgs, out: &mut Out) -> Result<Exit, Failed> {
    let WhoCanArgs { method, url, zone } = args;
    let request = Request::WhoCan { zone: zone.clone(), method: method.clone(), url: url.clone() };
    let answer = edge::ask(global, &request).await?;
    if global.json {
        out.value(&answer, true)?;
    } else {
        list(&answer, "ways").iter().try_for_each(|way| tell(way, out))?;
    }
    Ok(Exit::Done)
}

fn tell(way: &Value, out: &mut Out) -> Result<(), Failed> {
    let title =
        format!("resource {} in {}, path {}", word(way, "resource"), word(way, "zone"), word(way, "path"));
    let title = out.paint(Style::Strong, &title);
    out.line(&title)?;
    let scopes = words(list(way, "scopes"));
    if scopes.is_empty() {
        out.line("  nobody can: the resource has no such operation")?;
        return Ok(());
    }
    let operation = way.get("operation").and_then(Value::as_str);
    out.line(&match operation {
        Some(operation) => format!("  is `{}`, which needs {scopes}", visible(operation)),
        None => format!("  is open to any scope of the resource: {scopes}"),
    })?;
    let applications = list(way, "applications");
    if applications.is_empty() {
        out.line("  nobody can: it is granted to no role")?;
    }
    for application in applications {
        for role in list(application, "roles") {
            let who = format!("{} as {}", word(application, "application"), word(role, "label"));
            let line = match role.get("refused").and_then(Value::as_str) {
                Some(code) => out.paint(Style::Bad, &format!("  may not: {who} ({})", visible(code))),
                None => {
                    let held = words(list(role, "scopes"));
                    out.paint(Style::Good, &format!("  may: {who}, with {held}, by {}", word(role, "rule")))
                }
            };
            out.line(&line)?;
        }
    }
    for guard in list(way, "guards") {
        let (name, place) = (word(guard, "name"), word(guard, "place"));
        let line = match guard.get("asks_in_tier").and_then(Value::as_str) {
            None => format!("  unless the guard `{name}` refuses the very request [{place}]"),
            Some(tier) => {
                let tier = visible(tier);
                format!(
                    "  where the guard `{name}` holds, once a person approves it in tier `{tier}` [{place}]"
                )
            }
        };
        out.line(&line)?;
    }
    Ok(())
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn words(values: &[Value]) -> String {
    values.iter().filter_map(Value::as_str).map(visible).collect::<Vec<_>>().join(" or ")
}

fn word(of: &Value, name: &str) -> String {
    visible(of.get(name).and_then(Value::as_str).unwrap_or("-"))
}
