//! `caracal sessions`: which there are, how they hang together, and what one of them holds.

use std::collections::{HashMap, HashSet};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::{Exit, Global, edge};
use crate::control::{Request, Which};
use crate::state::SessionStatus;

/// Rows asked for to draw a tree.
const WHOLE_TREE: usize = 10_000;

/// `caracal sessions ...`
#[derive(Debug, Subcommand)]
pub(super) enum SessionsCommand {
    /// List sessions, newest first
    List(ListArgs),
    /// Draw sessions under the ones that started them
    Tree(TreeArgs),
    /// Show one session, with every delegation it received or gave
    Show {
        /// The session's id
        id: String,
        /// Its zone; needed only when several zones have it
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
    },
}

/// `caracal sessions list ...`
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    which: TreeArgs,
    /// Most rows
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
}

/// Which sessions.
#[derive(Debug, Args)]
pub(super) struct TreeArgs {
    /// Only this zone
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Only those with this status; without it, those that have not ended
    #[arg(long, value_name = "STATUS", conflicts_with = "all")]
    status: Option<StatusWord>,
    /// Ended ones too, as long as they are remembered
    #[arg(long)]
    all: bool,
}

/// The words for where a session stands.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StatusWord {
    /// May act
    Active,
    /// Stopped; may be resumed
    Suspended,
    /// Ended by somebody
    Terminated,
    /// Ended by its own clock
    Expired,
}

impl TreeArgs {
    fn request(&self, limit: usize) -> Request {
        let which = match self.status {
            _ if self.all => Which::All,
            None => Which::Standing,
            Some(StatusWord::Active) => Which::Only(SessionStatus::Active),
            Some(StatusWord::Suspended) => Which::Only(SessionStatus::Suspended),
            Some(StatusWord::Terminated) => Which::Only(SessionStatus::Terminated),
            Some(StatusWord::Expired) => Which::Only(SessionStatus::Expired),
        };
        Request::Sessions { zone: self.zone.clone(), which, limit }
    }
}

pub(super) async fn run(global: &Global, command: &SessionsCommand, out: &mut Out) -> Result<Exit, Failed> {
    let request = match command {
        SessionsCommand::List(args) => args.which.request(usize::from(args.limit)),
        SessionsCommand::Tree(args) => args.request(WHOLE_TREE),
        SessionsCommand::Show { id, zone } => Request::Session { zone: zone.clone(), id: id.clone() },
    };
    let answer = edge::ask(global, &request).await?;
    if global.json {
        out.value(&answer, true)?;
        return Ok(Exit::Done);
    }
    match command {
        SessionsCommand::List(_) => list(&answer, out)?,
        SessionsCommand::Tree(_) => tree(&answer, out)?,
        SessionsCommand::Show { .. } => out.value(&answer, false)?,
    }
    Ok(Exit::Done)
}

fn list(answer: &Value, out: &mut Out) -> Result<(), Failed> {
    let rows = rows(answer);
    if rows.is_empty() {
        out.line("no sessions")?;
    }
    for row in rows {
        let line = line(row, out);
        out.line(&line)?;
    }
    rest(answer, out)
}

fn tree(answer: &Value, out: &mut Out) -> Result<(), Failed> {
    let rows = rows(answer);
    let known: HashSet<&str> = rows.iter().filter_map(|row| row.get("id")?.as_str()).collect();
    let mut children: HashMap<&str, Vec<&Value>> = HashMap::new();
    let mut zones: Vec<(&str, Vec<&Value>)> = Vec::new();
    // Oldest first reads as a story; the answer is newest first.
    for row in rows.iter().rev() {
        let parent = row.get("parent").and_then(Value::as_str).filter(|parent| known.contains(parent));
        match parent {
            Some(parent) => children.entry(parent).or_default().push(row),
            None => {
                let zone = row.get("zone").and_then(Value::as_str).unwrap_or_default();
                match zones.iter_mut().find(|(name, _)| *name == zone) {
                    Some((_, roots)) => roots.push(row),
                    None => zones.push((zone, vec![row])),
                }
            }
        }
    }
    if zones.is_empty() {
        out.line("no sessions")?;
    }
    zones.sort_by_key(|(zone, _)| *zone);
    for (zone, roots) in zones {
        let title = out.paint(Style::Strong, &visible(zone));
        out.line(&title)?;
        branches(&roots, &children, "", out)?;
    }
    rest(answer, out)
}

