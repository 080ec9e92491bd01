//! The age format, <https://age-encryption.org/v1>: what a sealed secrets file is sealed with and opened by.
//!
//! Two kinds of keys, as the `age` program knows them: X25519 identities, and a passphrase.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::{DecryptError, Decryptor, EncryptError, Encryptor, scrypt, x25519};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Bytes a secrets file may have, sealed and open.
pub(crate) const MOST_BYTES: u64 = 1_048_576;

/// The work a passphrase may cost, as a power of two: what `age -p` asks for. It takes 256 MiB of memory and about a
/// second; each step more doubles both, and a process that is short of memory would be killed by a file.
pub(crate) const WORK_FACTOR: u8 = 18;

/// Bytes of a passphrase; a longer one is another file.
const MOST_PASSPHRASE_BYTES: usize = 1_024;

/// What opens a sealed file.
pub(crate) enum Key {
    /// Any of these.
    Identities(Vec<x25519::Identity>),
    /// This.
    Passphrase(SecretString),
}

/// Why a sealed file does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// It is sealed for other identities, or with another passphrase.
    WrongKey,
    /// It is sealed with a passphrase, and the key is an identity.
    WantsPassphrase,
    /// It is sealed for identities, and the key is a passphrase.
    WantsIdentity,
    /// The passphrase costs this much work, as a power of two.
    Work(u8),
    /// It is cut short, or was changed.
    Broken,
    /// There is more in it than a secrets file may have.
    TooLarge,
}

/// Whether these bytes say that they are an age file, binary or in letters.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    bytes.starts_with(b"age-encryption.org/") || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

impl Key {
    /// The identities in a file as `age-keygen` writes it: one a line, `#` before a remark.
    pub(crate) fn identities(text: &[u8]) -> Option<Self> {
        let lines = std::str::from_utf8(text).ok()?.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Vec<x25519::Identity> = lines.map(|line| line.parse().ok()).collect::<Option<_>>()?;
        (!identities.is_empty()).then_some(Self::Identities(identities))
    }

    /// The passphrase in a file: one line; a line break at the end is no part of it.
    pub(crate) fn passphrase(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let usable = (1..=MOST_PASSPHRASE_BYTES).contains(&line.len()) && !line.contains(char::is_control);
        usable.then(|| Self::Passphrase(SecretString::from(Box::<str>::from(line))))
    }

    /// Opens an age file into a buffer that is wiped.
    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(sealed.trim_ascii_start()))
            .map_err(|error| why(&error))?;
        let opened = match (self, decryptor.is_scrypt()) {
            (Self::Identities(_), true) => return Err(Unopened::WantsPassphrase),
            (Self::Passphrase(_), false) => return Err(Unopened::WantsIdentity),
            (Self::Identities(identities), false) => {
                decryptor.decrypt(identities.iter().map(|identity| -> &dyn age::Identity { identity }))
            }
            (Self::Passphrase(passphrase), true) => {
                let mut identity = scrypt::Identity::new(passphrase.clone());
                identity.set_max_work_factor(WORK_FACTOR);
                let identity: &dyn age::Identity = &identity;
                decryptor.decrypt(std::iter::once(identity))
            }
        };
        // What is sealed is never longer than the sealed file, so the buffer never moves and leaves no copy behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
        let opened = opened.map_err(|error| why(&error))?;
        opened.take(MOST_BYTES.saturating_add(1)).read_to_end(&mut plain).map_err(|_io| Unopened::Broken)?;
        if u64::try_from(plain.len()).is_ok_and(|length| length <= MOST_BYTES) {
            Ok(plain)
        } else {
            Err(Unopened::TooLarge)
        }
    }
}

/// How many a sealed file was sealed for. Who they are it does not say.
pub(crate) fn recipients(sealed: &[u8]) -> usize {
    // A file that opened has a header that ends.
    let reader = BufReader::new(ArmoredReader::new(sealed.trim_ascii_start()).take(MOST_BYTES));
    let lines = reader.split(b'\n').map_while(Result::ok).take_while(|line| !line.starts_with(b"---"));
    let stanzas = lines.filter(|line| line.starts_with(b"-> "));
    // age adds a stanza that is for nobody, so that readers learn to pass over what they do not know.
    let for_nobody = |line: &Vec<u8>| {
        line.split(|byte| *byte == b' ').nth(1).is_some_and(|kind| kind.ends_with(b"-grease"))
    };
    stanzas.filter(|line| !for_nobody(line)).count()
}

/// Seals for any one of several recipients, in letters: a file that can be kept in Git or a ConfigMap.
pub(crate) fn seal_for(plain: &[u8], recipients: &[x25519::Recipient]) -> Result<Vec<u8>, SealError> {
    seal(plain, recipients.iter().map(|recipient| -> &dyn age::Recipient { recipient }))
}

/// Seals with a passphrase that costs `work` to try.
pub(crate) fn seal_with(plain: &[u8], passphrase: &SecretString, work: u8) -> Result<Vec<u8>, SealError> {
    let mut recipient = scrypt::Recipient::new(passphrase.clone());
    recipient.set_work_factor(work);
    let recipient: &dyn age::Recipient = &recipient;
    seal(plain, std::iter::once(recipient))
}

/// A new identity and who to seal for, as lines of an identity file.
pub(crate) fn new_identity() -> (Zeroizing<String>, String) {
    let identity = x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let text = format!("# public key: {recipient}\n{}\n", identity.to_string().expose_secret());
    (Zeroizing::new(text), recipient)
}

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// Nobody to seal for, or no randomness.
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
    /// Nothing is written to a disk here, but the library's writers can fail.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn seal<'a>(plain: &[u8], to: impl Iterator<Item = &'a dyn age::Recipient>) -> Result<Vec<u8>, SealError> {
    let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
    let mut writer = Encryptor::with_recipients(to)?.wrap_output(armor)?;
    writer.write_all(plain)?;
    Ok(writer.finish()?.finish()?)
}

fn why(error: &DecryptError) -> Unopened {
    match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed | DecryptError::NoMatchingKeys => {
            Unopened::WrongKey
        }
        DecryptError::ExcessiveWork { required, .. } => Unopened::Work(*required),
        DecryptError::InvalidHeader
        | DecryptError::InvalidMac
        | DecryptError::Io(_)
        | DecryptError::UnknownFormat => Unopened::Broken,
        // What a later version of the library finds wrong does not open either.
        _ => Unopened::Broken,
    }
}

#[cfg(test)]
mod tests;
