//! `caracal secrets set`: one value of the secrets file changed in place.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::str::FromStr;

use age::x25519::Recipient;
use caracal_policies::{Zone, compile};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::exit::{Exit, Failed};
use super::out::{Out, Style};
use super::{Global, edge, seal};
use crate::bundles;
use crate::config::Config;
use crate::control::{self, ControlError, Request};
use crate::reload::FINGERPRINT_KEY;
use crate::secrets::FingerprintKey;
use crate::secrets::set::{NotSet, Sealing, Set, Setting, set};

/// Bytes of a value, as of one in a file of its own.
const MOST_BYTES: u64 = 65_536;

/// `caracal secrets set ...`
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The secret, as `name/key`
    #[arg(value_name = "NAME/KEY")]
    secret: Named,
    /// A zone that may use a new entry; several as needed
    #[arg(long = "zone", value_name = "ZONE")]
    zones: Vec<String>,
    /// A host, or host and port, to which a new entry may be sent; several as needed
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Whom else a sealed file is sealed for, as `keygen` prints it; several as needed
    #[arg(long = "recipient", value_name = "age1...", value_parser = seal::recipient)]
    recipients: Vec<Recipient>,
}

/// An entry and the key in it.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    key: String,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((name, key)) if !name.is_empty() && !key.is_empty() && !key.contains('/') => {
                Ok(Self { name: name.to_owned(), key: key.to_owned() })
            }
            Some(_) | None => Err("a secret is named as `name/key`, such as `stripe/api_key`".to_owned()),
        }
    }
}

pub(super) const HELP: &str = "\
The value comes from standard input or, on a terminal, from a prompt that does not show it; never
from an argument. One line break at its end is no part of it:

  caracal secrets set stripe/api_key
  pass show stripe | caracal secrets set stripe/api_key
  caracal secrets set stripe/api_key --zone payments --host api.stripe.com   # a new entry

Only this value changes: comments, order and every other line stay. What would not load is not
written. A sealed file is sealed again for the identities that the configuration names, and for each
--recipient. An edge that runs is told, and the answer says what is in force.

Exit codes: 0 set, 1 nothing was changed or the edge did not say what is in force, 2 what was asked
for does not fit what is in the file, 64 a file is wrong or would be: the report says where.";

pub(super) async fn run(global: &Global, args: &SetArgs, out: &mut Out) -> Result<Exit, Failed> {
    let config = edge::load(global)?;
    let value = value(out)?;
    let Named { name, key } = &args.secret;
    let setting = Setting {
        name,
        key,
        value: &value,
        zones: &args.zones,
        hosts: &args.hosts,
        recipients: &args.recipients,
        folder: config.secrets.files_dir.as_deref(),
    };
    // A state folder that no edge has used yet has no key, and one of another user shows none.
    let print = FingerprintKey::load(&config.state_dir.join(FINGERPRINT_KEY)).ok().flatten();
    let unkept = FingerprintKey::unkept();
    let done = set(&config.secrets, &setting, print.as_ref().unwrap_or(&unkept), &zones(&config))?;
    let (earlier, now) = &done.fingerprints;
    let earlier = earlier.as_ref().filter(|earlier| print.is_some() && *earlier != now);
    if !global.json {
        told(&config, args, &done, out)?;
    }
    let (standing, exit) = standing(&config, args, out, global.json).await?;
    if global.json {
        let sealed_for = match &done.sealed {
            Some(Sealing::Recipients(all)) => json!(all),
            Some(Sealing::Passphrase) => json!("passphrase"),
            None => Value::Null,
        };
        let secret = format!("{name}/{key}");
        out.value(
            &json!({
                "secret": secret, "file": config.secrets.file, "added": done.added, "sealed_for": sealed_for,
                "earlier_fingerprint": earlier, "edge": standing,
            }),
            true,
        )?;
    } else if let Some(earlier) = earlier {
        out.note(&format!(
            "when the earlier value may be deleted says `caracal secrets rotate-check {name}/{key} --old {earlier}`"
        ))?;
    }
    Ok(exit)
}

/// What was written, and who can open it.
fn told(config: &Config, args: &SetArgs, done: &Set, out: &mut Out) -> Result<(), Failed> {
    let verb = out.paint(Style::Good, if done.added { "added" } else { "set" });
    let Named { name, key } = &args.secret;
    out.line(&format!("{verb}: {name}/{key} in {}", config.secrets.file.display()))?;
    match &done.sealed {
        Some(Sealing::Recipients(all)) => out.line(&format!("sealed for: {}", all.join(", ")))?,
        Some(Sealing::Passphrase) => out.line("sealed with: the passphrase of the configuration")?,
        None => {}
    }
    Ok(())
}

