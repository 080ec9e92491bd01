//! `caracal secret`: secrets of applications, what a bundle may know of them, and those that were retired.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::exit::{Exit, Failed};
use super::out::{Out, Style};
use super::{Global, edge};
use crate::control::Request;

/// `caracal secret ...`
#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Make a new application secret
    #[command(after_help = HELP)]
    New(NewArgs),
    /// List the secrets that were retired and that the files list all the same
    Retired {
        /// Only this zone
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
    },
    /// Let retired secrets in again that an application's bundle lists
    #[command(after_help = READMIT_HELP)]
    Readmit {
        /// The application's zone
        #[arg(long, value_name = "ZONE")]
        zone: String,
        /// The application's id
        #[arg(long, value_name = "ID")]
        app: String,
        /// Only the one whose name begins so, as `caracal secret retired` shows it
        #[arg(long, value_name = "NAME")]
        hash: Option<String>,
    },
}

/// `caracal secret new ...`
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// Put the secret into this new file, mode 0600, instead of printing it
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

const HELP: &str = "\
The secret is shown once and kept nowhere else. Give it to the application, and put the line with
the hash into its table in the bundle:

  caracal secret new --secret-file my-agent.secret
  caracal secret new

Exit codes: 0 done, 1 failed.";

const READMIT_HELP: &str = "\
A secret that left a bundle is retired: it is refused from then on, also when an older file brings it
back. Only this lets it in again, and the ledger says who did. If it was retired because it leaked,
make a new one instead: `caracal secret new`.

  caracal secret retired
  caracal secret readmit --zone prod --app my-agent

Exit codes: 0 in force, 1 not carried out, 69 no edge is running.";

pub(super) async fn run(global: &Global, command: &SecretCommand, out: &mut Out) -> Result<Exit, Failed> {
    let request = match command {
        SecretCommand::New(args) => return new(global, args, out),
        SecretCommand::Retired { zone } => Request::RetiredSecrets { zone: zone.clone() },
        SecretCommand::Readmit { zone, app, hash } => {
            let (zone, application) = (zone.clone(), app.clone());
            Request::ReadmitSecret { zone, application, secret: hash.clone() }
        }
    };
    let mut told = edge::ask(global, &request).await?;
    if !global.json {
        // Names of what nobody lists are for programs.
        for zone in told.get_mut("zones").and_then(Value::as_array_mut).into_iter().flatten() {
            let count = zone.get("retired").and_then(Value::as_array).map_or(0, Vec::len);
            if let Some(row) = zone.as_object_mut() {
                row.insert("retired".to_owned(), json!(count));
            }
        }
        if matches!(command, SecretCommand::Readmit { .. }) {
            let done = out.paint(Style::Good, "let in again");
            out.line(&done)?;
        }
    }
    out.value(&told, global.json)?;
    Ok(Exit::Done)
}

fn new(global: &Global, args: &NewArgs, out: &mut Out) -> Result<Exit, Failed> {
    let secret = generate()?;
    let hash = hash(&secret);
    if let Some(path) = &args.secret_file {
        keep(path, &secret)?;
    }
    if global.json {
        let shown = args.secret_file.is_none().then_some(secret.as_str());
        out.value(&json!({ "secret": shown, "secret_file": args.secret_file, "hash": hash }), true)?;
        return Ok(Exit::Done);
    }
    match &args.secret_file {
        Some(path) => out.note(&format!("the secret is in `{}`, mode 0600", path.display()))?,
        None => {
            let heading =
                out.paint_error(Style::Strong, "the secret, for the application; it is shown only now:");
            out.note(&heading)?;
            out.line(&secret)?;
        }
    }
    let heading = out.paint_error(Style::Strong, "the line for the application's table in its bundle:");
    out.note(&heading)?;
    out.line(&format!("secrets = [\"{hash}\"]"))?;
    Ok(Exit::Done)
}

/// Writes the secret into a new file; one that is there may be the only copy of another secret.
fn keep(path: &Path, secret: &str) -> Result<(), Failed> {
    let failed =
        |error: std::io::Error| Failed::because(format!("the secret file `{}`", path.display()), &error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(format!("{secret}\n").as_bytes()).map_err(failed)
}

/// `cs_` and 256 random bits, in base64url without padding.
pub(super) fn generate() -> Result<Zeroizing<String>, Failed> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice())
        .map_err(|error| Failed::because("the system gave no random bytes", &error))?;
    let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    Ok(Zeroizing::new(format!("cs_{}", encoded.as_str())))
}

/// The stored form: `sha256$` and the digest. A slow hash adds nothing to 256 random bits.
pub(super) fn hash(secret: &str) -> String {
    format!("sha256${}", URL_SAFE_NO_PAD.encode(digest(&SHA256, secret.as_bytes())))
}

#[cfg(test)]
mod tests {
    use caracal_policies::SecretHash;

    use super::*;

    #[test]
    fn a_new_secret_has_the_documented_shape_and_never_repeats() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert!(one.starts_with("cs_") && one.len() == 46, "{}", one.len());
        assert_ne!(one, two);
    }

    #[test]
    fn a_bundle_reads_the_hash_of_a_new_secret_as_its_digest() {
        let secret = generate().unwrap();
        let Some(SecretHash::Sha256(stored)) = SecretHash::parse(&hash(&secret)) else {
            panic!("not read as a SHA-256 hash");
        };
        assert_eq!(stored.as_slice(), digest(&SHA256, secret.as_bytes()).as_ref());
    }
}
