//! `[state]`: the Redis and the Postgres a fleet shares, checked.

use super::checked::Checker;
use super::file::FileState;
use super::{FleetConfig, RedisAddress, StoreConfig};

const REDIS_PORT: u16 = 6379;
const POSTGRES_PORT: u16 = 5432;

impl Checker<'_> {
    /// The fleet, if the file makes this process a node of one.
    pub(super) fn fleet(&mut self, file: &FileState) -> Option<FleetConfig> {
        let Some(text) = &file.redis else {
            self.nothing_without_redis(file);
            return None;
        };
        let redis = redis_address(text);
        if redis.is_none() {
            // A URL may carry a password by mistake; it must not come back in a report.
            self.add(
                "redis_url",
                &["state", "redis"],
                "this is no address of a Redis server",
                String::new(),
                "redis:// or rediss://, [user@]host[:port][/database], without a password",
                "a password goes into a file of its own: redis_password_file",
            );
        }
        let Some(stream_key) = &file.stream_key_file else {
            self.add(
                "stream_key_missing",
                &["state", "redis"],
                "revocations would not be signed",
                "no stream_key_file".to_owned(),
                "stream_key_file, a file with a hexadecimal key",
                "make one with `openssl rand -hex 32` and give it to every node and resource server",
            );
            return None;
        };
        let ca_file = file.redis_ca_file.as_deref().map(|path| self.path(&["state", "redis_ca_file"], path));
        if ca_file.is_some() && redis.as_ref().is_some_and(|redis| !redis.tls) {
            self.add(
                "redis_ca_unused",
                &["state", "redis_ca_file"],
                "certificates are named for a server that is reached without TLS",
                String::new(),
                "a rediss:// address",
                "write rediss:// or remove the line",
            );
        }
        let password_file = file.redis_password_file.as_deref();
        let store = self.store(file);
        Some(FleetConfig {
            store,
            password_file: password_file.map(|path| self.path(&["state", "redis_password_file"], path)),
            ca_file,
            stream_key_file: self.path(&["state", "stream_key_file"], stream_key),
            redis: redis?,
        })
    }

    fn store(&mut self, file: &FileState) -> Option<StoreConfig> {
        let Some(text) = &file.url else {
            for (name, value) in
                [("url_password_file", &file.url_password_file), ("url_ca_file", &file.url_ca_file)]
            {
                if value.is_some() {
                    self.add(
                        "store_url_missing",
                        &["state", name],
                        "this belongs to a Postgres server, and none is named",
                        name.to_owned(),
                        "[state] url",
                        "name the server or remove the line",
                    );
                }
            }
            return None;
        };
        let Some(store) = store_address(text) else {
            // As with Redis: a password may be in it.
            self.add(
                "store_url",
                &["state", "url"],
                "this is no address of a Postgres database",
                String::new(),
                "postgres://user@host[:port]/database, without a password; ?sslmode=disable to do without TLS",
                "a password goes into a file of its own: url_password_file",
            );
            return None;
        };
        let ca_file = file.url_ca_file.as_deref().map(|path| self.path(&["state", "url_ca_file"], path));
        if ca_file.is_some() && !store.tls {
            self.add(
                "store_ca_unused",
                &["state", "url_ca_file"],
                "certificates are named for a server that is reached without TLS",
                String::new(),
                "an address without sslmode=disable",
                "remove sslmode=disable or this line",
            );
        }
        let password_file = file.url_password_file.as_deref();
        let password_file = password_file.map(|path| self.path(&["state", "url_password_file"], path));
        Some(StoreConfig { password_file, ca_file, ..store })
    }

    fn nothing_without_redis(&mut self, file: &FileState) {
        for (name, value) in [
            ("redis_password_file", &file.redis_password_file),
            ("redis_ca_file", &file.redis_ca_file),
            ("stream_key_file", &file.stream_key_file),
            // Marks and news travel through Redis: on Postgres alone, a mandate would be good once on every node.
            ("url", &file.url),
            ("url_password_file", &file.url_password_file),
            ("url_ca_file", &file.url_ca_file),
        ] {
            if value.is_some() {
                self.add(
                    "redis_missing",
                    &["state", name],
                    "this belongs to a Redis server, and none is named",
                    name.to_owned(),
                    "[state] redis",
                    "name the server or remove the line",
                );
            }
        }
    }
}