/// Has a running edge read the file now, and says what is in force there.
async fn standing(
    config: &Config,
    args: &SetArgs,
    out: &mut Out,
    json: bool,
) -> Result<(Value, Exit), Failed> {
    let socket = control::socket_path(&config.state_dir);
    let reloaded = match control::call(&socket, &Request::Reload).await {
        Ok(outcome) => outcome.get("secrets").cloned().unwrap_or_default(),
        Err(ControlError::NotRunning { .. }) => {
            if !json {
                out.note("no edge is running: it reads the file when it starts")?;
            }
            return Ok((Value::Null, Exit::Done));
        }
        Err(error) => {
            let what = "the value is written, but the running edge did not say that it is in force";
            return Err(Failed::because(what, &error));
        }
    };
    if reloaded.get("result").and_then(Value::as_str) == Some("rejected") {
        if !json {
            let verdict =
                "the running edge refused the secrets file; what was in force before stays in force";
            let verdict = out.paint(Style::Bad, verdict);
            out.line(&verdict)?;
            out.value(&reloaded, false)?;
        }
        return Ok((reloaded, Exit::BadConfiguration));
    }
    let listed = control::call(&socket, &Request::SecretsList).await?;
    let mut all = listed.get("secrets").and_then(Value::as_array).into_iter().flatten();
    let Named { name, key } = &args.secret;
    let is = |one: &Value, member: &str, word: &str| one.get(member).and_then(Value::as_str) == Some(word);
    let Some(one) = all.find(|one| is(one, "name", name) && is(one, "key", key)) else {
        return Err(Failed::new(
            "the value is written, but the running edge has no such secret: it reads another file",
        ));
    };
    let generation = listed.get("generation").cloned().unwrap_or_default();
    let standing = json!({ "generation": generation, "in_force": one });
    if !json {
        out.value(&standing, false)?;
    }
    Ok((standing, Exit::Done))
}

/// The bundles of the configuration. One that does not compile is no matter of the secrets file.
fn zones(config: &Config) -> Vec<Zone> {
    let read = |id: &str| bundles::read(&config.bundles_dir, &config.base, id).ok();
    config.zones.iter().filter_map(|(id, assigned)| compile(&read(id)?, id, assigned).ok()).collect()
}

/// The value, from whoever pipes it in or types it.
fn value(out: &mut Out) -> Result<Zeroizing<String>, Failed> {
    let failed = |error: io::Error| Failed::because("the value could not be read", &error);
    // Not through the buffer of `Stdin`, which would keep a copy.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let room = usize::try_from(MOST_BYTES).unwrap_or(0).saturating_add(3);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let mut bounded = (&input).take(MOST_BYTES.saturating_add(3));
    if io::stdin().is_terminal() {
        out.note("the value, which is not shown; Enter ends it:")?;
        let _hidden = Hidden::on(&input).map_err(failed)?;
        // A terminal hands over line by line.
        let mut byte = [0];
        while bytes.last() != Some(&b'\n') && bounded.read(&mut byte).map_err(failed)? > 0 {
            bytes.extend(byte);
        }
    } else {
        bounded.read_to_end(&mut bytes).map_err(failed)?;
    }
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let bad = |why: &str| Failed::Said(Exit::BadInput, format!("the value {why}; nothing was changed"));
    if line.is_empty() {
        return Err(bad("is empty"));
    }
    if u64::try_from(line.len()).map_or(true, |length| length > MOST_BYTES) {
        return Err(bad("is longer than 64 KiB"));
    }
    let text = std::str::from_utf8(line).map_err(|_encoding| bad("is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A terminal that does not show what is typed, for as long as this lives.
struct Hidden<'f> {
    terminal: &'f File,
    before: Termios,
}

impl<'f> Hidden<'f> {
    fn on(terminal: &'f File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that went away has nothing to set back.
        drop(tcsetattr(self.terminal, OptionalActions::Now, &self.before).map_err(io::Error::from));
    }
}

impl From<NotSet> for Failed {
    fn from(why: NotSet) -> Self {
        match why {
            NotSet::Report(report) => report.into(),
            NotSet::Input(text) => Self::Said(Exit::BadInput, format!("{text}; nothing was changed")),
            NotSet::Failed(text) => Self::new(text),
        }
    }
}
