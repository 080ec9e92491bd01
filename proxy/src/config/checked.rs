//! File form in, checked form out: everything a schema cannot say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use caracal_policies::{Assigned, Problem};

use super::document::Document;
use super::file::{
    FileBundles, FileConfig, FileLedgerMode, FileLimits, FileListener, FileLog, FileLogFormat, FileLogLevel,
    FileSecrets, FileZone,
};
use super::{
    BundlesConfig, Config, IpNet, LedgerConfig, LedgerMode, Limits, Listener, Listeners, LogConfig,
    LogFormat, PLAINTEXT_WORDS, SecretsConfig, SecretsKey, TlsFiles, WatchConfig,
};
use crate::ledger::PublicKey;

/// Turns the file form into the checked form, or names everything that is wrong with it.
pub(super) fn check(file: &FileConfig, document: &Document<'_>, base: &Path) -> Result<Config, Vec<Problem>> {
    let mut checker = Checker { document, base, problems: Vec::new() };
    let config = checker.config(file);
    match config {
        Some(config) if checker.problems.is_empty() => Ok(config),
        _ => Err(checker.problems),
    }
}

pub(super) struct Checker<'d> {
    pub(super) document: &'d Document<'d>,
    base: &'d Path,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn config(&mut self, file: &FileConfig) -> Option<Config> {
        let issuer = self.issuer(&file.issuer);
        let listeners = self.listeners(file);
        let zones = self.zones(&file.zones);
        let trusted_proxies = self.trusted_proxies(&file.trusted_proxies);
        let state_dir = self.path(&["state_dir"], &file.state_dir);
        let sealing_key =
            file.keys.sealing_key.as_deref().map(|path| self.path(&["keys", "sealing_key"], path));
        if let Some(key) = &sealing_key
            && plain(key).starts_with(plain(&state_dir))
        {
            self.add(
                "sealing_key_in_state",
                &["keys", "sealing_key"],
                "the sealing key lies inside the state folder",
                key.display().to_string(),
                "a file outside the state folder",
                "a copy of the state folder must not be enough to use the keys in it",
            );
        }
        Some(Config {
            issuer: issuer?,
            base: self.base.to_path_buf(),
            state_dir,
            bundles_dir: self.path(&["bundles_dir"], &file.bundles_dir),
            bundles: self.bundles(&file.bundles),
            secrets: self.secrets(&file.secrets),
            sealing_key,
            fleet: self.fleet(&file.state),
            listeners: listeners?,
            zones,
            sinks: self.sinks(&file.zones),
            ledger: LedgerConfig {
                mode: match file.ledger.mode {
                    FileLedgerMode::Buffered => LedgerMode::Buffered,
                    FileLedgerMode::Strict => LedgerMode::Strict,
                },
                queue: count(file.ledger.queue),
                checkpoint_every: file.ledger.checkpoint_every,
            },
            limits: limits(&file.limits),
            trusted_proxies,
            coordinator_token_file: file
                .coordinator
                .operator_token_file
                .as_deref()
                .map(|path| self.path(&["coordinator", "operator_token_file"], path)),
            egress: self.egress(&file.egress),
            federation: self.federation(&file.federation),
            metrics_bearer_file: file
                .metrics
                .bearer_file
                .as_deref()
                .map(|path| self.path(&["metrics", "bearer_file"], path)),
            shutdown_deadline: Duration::from_secs(file.shutdown_deadline_seconds.into()),
            log: log(&file.log),
            watch: WatchConfig { poll: Duration::from_secs(file.watch.poll_seconds.into()) },
        })
    }

    fn secrets(&mut self, file: &FileSecrets) -> SecretsConfig {
        let mut path = |name: &str, text: &Option<String>| {
            text.as_deref().map(|text| self.path(&["secrets", name], text))
        };
        let files_dir = path("files_dir", &file.files_dir);
        let identity = path("identity_file", &file.identity_file).map(SecretsKey::Identity);
        let passphrase = path("passphrase_file", &file.passphrase_file).map(SecretsKey::Passphrase);
        if identity.is_some() && passphrase.is_some() {
            self.add(
                "secrets_two_keys",
                &["secrets", "passphrase_file"],
                "the secrets file cannot be opened with two keys",
                "`identity_file` and `passphrase_file`".to_owned(),
                "one of the two",
                "remove the one that the file is not sealed with",
            );
        }
        SecretsConfig {
            file: self.path(&["secrets", "file"], &file.file),
            mounted: file.mounted,
            key: identity.or(passphrase),
            files_dir,
        }
    }

    fn issuer(&mut self, text: &str) -> Option<String> {
        let trimmed = text.trim_end_matches('/');
        let usable = trimmed.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
                && uri.query().is_none()
                && !trimmed.contains('#')
        });
        if usable {
            return Some(trimmed.to_owned());
        }
        self.add(
            "issuer",
            &["issuer"],
            "the issuer is no URL that mandates can carry",
            text.to_owned(),
            "an http or https URL without query, fragment or user name",
            "use the URL under which clients reach the authority, such as \"https://caracal.example\"",
        );
        None
    }

    fn listeners(&mut self, file: &FileConfig) -> Option<Listeners> {
        let all = &file.listeners;
        let gateway = self.listener("gateway", &all.gateway, 8081, true);
        let authority = self.listener("authority", &all.authority, 8080, true);
        let coordinator = self.listener("coordinator", &all.coordinator, 4000, true);
        let ops = self.listener("ops", &all.ops, 9090, file.metrics.bearer_file.is_some());
        let listeners =
            Listeners { gateway: gateway?, authority: authority?, coordinator: coordinator?, ops: ops? };
        let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
        for (name, listener) in [
            ("gateway", &listeners.gateway),
            ("authority", &listeners.authority),
            ("coordinator", &listeners.coordinator),
            ("ops", &listeners.ops),
        ] {
            if listener.address.port() == 0 {
                continue;
            }
            if let Some(other) = taken.insert(listener.address, name) {
                self.add(
                    "address_taken",
                    &["listeners", name, "address"],
                    "two listeners have the same address",
                    format!("{}, also used by `{other}`", listener.address),
                    "an address of its own for each listener",
                    "change one of the two ports",
                );
            }
        }
        Some(listeners)
    }

    fn listener(&mut self, name: &str, file: &FileListener, port: u16, plaintext: bool) -> Option<Listener> {
        let path = ["listeners", name, "address"];
        let address = match file.address.as_deref() {
            None => SocketAddr::from(([127, 0, 0, 1], port)),
            Some(text) => match text.parse::<SocketAddr>() {
                Ok(address) => address,
                Err(_) => {
                    self.add(
                        "listener_address",
                        &path,
                        "this is no address to listen on",
                        text.to_owned(),
                        "an IP address and a port",
                        "write \"127.0.0.1:8081\" or \"[::1]:8081\"; host names are not looked up",
                    );
                    return None;
                }
            },
        };
        let tls = file.tls.as_ref().map(|tls| TlsFiles {
            cert: self.path(&["listeners", name, "tls", "cert"], &tls.cert),
            key: self.path(&["listeners", name, "tls", "key"], &tls.key),
        });
        if let Some(words) = file.plaintext.as_deref() {
            self.plaintext(name, words, plaintext);
        } else if tls.is_none() && !address.ip().to_canonical().is_loopback() {
            let hint = if plaintext {
                "add `tls = { cert = \"...\", key = \"...\" }`, or `plaintext = \"I have TLS in front\"` if that is so"
            } else {
                "add `tls = { cert = \"...\", key = \"...\" }`; plaintext needs [metrics] bearer_file as well"
            };
            self.add(
                "plaintext_listener",
                &path,
                "this listener would speak plaintext to a network",
                address.to_string(),
                "a loopback address, or TLS",
                hint,
            );
        }
        Some(Listener { address, tls })
    }

    fn plaintext(&mut self, name: &str, words: &str, possible: bool) {
        let path = ["listeners", name, "plaintext"];
        if words != PLAINTEXT_WORDS {
            let expected = format!("exactly \"{PLAINTEXT_WORDS}\"");
            self.add(
                "plaintext_words",
                &path,
                "these are not the words for a plaintext listener",
                format!("\"{words}\""),
                &expected,
                "remove the line, or write the words if they are true",
            );
        } else if !possible {
            self.add(
                "plaintext_ops",
                &path,
                "the ops listener speaks plaintext only when metrics ask for a bearer token",
                "no [metrics] bearer_file".to_owned(),
                "[metrics] bearer_file, or TLS",
                "metrics name zones and resources; protect them before they leave the host",
            );
        }
    }

    fn zones(&mut self, file: &BTreeMap<String, FileZone>) -> BTreeMap<String, Assigned> {
        if file.is_empty() {
            self.add(
                "no_zones",
                &["zones"],
                "there is no zone to serve",
                String::new(),
                "at least one [zones.<id>] table",
                "add [zones.quickstart] with prefixes = [\"/echo\"]",
            );
        }
        let mut claimed: BTreeMap<String, String> = BTreeMap::new();
        let mut zones = BTreeMap::new();
        for (id, zone) in file {
            if !usable_zone_id(id) {
                self.add(
                    "zone_id",
                    &["zones", id],
                    "this zone id cannot be used",
                    format!("`{id}`"),
                    "1 to 128 letters, digits, `-`, `_` or `.`, beginning with a letter or digit",
                    "the id names the zone's folder and stands in every mandate",
                );
            }
            let hosts = self.claims(id, "hosts", &zone.hosts, usable_host, &mut claimed);
            let prefixes = self.claims(id, "prefixes", &zone.prefixes, usable_prefix, &mut claimed);
            zones.insert(id.clone(), Assigned { hosts, prefixes });
        }
        zones
    }

    fn claims(
        &mut self,
        zone: &str,
        kind: &'static str,
        texts: &[String],
        usable: fn(&str) -> Option<String>,
        claimed: &mut BTreeMap<String, String>,
    ) -> Vec<String> {
        let mut kept = Vec::new();
        for text in texts {
            let Some(claim) = usable(text) else {
                let expected = if kind == "hosts" {
                    "a host name or address without port"
                } else {
                    "`/`, or segments of letters, digits, `-`, `_`, `.`, `~` such as \"/echo\", no slash at the end"
                };
                let message = format!("zone `{zone}` cannot be given this");
                self.add(
                    "route_claim",
                    &["zones", zone, kind],
                    &message,
                    format!("\"{text}\""),
                    expected,
                    "",
                );
                continue;
            };
            if let Some(other) = claimed.insert(format!("{kind} {claim}"), zone.to_owned()) {
                self.add(
                    "route_claimed_twice",
                    &["zones", zone, kind],
                    "one route is given twice",
                    format!("\"{claim}\", already given to zone `{other}`"),
                    "each host and prefix in one zone, once",
                    "remove one of the two",
                );
                continue;
            }
            kept.push(claim);
        }
        kept
    }

    fn trusted_proxies(&mut self, texts: &[String]) -> Vec<IpNet> {
        let mut nets = Vec::new();
        for text in texts {
            match text.parse::<IpNet>() {
                Ok(net) => nets.push(net),
                Err(problem) => self.add(
                    "trusted_proxy",
                    &["trusted_proxies"],
                    &format!("this is no network: {problem}"),
                    format!("\"{text}\""),
                    "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address",
                    "",
                ),
            }
        }
        nets
    }

    fn bundles(&mut self, file: &FileBundles) -> BundlesConfig {
        let mut trusted_keys = Vec::new();
        for text in &file.trusted_keys {
            match text.parse::<PublicKey>() {
                Ok(key) => trusted_keys.push(key),
                Err(_) => self.add(
                    "trusted_key",
                    &["bundles", "trusted_keys"],
                    "this is no public key",
                    format!("\"{text}\""),
                    "`ed25519:` and 64 hexadecimal digits",
                    "write what `caracal bundle keygen` printed",
                ),
            }
        }
        if file.require_signature && file.trusted_keys.is_empty() {
            self.add(
                "no_trusted_keys",
                &["bundles", "require_signature"],
                "signatures are required and nobody may sign",
                "no `trusted_keys`".to_owned(),
                "at least one public key",
                "make a key with `caracal bundle keygen` and add what it prints",
            );
        }
        BundlesConfig {
            keep_versions: count(file.keep_versions.into()),
            require_signature: file.require_signature,
            trusted_keys,
        }
    }

    pub(super) fn path(&mut self, place: &[&str], text: &str) -> PathBuf {
        if text.is_empty() {
            self.add(
                "empty_path",
                place,
                "a path is empty",
                "\"\"".to_owned(),
                "a path",
                "remove the line to get the default",
            );
        }
        self.base.join(text)
    }

    pub(super) fn add(
        &mut self,
        code: &'static str,
        path: &[&str],
        message: &str,
        found: String,
        expected: &str,
        hint: &str,
    ) {
        self.problems.push(Problem {
            code,
            place: self.document.place_of(path),
            message: message.to_owned(),
            found,
            expected: expected.to_owned(),
            hint: hint.to_owned(),
        });
    }
}

