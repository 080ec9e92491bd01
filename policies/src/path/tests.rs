use super::*;

fn problem(raw: &str) -> Option<PathProblem> {
    Path::parse(raw).err()
}

#[test]
fn ordinary_paths_keep_their_bytes_and_decode_once() {
    for (raw, decoded) in [
        ("", "/"),
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a//b", "/a//b"),
        ("/a%20b", "/a b"),
        ("/a%2Fb", "/a/b"),
        ("/a%2fb", "/a/b"),
        ("/%C3%A9", "/\u{e9}"),
        ("/caf\u{e9}", "/caf\u{e9}"),
        ("/100%25", "/100%"),
        ("/100%2525", "/100%25"),
        ("/a%25zz", "/a%zz"),
        ("/a;v=1", "/a;v=1"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/...", "/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..b", "/a..b"),
        ("/~u/{x}/*", "/~u/{x}/*"),
        ("/a%3Fb", "/a?b"),
    ] {
        let path = Path::parse(raw).unwrap_or_else(|problem| panic!("{raw}: {problem}"));
        assert_eq!(path.raw(), raw);
        assert_eq!(path.decoded(), decoded, "{raw}");
    }
}

#[test]
fn dot_segments_are_refused_at_any_depth() {
    for raw in [
        "/.",
        "/..",
        "/a/../b",
        "/a/./b",
        "/%2e",
        "/%2e%2e",
        "/.%2E/b",
        "/%252e%252e",
        "/%25252e%25252e/b",
        "/a%2f..",
        "/a%2F%2e%2e%2Fb",
        "/a%252f..%252fb",
        // A lenient second decoder turns this into `/../x%`.
        "/%252e%252e/x%25",
        "/x%25/%252e%252e",
    ] {
        assert_eq!(problem(raw), Some(PathProblem::DotSegment), "{raw}");
    }
}

#[test]
fn backslashes_and_control_characters_are_refused_at_any_depth() {
    for raw in ["/a\\b", "/a%5cb", "/a%5Cb", "/a%255cb", "/a%25255Cb"] {
        assert_eq!(problem(raw), Some(PathProblem::Backslash), "{raw}");
    }
    for raw in ["/a\nb", "/a%00b", "/a%0d%0ab", "/a%7f", "/a%2500", "/a%C2%85b", "/\u{85}"] {
        assert_eq!(problem(raw), Some(PathProblem::ControlCharacter), "{raw}");
    }
}

#[test]
fn a_parameter_needs_a_real_segment_before_it() {
    for raw in ["/;x", "/a/;x=1", "/.;", "/..;/b", "/..;x=1", "/%3bx", "/..%3bx", "/%2e%2e;", "/..%253b"] {
        assert_eq!(problem(raw), Some(PathProblem::EmptyParameterHead), "{raw}");
    }
}

#[test]
fn what_cannot_be_decoded_is_refused() {
    for raw in ["/%", "/%2", "/%zz", "/a%2", "/%%32", "/%g0", "/%+1"] {
        assert_eq!(problem(raw), Some(PathProblem::Undecodable), "{raw}");
    }
    for raw in ["/%ff", "/%c0%ae", "/%e2%82"] {
        assert_eq!(problem(raw), Some(PathProblem::NotUtf8), "{raw}");
    }
}

#[test]
fn what_is_no_path_is_refused() {
    assert_eq!(problem("a"), Some(PathProblem::NotAbsolute));
    assert_eq!(problem("*"), Some(PathProblem::NotAbsolute));
    assert_eq!(problem("http://a/b"), Some(PathProblem::NotAbsolute));
    assert_eq!(problem("/a?b"), Some(PathProblem::NotAPath));
    assert_eq!(problem("/a#b"), Some(PathProblem::NotAPath));
    assert_eq!(problem(&format!("/{}", "a".repeat(limits::PATH_BYTES))), Some(PathProblem::TooLong));
}

#[test]
fn endless_encoding_is_refused_without_endless_work() {
    let deep = |count: usize| format!("/a%{}41", "25".repeat(count));
    assert_eq!(problem(&deep(limits::PATH_DECODINGS)), None);
    assert_eq!(problem(&deep(limits::PATH_DECODINGS + 1)), Some(PathProblem::TooDeep));
    assert_eq!(problem(&deep(4000)), Some(PathProblem::TooDeep));
}

proptest::proptest! {
    #[test]
    fn an_accepted_path_holds_nothing_dangerous_at_any_depth(raw in "/[a.%25eEfF;/\\\\0-9]{0,24}") {
        if Path::parse(&raw).is_ok() {
            let mut text = raw.into_bytes();
            loop {
                proptest::prop_assert!(!text.contains(&b'\\'));
                for segment in text.split(|byte| *byte == b'/') {
                    proptest::prop_assert!(segment != b"." && segment != b"..");
                }
                match decode_leniently(&text) {
                    Some(next) => text = next,
                    None => break,
                }
            }
        }
    }
}
