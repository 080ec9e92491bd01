//! `caracal secrets keygen`, `seal` and `unseal`: the secrets file, sealed at rest in the age format.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use age::x25519::Recipient;
use caracal_policies::Report;
use clap::{Args, Subcommand};
use secrecy::SecretString;
use serde_json::json;
use zeroize::Zeroizing;

use super::exit::{Exit, Failed};
use super::out::{Out, Style};
use super::{Global, edge};
use crate::config::{SecretsConfig, SecretsKey};
use crate::sealing::Readers;
use crate::secrets::envelope::{self, Key, MOST_BYTES, WORK_FACTOR};
use crate::secrets::{sealed, unseal};

/// What is done with files alone.
#[derive(Debug, Subcommand)]
pub(super) enum SealCommand {
    /// Make an identity that opens sealed secrets files, and print whom to seal for
    Keygen {
        /// The new file for the identity, mode 0600
        file: PathBuf,
    },
    /// Seal a secrets file, so that it can lie on a disk, in a backup or in Git
    #[command(after_help = SEAL_HELP)]
    Seal(SealArgs),
    /// Print what is in a sealed secrets file
    #[command(after_help = UNSEAL_HELP)]
    Unseal(UnsealArgs),
}

/// `caracal secrets seal ...`
#[derive(Debug, Args)]
pub(super) struct SealArgs {
    /// The secrets file as it is written; `-` reads standard input
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Where the sealed file goes; only a sealed file is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Whom to seal for, as `keygen` prints it; several, and any one of them opens it
    #[arg(long = "recipient", value_name = "age1...", value_parser = recipient, required_unless_present = "passphrase_file")]
    recipients: Vec<Recipient>,
    /// File with the passphrase to seal with
    #[arg(long, value_name = "FILE", conflicts_with = "recipients")]
    passphrase_file: Option<PathBuf>,
}

/// `caracal secrets unseal ...`
#[derive(Debug, Args)]
pub(super) struct UnsealArgs {
    /// The sealed file; without it, and without a key, what the configuration says
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// File with the identity that opens it
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    identity_file: Option<PathBuf>,
    /// File with the passphrase that opens it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

const SEAL_HELP: &str = "\
The edge opens the sealed file with `[secrets] identity_file` or `passphrase_file`:

  caracal secrets keygen secrets.identity
  caracal secrets seal --in secrets.toml --out secrets.toml.age --recipient age1...
  shred -u secrets.toml

To change a value, without a plain file on the disk: `caracal secrets set`.

The format is age's: the `age` program opens what this seals, and the other way round.

Exit codes: 0 sealed, 1 not.";

const UNSEAL_HELP: &str = "\
Prints credentials. Keep them off the screen and the disk where you can:

  caracal secrets unseal --config caracal.toml | less
  caracal secrets unseal --in secrets.toml.age --identity-file secrets.identity

Exit codes: 0 printed, 64 it does not open: the report says why.";

pub(super) fn run(global: &Global, command: &SealCommand, out: &mut Out) -> Result<Exit, Failed> {
    match command {
        SealCommand::Keygen { file } => keygen(global, file, out),
        SealCommand::Seal(args) => seal(global, args, out),
        SealCommand::Unseal(args) => print(global, args, out),
    }
}

fn keygen(global: &Global, file: &Path, out: &mut Out) -> Result<Exit, Failed> {
    let (identity, recipient) = envelope::new_identity();
    let failed = |error: io::Error| Failed::because(format!("the identity `{}`", file.display()), &error);
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    new.write_all(identity.as_bytes()).and_then(|()| new.sync_all()).map_err(failed)?;
    if global.json {
        out.value(&json!({ "identity_file": file, "recipient": recipient }), true)?;
        return Ok(Exit::Done);
    }
    out.note(&format!("the identity is in `{}`, mode 0600; seal for:", file.display()))?;
    out.line(&recipient)?;
    Ok(Exit::Done)
}

fn seal(global: &Global, args: &SealArgs, out: &mut Out) -> Result<Exit, Failed> {
    let plain = read(&args.input)?;
    if envelope::is_sealed(&plain) {
        return Err(Failed::new(format!("`{}` is sealed already", args.input.display())));
    }
    let sealed = match &args.passphrase_file {
        None => envelope::seal_for(&plain, &args.recipients),
        Some(file) => envelope::seal_with(&plain, &passphrase(file)?, WORK_FACTOR),
    };
    let sealed = sealed.map_err(|error| Failed::because("it could not be sealed", &error))?;
    replace(&args.out, &sealed)?;
    if global.json {
        out.value(&json!({ "file": args.out, "bytes": sealed.len() }), true)?;
    } else {
        let done = out.paint(Style::Good, "sealed");
        out.line(&format!("{done}: {}", args.out.display()))?;
    }
    Ok(Exit::Done)
}

fn print(global: &Global, args: &UnsealArgs, out: &mut Out) -> Result<Exit, Failed> {
    let named = args.identity_file.clone().map(SecretsKey::Identity);
    let named = named.or_else(|| args.passphrase_file.clone().map(SecretsKey::Passphrase));
    let config = match (&args.input, named) {
        (Some(file), Some(key)) => {
            SecretsConfig { file: file.clone(), key: Some(key), ..SecretsConfig::default() }
        }
        (input, named) => {
            let config = edge::load(global)?.secrets;
            SecretsConfig {
                file: input.clone().unwrap_or_else(|| config.file.clone()),
                key: named.or_else(|| config.key.clone()),
                ..config
            }
        }
    };
    let text = unseal(&config)?;
    out.line(text.strip_suffix('\n').unwrap_or(&text))?;
    Ok(Exit::Done)
}

pub(super) fn recipient(text: &str) -> Result<Recipient, String> {
    text.parse().map_err(|_why: &str| {
        "no age recipient: `age1` and 58 letters and digits, as `caracal secrets keygen` prints it".to_owned()
    })
}

fn passphrase(file: &Path) -> Result<SecretString, Failed> {
    let place = SecretsKey::Passphrase(file.to_owned());
    let key =
        sealed::key(&place, Readers::OwnerOnly).map_err(|problem| Report { problems: vec![*problem] })?;
    match key {
        Key::Passphrase(passphrase) => Ok(passphrase),
        Key::Identities(_) => Err(Failed::new(format!("`{}` is no passphrase", file.display()))),
    }
}

/// What is to be sealed, in a buffer that never moves.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let failed = |error: io::Error| Failed::because(format!("`{}`", path.display()), &error);
    let most = MOST_BYTES.saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(most).unwrap_or(0).saturating_add(1)));
    let read = if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    match read.map_err(failed)? {
        0 => Err(Failed::new(format!("`{}` is empty", path.display()))),
        read if u64::try_from(read).is_ok_and(|read| read > MOST_BYTES) => Err(Failed::new(format!(
            "`{}` is larger than 1 MiB, which the edge does not read",
            path.display()
        ))),
        _ => Ok(bytes),
    }
}

/// Writes the sealed file whole or not at all. What is there may be the only copy of something else.
fn replace(path: &Path, sealed: &[u8]) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::because(format!("the sealed file `{}`", path.display()), &error);
    let mut head = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => {
            file.take(64).read_to_end(&mut head).map_err(failed)?;
            if !envelope::is_sealed(&head) {
                let shown = path.display();
                return Err(Failed::new(format!(
                    "`{shown}` is there and is no sealed file; move it away first"
                )));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(sealed)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(failed)
}