fn limits(file: &FileLimits) -> Limits {
    Limits {
        max_header_bytes: count(file.max_header_bytes),
        max_header_count: count(file.max_header_count),
        max_request_bytes: file.max_request_bytes,
        max_connections: count(file.max_connections),
        max_marks: count(file.max_marks),
        failed_verifications_per_minute: file.failed_verifications_per_minute,
        mints_per_minute: file.mints_per_minute,
        sessions_per_zone: file.sessions_per_zone,
        sessions_per_application: file.sessions_per_application,
        session_children: file.session_children,
        session_depth: file.session_depth,
    }
}

const fn log(file: &FileLog) -> LogConfig {
    LogConfig {
        level: match file.level {
            FileLogLevel::Error => tracing::Level::ERROR,
            FileLogLevel::Warn => tracing::Level::WARN,
            FileLogLevel::Info => tracing::Level::INFO,
            FileLogLevel::Debug => tracing::Level::DEBUG,
            FileLogLevel::Trace => tracing::Level::TRACE,
        },
        format: match file.format {
            FileLogFormat::Text => LogFormat::Text,
            FileLogFormat::Json => LogFormat::Json,
        },
    }
}

/// The schema caps these far below what a pointer-sized number holds.
fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The path without `.` components, so that `./state` and `state` compare as equal.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Whether an id can name a folder and stand in a URL and a mandate.
fn usable_zone_id(id: &str) -> bool {
    id.len() <= 128
        && !id.ends_with(crate::bundles::CANDIDATE)
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The host lower-cased and without the root's dot, as requests are compared with it.
pub(super) fn usable_host(text: &str) -> Option<String> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let usable = match literal {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host.len() <= 253
                && host.split('.').all(|label| {
                    (1..=63).contains(&label.len())
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
                })
        }
    };
    usable.then_some(host)
}

/// The prefix, if every spelling of it in a request is this one: plain characters, whole segments.
fn usable_prefix(text: &str) -> Option<String> {
    let segments = text.strip_prefix('/')?;
    let usable = segments.is_empty()
        || segments.split('/').all(|segment| {
            !matches!(segment, "" | "." | "..")
                && segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~'))
        });
    (usable && text.len() <= 256).then(|| text.to_owned())
}
