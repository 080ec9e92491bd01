//! `caracal test`: the bundles' own tests, against the decision that mints and requests go through.

use caracal_policies::{CaseResult, Report, compile_and_test};
use clap::Args;
use serde_json::{Value, json};

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::{Exit, Global, edge};
use crate::bundles;

/// `caracal test ...`
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The zone whose tests to run; all of them when left out
    zone: Option<String>,
}

pub(super) const HELP: &str = "\
Tests stand in files of their own, which `zone.toml` lists beside the documents:

  [zone]
  documents = [\"policies/grants.toml\"]
  tests = [\"tests/grants.toml\"]

and say who asks for what and what the answer must be:

  [[tests]]
  name = \"a reader reads\"
  application = \"demo-agent\"
  resource = \"resource://echo\"
  labels = [\"demo-agent\"]
  scopes = [\"echo:read\"]
  expect = \"allow\"

A bundle whose tests fail does not come into force: a reload keeps the last good one. Neither a
running edge nor the secrets file is needed to run them.

Exit codes: 0 every test passed, 1 a test failed, 2 the files are wrong.";

/// How the tests of one zone came out.
struct Ran {
    zone: String,
    results: Vec<CaseResult>,
}

impl Ran {
    fn failed(&self) -> usize {
        self.results.iter().filter(|result| !result.passed).count()
    }
}

pub(super) fn run(global: &Global, args: &TestArgs, out: &mut Out) -> Result<Exit, Failed> {
    let ran = match run_all(global, args.zone.as_deref()) {
        Ok(ran) => ran,
        Err(Failed::Report(report)) => {
            if global.json {
                out.value(&json!({ "ok": false, "problems": report.problems }), true)?;
            } else {
                out.note(report.to_string().trim_end())?;
            }
            return Ok(Exit::BadInput);
        }
        Err(failed) => return Err(failed),
    };
    let failed = ran.iter().map(Ran::failed).fold(0_usize, usize::saturating_add);
    if global.json {
        out.value(&summary(&ran, failed == 0), true)?;
    } else {
        tell(&ran, failed, out)?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

fn run_all(global: &Global, only: Option<&str>) -> Result<Vec<Ran>, Failed> {
    let config = edge::load(global)?;
    if let Some(zone) = only
        && !config.zones.contains_key(zone)
    {
        let message = format!("there is no zone `{}` in `{}`", visible(zone), global.config().display());
        return Err(Failed::Said(Exit::BadInput, message));
    }
    let (mut ran, mut problems) = (Vec::new(), Vec::new());
    for (zone, assigned) in config.zones.iter().filter(|(id, _)| only.is_none_or(|only| only == *id)) {
        let tested = bundles::read(&config.bundles_dir, &config.base, zone)
            .and_then(|source| compile_and_test(&source, zone, assigned));
        match tested {
            Ok(tested) => ran.push(Ran { zone: zone.clone(), results: tested.results }),
            Err(report) => problems.extend(report.problems),
        }
    }
    if problems.is_empty() { Ok(ran) } else { Err(Report { problems }.into()) }
}

fn tell(ran: &[Ran], failed: usize, out: &mut Out) -> Result<(), Failed> {
    for zone in ran {
        out.line(&format!("zone {}: {}", zone.zone, counted(zone.results.len())))?;
        for result in &zone.results {
            tell_one(result, out)?;
        }
    }
    let all = ran.iter().map(|zone| zone.results.len()).fold(0_usize, usize::saturating_add);
    let passed = all.saturating_sub(failed);
    let verdict = match (all, failed) {
        (0, _) => out.paint(Style::Faint, "nothing was tested; `caracal test --help` shows how to begin"),
        (_, 0) => out.paint(Style::Good, &format!("all good: {passed} passed")),
        _ => out.paint(Style::Bad, &format!("not good: {failed} failed, {passed} passed")),
    };
    out.line(&verdict)?;
    Ok(())
}

fn tell_one(result: &CaseResult, out: &mut Out) -> Result<(), Failed> {
    let name = visible(&result.name);
    if result.passed {
        let word = out.paint(Style::Good, "ok    ");
        out.line(&format!("  {word}  {name}"))?;
        return Ok(());
    }
    let word = out.paint(Style::Bad, "FAILED");
    out.line(&format!("  {word}  {name}"))?;
    out.line(&format!("            --> {}", result.place))?;
    out.line(&format!("            answered: {}", result.answered))?;
    out.line(&format!("            expected: {}", result.expected))?;
    Ok(())
}

fn counted(tests: usize) -> String {
    match tests {
        0 => "no tests".to_owned(),
        1 => "1 test".to_owned(),
        more => format!("{more} tests"),
    }
}

fn summary(ran: &[Ran], ok: bool) -> Value {
    let zones: Vec<Value> = ran
        .iter()
        .map(|zone| {
            let tests: Vec<Value> = zone
                .results
                .iter()
                .map(|result| {
                    json!({
                        "name": &*result.name,
                        "place": result.place,
                        "passed": result.passed,
                        "answered": result.answered,
                        "expected": result.expected,
                    })
                })
                .collect();
            json!({ "zone": zone.zone, "failed": zone.failed(), "tests": tests })
        })
        .collect();
    json!({ "ok": ok, "zones": zones })
}

#[cfg(test)]
mod tests;