fn redis_address(text: &str) -> Option<RedisAddress> {
    let uri = text.parse::<http::Uri>().ok()?;
    let tls = match uri.scheme_str()? {
        "redis" => false,
        "rediss" => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
    if user.is_some_and(|user| user.is_empty() || user.contains(':')) || uri.query().is_some() {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = match authority.port() {
        Some(port) => port.as_str().parse().ok()?,
        None => REDIS_PORT,
    };
    let database = match uri.path().trim_start_matches('/') {
        "" => 0,
        number => number.parse::<u16>().ok()?.into(),
    };
    (!host.is_empty()).then(|| RedisAddress {
        host: host.to_owned(),
        port,
        database,
        user: user.map(str::to_owned),
        tls,
    })
}

fn store_address(text: &str) -> Option<StoreConfig> {
    let uri = text.parse::<http::Uri>().ok()?;
    if !matches!(uri.scheme_str()?, "postgres" | "postgresql") {
        return None;
    }
    let tls = match uri.query() {
        None | Some("sslmode=verify-full") => true,
        Some("sslmode=disable") => false,
        Some(_) => return None,
    };
    let authority = uri.authority()?;
    let (user, _) = authority.as_str().rsplit_once('@')?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = match authority.port() {
        Some(port) => port.as_str().parse().ok()?,
        None => POSTGRES_PORT,
    };
    let database = uri.path().trim_start_matches('/');
    let named = |word: &str| !word.is_empty() && !word.contains([':', '/', '%']);
    (named(user) && named(database) && !host.is_empty()).then(|| StoreConfig {
        host: host.to_owned(),
        port,
        database: database.to_owned(),
        user: user.to_owned(),
        tls,
        password_file: None,
        ca_file: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_one_with_a_password_is_refused() {
        let plain = redis_address("redis://10.0.0.5").unwrap();
        assert_eq!(
            (plain.host.as_str(), plain.port, plain.database, plain.tls),
            ("10.0.0.5", 6379, 0, false)
        );
        let full = redis_address("rediss://edge@[::1]:6380/2").unwrap();
        assert_eq!((full.host.as_str(), full.port, full.database, full.tls), ("::1", 6380, 2, true));
        assert_eq!(full.user.as_deref(), Some("edge"));
        for bad in [
            "http://h",
            "redis://:secret@h",
            "redis://u:secret@h",
            "redis://",
            "redis://h/x",
            "redis://h?a=b",
        ] {
            assert_eq!(redis_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_store_is_reached_over_tls_unless_told_otherwise_and_never_by_a_password_in_the_address() {
        let plain = store_address("postgres://edge@db.internal/caracal").unwrap();
        assert_eq!(
            (plain.host.as_str(), plain.port, plain.database.as_str(), plain.user.as_str(), plain.tls),
            ("db.internal", 5432, "caracal", "edge", true)
        );
        let local = store_address("postgresql://edge@[::1]:6432/caracal?sslmode=disable").unwrap();
        assert_eq!((local.host.as_str(), local.port, local.tls), ("::1", 6432, false));
        for bad in [
            "postgres://db/caracal",
            "postgres://edge@db",
            "postgres://edge:hunter2@db/caracal",
            "postgres://edge@db/caracal?sslmode=require",
            "postgres://edge@db/caracal?options=x",
            "postgres://edge@db/a/b",
            "mysql://edge@db/caracal",
        ] {
            assert_eq!(store_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_fleet_needs_a_server_and_a_key_and_a_report_never_shows_a_password() {
        let parse = |state: &str| {
            let text = format!("schema = 1\n[state]\n{state}\n[zones.z]\n");
            super::super::parse("caracal.toml", &text, std::path::Path::new("."))
        };
        let codes = |state: &str| -> Vec<&'static str> {
            parse(state).unwrap_err().problems.iter().map(|problem| problem.code).collect()
        };
        assert!(parse("").unwrap().fleet.is_none());
        assert!(parse("redis = \"redis://h\"\nstream_key_file = \"k\"").unwrap().fleet.is_some());
        assert_eq!(codes("redis = \"redis://h\""), ["stream_key_missing"]);
        assert_eq!(codes("stream_key_file = \"k\""), ["redis_missing"]);
        let fleet = "redis = \"redis://h\"\nstream_key_file = \"k\"\n";
        let store = parse(&format!("{fleet}url = \"postgres://e@d/c\"")).unwrap().fleet.unwrap().store;
        assert!(store.is_some_and(|store| store.tls && store.database == "c"));
        assert_eq!(codes("url = \"postgres://e@d/c\""), ["redis_missing"]);
        assert_eq!(codes(&format!("{fleet}url_ca_file = \"c\"")), ["store_url_missing"]);
        let plain = format!("{fleet}url = \"postgres://e@d/c?sslmode=disable\"\nurl_ca_file = \"c\"");
        assert_eq!(codes(&plain), ["store_ca_unused"]);
        let report = parse(&format!("{fleet}url = \"postgres://e:hunter2@d/c\"")).unwrap_err();
        assert!(
            report.to_string().contains("store_url") && !report.to_string().contains("hunter2"),
            "{report}"
        );
        let report = parse("redis = \"redis://:hunter2@h\"\nstream_key_file = \"k\"").unwrap_err();
        assert!(!report.to_string().contains("hunter2"), "{report}");
    }
}
