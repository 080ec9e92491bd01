//! `caracal call`: one governed call as an application makes it, told step by step.

pub(super) mod caller;
mod ending;
pub(super) mod mandate;
pub(super) mod story;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use zeroize::Zeroizing;

use super::exit::{Exit, Failed};
use super::out::Out;
use super::{Global, edge};
use crate::control::Endpoints;
use caller::{Caller, Plan};
use story::Story;

/// `caracal call ...`
#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// The method of the governed request
    method: Method,
    /// Its path, with the query if there is one, as the upstream is to see it
    path: String,
    /// The application's id
    #[arg(long, value_name = "ID", env = "CARACAL_APPLICATION_ID")]
    app: String,
    /// The application's zone; needed when several zones have one of that id
    #[arg(long, value_name = "ZONE", env = "CARACAL_ZONE_ID")]
    zone: Option<String>,
    /// The file with the application's secret, mode 0600; CARACAL_APP_CLIENT_SECRET is used without one
    #[arg(long, value_name = "FILE", env = "CARACAL_APP_CLIENT_SECRET_FILE")]
    secret_file: Option<PathBuf>,
    /// The resource to call
    #[arg(long, value_name = "IDENTIFIER")]
    resource: String,
    /// A scope to ask for; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,
    /// A header for the upstream; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The body of the request
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,
    /// Trust the certificate authorities in this PEM file instead of the machine's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    addresses: Addresses,
}

/// Where an edge is that has no configuration here; all three or none.
#[derive(Debug, Args)]
struct Addresses {
    /// The authority's base URL, which is also the issuer
    #[arg(long, value_name = "URL", env = "CARACAL_STS_URL")]
    sts_url: Option<String>,
    /// The coordinator's base URL
    #[arg(long, value_name = "URL", env = "CARACAL_COORDINATOR_URL")]
    coordinator_url: Option<String>,
    /// The gateway's base URL
    #[arg(long, value_name = "URL", env = "CARACAL_GATEWAY_URL")]
    gateway_url: Option<String>,
}

pub(super) const HELP: &str = "\
Does what an SDK does: mints a session mandate, starts two sessions, delegates the scopes from one
to the other, mints a single-use gateway mandate, calls, and ends both sessions. Mandates are shown
as fingerprints and claims, never as they are.

  caracal call --app demo-agent --secret-file demo-agent.secret \\
      --resource resource://echo --scope echo:read GET /read/hello

With --config, or without the three URLs, addresses come from the edge that the configuration
describes; else from CARACAL_STS_URL, CARACAL_COORDINATOR_URL and CARACAL_GATEWAY_URL, as
`caracal env` prints them.

Exit codes: 0 the upstream answered 2xx, 1 another answer or none, 3 denied, 64 bad configuration.";

pub(super) async fn run(global: &Global, args: &CallArgs, out: &mut Out) -> Result<Exit, Failed> {
    let plan = plan(global, args).await?;
    let secret = secret(args.secret_file.as_deref())?;
    let mut story = Story::new(out, global.json);
    let mut caller = Caller::new(&plan, &secret, args.ca.as_deref());
    let ended = caller.drive(&mut story).await;
    let told = ending::tell(global, &plan, ended, &mut story).await;
    // Whatever happened: sessions that stay open count against the zone's limit.
    let cleaned = caller.end_sessions(&mut story).await;
    story.finish()?;
    let exit = told?;
    cleaned?;
    Ok(exit)
}

/// What is to be called, and where.
async fn plan(global: &Global, args: &CallArgs) -> Result<Plan, Failed> {
    if !args.path.starts_with('/') {
        return Err(Failed::new(format!("the path begins with a slash: `/{}`", args.path)));
    }
    let (endpoints, zone) = match endpoints(global, args) {
        Some(endpoints) => {
            let zone =
                args.zone.clone().ok_or_else(|| Failed::new("name the zone: --zone or CARACAL_ZONE_ID"))?;
            (endpoints, zone)
        }
        None => {
            let view = edge::application(global, args.zone.as_deref(), &args.app).await?;
            (view.endpoints, view.zone)
        }
    };
    Ok(Plan {
        endpoints,
        zone,
        application: args.app.clone(),
        resource: args.resource.clone(),
        scopes: args.scopes.join(" "),
        method: args.method.clone(),
        path: args.path.clone(),
        headers: args.headers.clone(),
        body: args.data.clone().map_or_else(Bytes::new, Bytes::from),
    })
}

/// The addresses given one by one; a configuration that was named explicitly goes before them.
fn endpoints(global: &Global, args: &CallArgs) -> Option<Endpoints> {
    if global.config.is_some() {
        return None;
    }
    let base = |url: &Option<String>| Some(url.as_deref()?.trim_end_matches('/').to_owned());
    Some(Endpoints {
        issuer: base(&args.addresses.sts_url)?,
        coordinator: base(&args.addresses.coordinator_url)?,
        gateway: base(&args.addresses.gateway_url)?,
    })
}

/// The application's secret, from its file or the environment; never from the command line, which others see.
fn secret(file: Option<&Path>) -> Result<Zeroizing<String>, Failed> {
    let Some(path) = file else {
        return std::env::var("CARACAL_APP_CLIENT_SECRET").map(Zeroizing::new).map_err(|_absent| {
            Failed::new("the application's secret is missing: --secret-file, or CARACAL_APP_CLIENT_SECRET")
        });
    };
    let shown = path.display();
    let unreadable = |error| Failed::because(format!("the secret file `{shown}`"), &error);
    let mode = std::fs::metadata(path).map_err(unreadable)?.mode();
    if mode & 0o077 != 0 {
        return Err(Failed::new(format!("the secret file `{shown}` is open to others; chmod 600 it")));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
    let secret = Zeroizing::new(text.trim().to_owned());
    if secret.is_empty() {
        return Err(Failed::new(format!("the secret file `{shown}` is empty")));
    }
    Ok(secret)
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write a header as `Name: value`")?;
    let name: HeaderName = name.trim().parse().map_err(|_odd| "the name is no header name")?;
    let value: HeaderValue = value.trim().parse().map_err(|_odd| "the value cannot be sent in a header")?;
    if name == http::header::AUTHORIZATION || name.as_str().starts_with("x-caracal-") {
        return Err(format!("`{name}` is set by the call itself"));
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests;
