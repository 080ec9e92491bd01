//! Values that stand in files of their own, as orchestrators mount them.
//!
//! The secrets file names them and says where their values may go; a bundle cannot name a file. What may be named is in
//! one folder, which the configuration chooses.

use std::path::Path;

use caracal_policies::Problem;
use zeroize::Zeroizing;

use super::open;

/// Where such files may be.
#[derive(Clone, Copy)]
pub(super) struct Files<'c> {
    /// The folder; without one no file may be named.
    pub(super) folder: Option<&'c Path>,
    /// Whether they may be readable for one of our groups, as the secrets file.
    pub(super) mounted: bool,
}

/// Why there is no text.
pub(super) enum Unread {
    /// The name is wrong, where it stands.
    Name { code: &'static str, message: &'static str, expected: &'static str },
    /// The file is.
    File(Box<Problem>),
}

impl Files<'_> {
    /// The text of the file with this name in the folder, or with this path beneath it. Links are followed as long as
    /// they end in the folder: that is how Kubernetes swaps what is mounted.
    pub(super) fn read(&self, named: &str) -> Result<Zeroizing<String>, Unread> {
        let Some(folder) = self.folder else {
            let (message, expected) =
                ("files with secrets have no folder", "`[secrets] files_dir = \"...\"` in caracal.toml");
            return Err(Unread::Name { code: "secret_files_dir", message, expected });
        };
        let shown = folder.join(named);
        let unopened = |error| Unread::File(open::VALUE.unopened(&shown, &error));
        let root = std::fs::canonicalize(folder).map_err(unopened)?;
        let real = std::fs::canonicalize(&shown).map_err(unopened)?;
        if !real.starts_with(&root) {
            let (message, expected) =
                ("this file is not in the folder for them", "a file in `[secrets] files_dir`");
            return Err(Unread::Name { code: "secret_file_outside", message, expected });
        }
        open::read_bytes(&open::VALUE, &real, &shown, self.mounted)
            .and_then(|bytes| open::text(&open::VALUE, &shown, &bytes))
            .map_err(Unread::File)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use caracal_policies::Scheme;

    use super::super::{Dial, FingerprintKey, SecretRefused, SecretsTable};
    use crate::config::SecretsConfig;

    /// A value no report may show.
    const VALUE: &str = "sk-canary-0c4de2";

    struct Site {
        dir: tempfile::TempDir,
        config: SecretsConfig,
    }

    impl Site {
        fn new(value: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("mounted");
            fs::create_dir(&folder).unwrap();
            let file = dir.path().join("secrets.toml");
            let site = Self {
                config: SecretsConfig { file, files_dir: Some(folder), ..SecretsConfig::default() },
                dir,
            };
            site.put("mounted/key", VALUE, 0o600);
            site.named(value);
            site
        }

        fn put(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        /// Writes the secrets file with `value` as what stands behind the key.
        fn named(&self, value: &str) {
            let text =
                format!("schema = 1\n[secrets.s]\nzones = [\"z\"]\nhosts = [\"h.example\"]\nk = {value}\n");
            self.put("secrets.toml", &text, 0o600);
        }

        fn table(&self) -> SecretsTable {
            let table = SecretsTable::load(&self.config, &FingerprintKey::unkept());
            table.unwrap_or_else(|report| panic!("{report}"))
        }

        /// The code of the refusal, and whether its place is in the secrets file.
        fn code(&self) -> (&'static str, bool) {
            let report = SecretsTable::load(&self.config, &FingerprintKey::unkept()).unwrap_err();
            assert!(!format!("{report:?} {report}").contains("canary"), "a report shows a value: {report:?}");
            let problem = &report.problems[0];
            (problem.code, problem.place.file.ends_with("secrets.toml") && problem.place.line == 5)
        }
    }

    fn get(table: &SecretsTable, zone: &str, host: &str) -> Result<String, SecretRefused> {
        let dial = Dial { scheme: Scheme::Https, host, port: 443, loopback: false };
        table.get(zone, "s", "k", &dial).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_value_in_a_file_goes_where_its_entry_says_and_nowhere_else() {
        let site = Site::new("{ file = \"key\" }");
        let table = site.table();
        assert_eq!(get(&table, "z", "h.example").as_deref(), Ok(VALUE));
        assert_eq!(get(&table, "y", "h.example"), Err(SecretRefused::ZoneNotAllowed));
        assert_eq!(get(&table, "z", "evil.example"), Err(SecretRefused::HostNotAllowed));
        assert!(!format!("{table:?}").contains("canary"));
        assert_eq!(table.listed().map(|one| one.file).collect::<Vec<_>>(), [Some("key")]);
    }

    #[test]
    fn one_line_break_at_the_end_is_no_part_of_a_value() {
        let site = Site::new("{ file = \"key\" }");
        for text in [format!("{VALUE}\n"), format!("{VALUE}\r\n")] {
            site.put("mounted/key", &text, 0o600);
            assert_eq!(get(&site.table(), "z", "h.example").as_deref(), Ok(VALUE));
        }
        for (text, code) in [
            (format!("{VALUE}\n\n"), "secret_unprintable"),
            (format!("sk\n{VALUE}"), "secret_unprintable"),
            ("\n".to_owned(), "secret_empty"),
        ] {
            site.put("mounted/key", &text, 0o600);
            assert_eq!(site.code(), (code, true), "{text:?}");
        }
    }

    #[test]
    fn only_files_in_the_folder_may_be_named() {
        let mut site = Site::new("{ file = \"key\" }");
        let outside = site.put("outside", VALUE, 0o600);
        let folder = site.dir.path().join("mounted");
        symlink(&outside, folder.join("leads-out")).unwrap();
        symlink("key", folder.join("leads-in")).unwrap();
        for name in ["../outside", "leads-out", "../mounted/../outside", &outside.display().to_string()] {
            site.named(&format!("{{ file = \"{name}\" }}"));
            assert_eq!(site.code(), ("secret_file_outside", true), "{name}");
        }
        for name in ["leads-in", "../mounted/key", &folder.join("key").display().to_string()] {
            site.named(&format!("{{ file = \"{name}\" }}"));
            assert_eq!(get(&site.table(), "z", "h.example").as_deref(), Ok(VALUE), "{name}");
        }
        site.config.files_dir = None;
        assert_eq!(site.code(), ("secret_files_dir", true));
    }

    #[test]
    fn what_holds_for_the_secrets_file_holds_for_the_files_it_names() {
        let mut site = Site::new("{ file = \"key\" }");
        for mode in [0o644, 0o604, 0o620, 0o640] {
            site.put("mounted/key", VALUE, mode);
            assert_eq!(site.code(), ("secrets_mode", false), "{mode:o}");
        }
        site.config.mounted = true;
        site.table();
        for (text, code) in [("", "secrets_empty"), (&*"x".repeat(65_537), "secrets_too_large")] {
            site.put("mounted/key", text, 0o600);
            assert_eq!(site.code(), (code, false));
        }
        for (name, code) in [("none", "secrets_missing"), (".", "secrets_kind")] {
            site.named(&format!("{{ file = \"{name}\" }}"));
            assert_eq!(site.code(), (code, false), "{name}");
        }
        for value in ["{ file = 7 }", "{ file = \"key\", more = 1 }", "{}"] {
            site.named(value);
            assert_eq!(site.code(), ("wrong_type", true), "{value}");
        }
    }

    #[test]
    fn a_changed_file_is_a_changed_table_and_dates_are_kept_for_what_stays() {
        let site = Site::new("{ file = \"key\" }\nother = \"stays\"");
        let first = site.table().dated(&SecretsTable::empty(), 1_000);
        assert!(first.same_text(&site.table()));
        site.put("mounted/key", "another-value", 0o600);
        let second = site.table().dated(&first, 2_000);
        assert!(!first.same_text(&second));
        assert_eq!(first.changes(&second), ["secret `s` key `k` changes"]);
        assert_eq!(
            second.listed().map(|one| (one.key, one.since)).collect::<Vec<_>>(),
            [("k", 2_000), ("other", 1_000)]
        );
    }
}
