use super::*;

const TEXT: &str = "# of the team\nschema = 1\n\n[secrets.stripe] # payments\nzones = [\"z\"]\nhosts = [\n  \"h.example\", # live\n]\n\
                    api_key = \"old\" # since May\n\n[secrets.\"git.hub\"]\nzones = ['z']\nhosts = ['h']\ntoken = 'o'\n\
                    [secrets.\"git.hub\".app]\nfile = \"hub\"\n";
const INLINE: &str = "schema = 1\nsecrets.s = { zones = [\"z\"], hosts = [\"h\"], k = \"old\" }\n";

fn set<'s>(name: &'s str, key: &'s str, value: &'s str) -> Setting<'s> {
    Setting { name, key, value, zones: &[], hosts: &[], recipients: &[], folder: None }
}

fn text(text: &str, setting: &Setting<'_>) -> (String, bool) {
    let edited = edited("secrets.toml", text, setting).unwrap_or_else(|why| panic!("{why:?}"));
    (edited.text.to_string(), edited.added)
}

fn refused(text: &str, setting: &Setting<'_>) -> String {
    match edited("secrets.toml", text, setting) {
        Err(NotSet::Input(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("taken"),
    }
}

#[test]
fn a_known_value_is_replaced_and_nothing_else_is_touched() {
    for (name, key, old, value, new) in [
        ("stripe", "api_key", "\"old\" # since", "new", "\"new\" # since"),
        ("stripe", "api_key", "\"old\" # since", "a\"b\\c'd\u{e9}", "\"a\\\"b\\\\c'd\u{e9}\" # since"),
        (
            "stripe",
            "api_key",
            "\"old\" # since",
            "-----BEGIN\nx\n-----",
            "'''\n-----BEGIN\nx\n-----''' # since",
        ),
        ("stripe", "api_key", "\"old\" # since", "a\r\nb", "\"a\\u000D\\u000Ab\" # since"),
        ("git.hub", "token", "'o'\n", "new", "\"new\"\n"),
    ] {
        assert_eq!(
            text(TEXT, &set(name, key, value)),
            (TEXT.replace(old, new), false),
            "{name}/{key} {value}"
        );
    }
    assert_eq!(text(INLINE, &set("s", "k", "new")), (INLINE.replace("old", "new"), false));
}

#[test]
fn a_new_key_stands_behind_the_last_of_its_entry() {
    let added = text(TEXT, &set("stripe", "other", "new"));
    assert_eq!(added, (TEXT.replace("# since May\n", "# since May\nother = \"new\"\n"), true));
    let added = text(TEXT, &set("git.hub", "a.b", "new"));
    assert_eq!(added, (TEXT.replace("'o'\n", "'o'\n\"a.b\" = \"new\"\n"), true));
    let added = text(INLINE, &set("s", "other", "new"));
    assert_eq!(added, (INLINE.replace("\"old\"", "\"old\", other = \"new\""), true));
    let unended = TEXT.split_once("\n\n[secrets.\"git").unwrap().0;
    assert_eq!(text(unended, &set("stripe", "other", "new")).0, format!("{unended}\nother = \"new\""));
}

#[test]
fn a_new_entry_says_where_it_may_go_and_a_known_one_keeps_it() {
    let (zones, hosts) = (["z".to_owned(), "y".to_owned()], ["h.example:8443".to_owned()]);
    let new = Setting { zones: &zones, hosts: &hosts, ..set("n.e", "k", "new") };
    let expected = "\n[secrets.\"n.e\"]\nzones = [\"z\", \"y\"]\nhosts = [\"h.example:8443\"]\nk = \"new\"\n";
    assert_eq!(text(TEXT, &new), (format!("{TEXT}{expected}"), true));
    assert_eq!(text("schema = 1", &new).0, format!("schema = 1\n{expected}"));

    assert!(refused(TEXT, &set("new", "k", "v")).contains("--zone and --host"));
    assert!(refused(TEXT, &Setting { zones: &zones, ..set("new", "k", "v") }).contains("--zone and --host"));
    assert!(
        refused(TEXT, &Setting { hosts: &hosts, ..set("stripe", "api_key", "v") }).contains("edit the file")
    );
    assert!(refused(TEXT, &set("stripe", "zones", "v")).contains("word of every entry"));
}

#[test]
fn a_value_in_a_file_of_its_own_is_written_there() {
    let folder = std::path::Path::new("/run/secrets");
    for text in [TEXT.to_owned(), TEXT.replace("[secrets.\"git.hub\".app]\nfile", "app.file")] {
        let said = refused(&text, &Setting { folder: Some(folder), ..set("git.hub", "app", "v") });
        assert!(said.contains("write `/run/secrets/hub`"), "{said}");
    }
}
