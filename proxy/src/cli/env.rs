//! `caracal env`: the environment an application's SDK reads.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use super::exit::Failed;
use super::out::Out;
use super::shell::quoted;
use super::{Exit, Global, edge};
use crate::control::{ApplicationView, ResourceView};

/// `caracal env ...`
#[derive(Debug, Args)]
pub(super) struct EnvArgs {
    /// The application's id
    #[arg(long, value_name = "ID", env = "CARACAL_APPLICATION_ID")]
    app: String,
    /// The application's zone; needed when several zones have one of that id
    #[arg(long, value_name = "ZONE", env = "CARACAL_ZONE_ID")]
    zone: Option<String>,
    /// The file that holds the application's secret, mode 0600
    #[arg(long, value_name = "FILE", env = "CARACAL_APP_CLIENT_SECRET_FILE")]
    secret_file: Option<PathBuf>,
    /// A resource to bind; may be repeated [default: every resource granted to the application]
    #[arg(long = "resource", value_name = "IDENTIFIER")]
    resources: Vec<String>,
}

pub(super) const HELP: &str = "\
Prints `export` lines, quoted for every POSIX shell. Addresses come from the running edge, or from
the configuration while none is running. The secret itself is never printed.

  eval \"$(caracal env --app demo-agent --secret-file demo-agent.secret)\"
  caracal env --app demo-agent --json

Exit codes: 0 done, 1 unknown application or resource, 64 bad configuration.";

pub(super) async fn run(global: &Global, args: &EnvArgs, out: &mut Out) -> Result<Exit, Failed> {
    let view = edge::application(global, args.zone.as_deref(), &args.app).await?;
    let secret_file = args.secret_file.as_deref().map(absolute).transpose()?;
    let bound = bound(&view, &args.resources)?;
    let variables = variables(&view, secret_file.as_deref(), &bound)?;
    if global.json {
        let members: Map<String, Value> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        out.value(&members.into(), true)?;
        return Ok(Exit::Done);
    }
    for (name, value) in &variables {
        out.line(&format!("export {name}={}", quoted(value)))?;
    }
    if secret_file.is_none() {
        out.note("note: no secret was named; set CARACAL_APP_CLIENT_SECRET_FILE, or use --secret-file")?;
    }
    Ok(Exit::Done)
}

/// The secret file's path, good from every working folder; it must be there, so that a typo shows here.
fn absolute(path: &Path) -> Result<String, Failed> {
    let found = std::fs::canonicalize(path)
        .map_err(|error| Failed::because(format!("the secret file `{}`", path.display()), &error))?;
    found
        .into_os_string()
        .into_string()
        .map_err(|_odd| Failed::new(format!("the path of `{}` is not UTF-8", path.display())))
}

/// The resources that were asked for, or all of the application's.
fn bound<'a>(view: &'a ApplicationView, wanted: &[String]) -> Result<Vec<&'a ResourceView>, Failed> {
    if wanted.is_empty() {
        return Ok(view.resources.iter().collect());
    }
    wanted.iter().map(|identifier| resource(view, identifier)).collect()
}

/// The application's resource of that identifier.
pub(super) fn resource<'a>(view: &'a ApplicationView, identifier: &str) -> Result<&'a ResourceView, Failed> {
    view.resources.iter().find(|resource| resource.identifier == identifier).ok_or_else(|| {
        let have: Vec<&str> = view.resources.iter().map(|resource| resource.identifier.as_str()).collect();
        let have = if have.is_empty() { "nothing".to_owned() } else { have.join(", ") };
        Failed::new(format!(
            "no grant gives `{}` anything on `{identifier}` in zone `{}`; it has: {have}",
            view.application, view.zone
        ))
    })
}

fn variables(
    view: &ApplicationView,
    secret_file: Option<&str>,
    resources: &[&ResourceView],
) -> Result<Vec<(&'static str, String)>, Failed> {
    let mut variables = vec![
        ("CARACAL_STS_URL", view.endpoints.issuer.clone()),
        ("CARACAL_COORDINATOR_URL", view.endpoints.coordinator.clone()),
        ("CARACAL_GATEWAY_URL", view.endpoints.gateway.clone()),
        ("CARACAL_ZONE_ID", view.zone.clone()),
        ("CARACAL_APPLICATION_ID", view.application.clone()),
    ];
    if let Some(path) = secret_file {
        variables.push(("CARACAL_APP_CLIENT_SECRET_FILE", path.to_owned()));
    }
    let bindings = resources.iter().map(|resource| binding(resource)).collect::<Result<Vec<_>, _>>()?;
    if !bindings.is_empty() {
        variables.push(("CARACAL_RESOURCES", bindings.join(",")));
    }
    Ok(variables)
}

/// `identifier=upstream`; the list has no way to escape its own separators.
fn binding(resource: &ResourceView) -> Result<String, Failed> {
    if resource.identifier.contains([',', '=']) || resource.upstream.contains(',') {
        return Err(Failed::new(format!(
            "`{}` cannot be written in CARACAL_RESOURCES, whose separators it contains; \
             bind it with CARACAL_RESOURCES_FILE and leave it out here with --resource",
            resource.identifier
        )));
    }
    Ok(format!("{}={}", resource.identifier, resource.upstream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Endpoints;

    fn view() -> ApplicationView {
        let resource = |identifier: &str| ResourceView {
            identifier: identifier.into(),
            upstream: "http://127.0.0.1:9000/v1".into(),
            scopes: vec![],
        };
        ApplicationView {
            endpoints: Endpoints {
                issuer: "http://127.0.0.1:8080".into(),
                coordinator: "http://127.0.0.1:4000".into(),
                gateway: "http://127.0.0.1:8081".into(),
            },
            zone: "quickstart".into(),
            application: "demo-agent".into(),
            resources: vec![resource("resource://a"), resource("resource://b")],
        }
    }

    #[test]
    fn every_granted_resource_is_bound_unless_some_are_named() {
        let view = view();
        let all = variables(&view, Some("/s"), &bound(&view, &[]).unwrap()).unwrap();
        let value = |name| all.iter().find(|(have, _)| *have == name).map(|(_, value)| value.as_str());
        assert_eq!(
            value("CARACAL_RESOURCES"),
            Some("resource://a=http://127.0.0.1:9000/v1,resource://b=http://127.0.0.1:9000/v1")
        );
        assert_eq!(value("CARACAL_STS_URL"), Some("http://127.0.0.1:8080"));
        assert_eq!(value("CARACAL_APP_CLIENT_SECRET_FILE"), Some("/s"));
        let one = bound(&view, &["resource://b".into()]).unwrap();
        assert_eq!(one.len(), 1);
    }

    #[test]
    fn a_resource_nobody_granted_is_named_with_what_there_is() {
        let error = format!("{:?}", bound(&view(), &["resource://c".into()]).unwrap_err());
        assert!(error.contains("it has: resource://a, resource://b"), "{error}");
    }

    #[test]
    fn a_binding_that_would_read_as_two_is_refused() {
        let mut resource = view().resources.remove(0);
        resource.identifier = "resource://a,resource://evil".into();
        binding(&resource).unwrap_err();
    }
}
