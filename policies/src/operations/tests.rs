use super::*;

fn place(line: u32) -> Place {
    Place { file: "resources.toml".into(), line, column: 1 }
}

fn operation(method: &str, path: &str, scope: &str) -> Operation {
    let method = if method == "*" { OperationMethod::Any } else { OperationMethod::Named(method.into()) };
    check_template(path).unwrap_or_else(|problem| panic!("{path}: {problem:?}"));
    Operation { method, path: path.into(), scope: scope.into(), place: place(1) }
}

fn operations(list: &[(&str, &str, &str)]) -> Operations {
    let mut operations = Operations::default();
    for (method, path, scope) in list {
        operations.insert(operation(method, path, scope)).unwrap();
    }
    operations
}

fn found<'a>(operations: &'a Operations, method: &str, path: &str) -> Option<&'a str> {
    operations.find(method, &Path::parse(path).unwrap()).map(|operation| &*operation.scope)
}

#[test]
fn the_most_specific_operation_decides() {
    let operations = operations(&[
        ("GET", "/users/{id}", "user.read"),
        ("GET", "/users/admin", "admin.read"),
        ("*", "/**", "everything"),
        ("POST", "/users/**", "user.tree"),
        ("GET", "/{area}/settings", "settings"),
        ("GET", "/users/{id}/settings", "user.settings"),
        ("*", "/users/{id}", "user.any"),
    ]);
    for (method, path, scope) in [
        ("GET", "/users/7", "user.read"),
        ("GET", "/users/admin", "admin.read"),
        ("GET", "/users/%61dmin", "admin.read"),
        ("DELETE", "/users/7", "user.any"),
        ("DELETE", "/users/admin", "user.any"),
        ("POST", "/users/7", "user.any"),
        ("POST", "/users/7/x", "user.tree"),
        ("GET", "/users/7/x", "everything"),
        ("GET", "/users/7/settings", "user.settings"),
        ("GET", "/users/settings", "user.read"),
        ("GET", "/other/settings", "settings"),
        ("get", "/users/7", "user.any"),
    ] {
        assert_eq!(found(&operations, method, path), Some(scope), "{method} {path}");
    }
    assert_eq!(found(&operations, "GET", "/"), None);
}

#[test]
fn path_specificity_goes_before_method_specificity() {
    let operations = operations(&[("*", "/users/admin", "admin"), ("GET", "/users/{id}", "user")]);
    assert_eq!(found(&operations, "GET", "/users/admin"), Some("admin"));
    assert_eq!(found(&operations, "GET", "/users/7"), Some("user"));
    assert_eq!(found(&operations, "PUT", "/users/7"), None);
}

#[test]
fn an_earlier_literal_beats_a_later_one() {
    let operations = operations(&[("GET", "/a/{x}/**", "left"), ("GET", "/{x}/b/c", "right")]);
    assert_eq!(found(&operations, "GET", "/a/b/c"), Some("left"));
    assert_eq!(found(&operations, "GET", "/z/b/c"), Some("right"));
    assert_eq!(found(&operations, "GET", "/a/b"), None);
}

#[test]
fn placeholders_match_only_plain_segments() {
    let operations = operations(&[("GET", "/v1/{id}", "one"), ("GET", "/v1/tree/**", "tree")]);
    for path in [
        "/v1",
        "/v1/",
        "/v1/a/",
        "/v1/a%2Fb",
        "/v1/a;b",
        "/v1/a%3Bb",
        "/v1//a",
        "//v1/a",
        "/v1/tree",
        "/v1/tree/",
        "/v1/tree/a/",
        "/v1/tree//a",
        "/v1/tree/a;b/c",
        "/v1/tree/a%2Fb",
    ] {
        let expected = (path == "/v1/tree").then_some("one");
        assert_eq!(found(&operations, "GET", path), expected, "{path}");
    }
    assert_eq!(found(&operations, "GET", "/v1/tree/a/b/c"), Some("tree"));
    assert_eq!(found(&operations, "GET", "/v1/a%20b"), Some("one"));
}

#[test]
fn what_placeholders_refuse_can_be_spelled() {
    let operations = operations(&[
        ("GET", "/", "root"),
        ("GET", "/a/", "slash"),
        ("GET", "/a//b", "double"),
        ("GET", "/a;v=1/b", "parameter"),
        ("GET", "/a%2Fb", "encoded"),
        ("GET", "/%7Bid%7D", "braces"),
        ("GET", "/a/{id}/", "item"),
    ]);
    for (path, scope) in [
        ("", Some("root")),
        ("/", Some("root")),
        ("/a/", Some("slash")),
        ("/a//b", Some("double")),
        ("/a;v=1/b", Some("parameter")),
        ("/a%3bv=1/b", Some("parameter")),
        ("/a%2fb", Some("encoded")),
        ("/a/b", None),
        ("/%7bid%7d", Some("braces")),
        ("/x", None),
        ("/a/7/", Some("item")),
    ] {
        assert_eq!(found(&operations, "GET", path), scope, "{path}");
    }
}

#[test]
fn an_upstream_that_decodes_again_reads_the_same_operation() {
    let operations = operations(&[
        ("GET", "/users/{id}", "user.read"),
        ("GET", "/users/admin", "admin.read"),
        ("GET", "/files/**", "files"),
        ("GET", "/files/secret/**", "secret"),
    ]);
    for (path, scope) in [
        ("/users/100%25", Some("user.read")),
        ("/users/a%2520b", Some("user.read")),
        ("/users/%2561dmin", None),
        ("/users/%252561dmin", None),
        ("/users/a%252Fb", None),
        ("/users/a%253Bb", None),
        ("/files/a%252Fb", Some("files")),
        ("/files/a%252520b", Some("files")),
        ("/files/secret%252Fb", None),
        ("/files/a%252F%252Fb", None),
        ("/files%252Fa", None),
    ] {
        assert_eq!(found(&operations, "GET", path), scope, "{path}");
    }
}

#[test]
fn equal_specificity_with_another_scope_clashes() {
    let mut operations = operations(&[("GET", "/users/{id}", "read")]);
    operations.insert(operation("GET", "/users/{name}", "read")).unwrap();
    let clash = operations.insert(operation("GET", "/users/{name}", "write")).unwrap_err();
    assert_eq!((&*clash.first.scope, &*clash.second.scope), ("read", "write"));
    assert_eq!(operations.iter().count(), 1);
    operations.insert(operation("*", "/users/{name}", "write")).unwrap();
}

#[test]
fn templates_that_promise_too_much_are_refused() {
    for (template, problem) in [
        ("users", TemplateProblem::Path(PathProblem::NotAbsolute)),
        ("", TemplateProblem::Path(PathProblem::NotAbsolute)),
        ("/a/../b", TemplateProblem::Path(PathProblem::DotSegment)),
        ("/a?b", TemplateProblem::Path(PathProblem::NotAPath)),
        ("/**/a", TemplateProblem::RestNotLast),
        ("/*", TemplateProblem::Mixed),
        ("/a*", TemplateProblem::Mixed),
        ("/{}", TemplateProblem::Mixed),
        ("/x{id}", TemplateProblem::Mixed),
        ("/{id}:act", TemplateProblem::Mixed),
        ("/{a}{b}", TemplateProblem::Mixed),
        ("/a%2541", TemplateProblem::EncodedTwice),
    ] {
        assert_eq!(check_template(template), Err(problem), "{template}");
    }
    assert_eq!(check_template(&"/a".repeat(limits::TEMPLATE_SEGMENTS + 1)), Err(TemplateProblem::TooLong));
}