/// Draws the sessions and everything under them. A session is under one that is older, so this ends.
fn branches(
    sessions: &[&Value],
    children: &HashMap<&str, Vec<&Value>>,
    indent: &str,
    out: &mut Out,
) -> Result<(), Failed> {
    for (place, session) in sessions.iter().enumerate() {
        let last = place.saturating_add(1) == sessions.len();
        let (here, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let text = line(session, out);
        out.line(&format!("{indent}{here}{text}"))?;
        let own = session.get("id").and_then(Value::as_str).and_then(|id| children.get(id));
        branches(own.map_or(&[], Vec::as_slice), children, &format!("{indent}{below}"), out)?;
    }
    Ok(())
}

fn line(row: &Value, out: &Out) -> String {
    let word = |name: &str| visible(row.get(name).and_then(Value::as_str).unwrap_or("-"));
    let number = |name: &str| row.get(name).and_then(Value::as_i64);
    let status = word("status");
    let live = row.get("live") == Some(&Value::Bool(true));
    let status = out.paint(if live { Style::Good } else { Style::Bad }, &status);
    let labels = row.get("labels").and_then(Value::as_array).into_iter().flatten();
    let labels: Vec<String> = labels.filter_map(Value::as_str).map(visible).collect();
    let mut parts = vec![
        word("id"),
        word("application"),
        word("lifecycle"),
        status,
        format!("[{}]", labels.join(" ")),
        format!("age {}", duration(number("age_seconds").unwrap_or(0))),
    ];
    parts.extend(number("left_seconds").map(|left| format!("left {}", duration(left))));
    parts.extend(number("hops_left").map(|hops| format!("hops {hops}")));
    let edges = |name: &str, word: &str| number(name).filter(|n| *n > 0).map(|n| format!("{word} {n}"));
    parts.extend(edges("received_live", "holds"));
    parts.extend(edges("given_live", "gave"));
    parts.join("  ")
}

fn rest(answer: &Value, out: &mut Out) -> Result<(), Failed> {
    if answer.get("more") == Some(&Value::Bool(true)) {
        out.note("there are more sessions than shown; --limit, --zone and --status choose")?;
    }
    Ok(())
}

fn rows(answer: &Value) -> &[Value] {
    answer.get("sessions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `59s`, `12m`, `3h 5m`, `2d 1h`.
pub(super) fn duration(seconds: i64) -> String {
    let part = |of: i64, size: i64| of.checked_div(size).unwrap_or(0);
    let rest = |of: i64, size: i64| of.checked_rem(size).unwrap_or(0);
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", part(seconds, 60)),
        3_600..86_400 => format!("{}h {}m", part(seconds, 3_600), part(rest(seconds, 3_600), 60)),
        _ => format!("{}d {}h", part(seconds, 86_400), part(rest(seconds, 86_400), 3_600)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::out::Colour;
    use super::super::tests::Page;
    use super::*;

    fn shown(answer: &Value, draw: fn(&Value, &mut Out) -> Result<(), Failed>) -> String {
        let page = Page::default();
        let mut out = Out::into_writers(Box::new(page.clone()), Box::new(Page::default()), Colour::Plain);
        draw(answer, &mut out).unwrap();
        page.text()
    }

    fn row(id: &str, parent: Option<&str>) -> Value {
        json!({
            "id": id, "zone": "z", "application": "app", "parent": parent, "lifecycle": "task",
            "labels": ["reader"], "status": "active", "live": true, "age_seconds": 75, "left_seconds": 3_700,
            "hops_left": 2, "received_live": 1, "given_live": 0,
        })
    }

    #[test]
    fn a_tree_has_children_under_their_parents_and_orphans_at_the_top() {
        let newest_first = [row("d", Some("gone")), row("c", Some("b")), row("b", Some("a")), row("a", None)];
        let text = shown(&json!({ "sessions": newest_first }), tree);
        let ids: Vec<&str> = text.lines().map(|line| line.split("  app").next().unwrap()).collect();
        assert_eq!(ids, ["z", "├─ a", "│  └─ b", "│     └─ c", "└─ d"]);
    }

    #[test]
    fn a_line_says_what_there_is_to_say() {
        let text = shown(&json!({ "sessions": [row("a", None)] }), list);
        assert_eq!(text, "a  app  task  active  [reader]  age 1m  left 1h 1m  hops 2  holds 1\n");
        assert_eq!(shown(&json!({ "sessions": [] }), list), "no sessions\n");
    }

    #[test]
    fn labels_cannot_drive_a_terminal() {
        let mut evil = row("a", None);
        evil["labels"] = json!(["\u{1b}[2J"]);
        assert!(!shown(&json!({ "sessions": [evil] }), list).contains('\u{1b}'));
    }

    #[test]
    fn durations_have_at_most_two_parts() {
        let told: Vec<String> = [0, 59, 60, 3_599, 3_600, 86_399, 90_000].map(duration).into();
        assert_eq!(told, ["0s", "59s", "1m", "59m", "1h 0m", "23h 59m", "1d 1h"]);
    }
}
