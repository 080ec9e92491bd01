//! The chain's promises: order, the panic guard, declarations kept, reserved headers, and the stock plugins.

use http::{HeaderName, HeaderValue};
use toml::Table;

use super::*;

#[derive(Debug)]
struct Probe {
    name: &'static str,
    declaration: Declaration,
    does: Does,
}

#[derive(Clone, Copy, Debug)]
enum Does {
    Append(&'static str),
    Panic,
    Refuse,
    SetUndeclared,
    RemoveUndeclared,
    SetBadValue,
    AddBadFact,
    NeedFact(&'static str),
    ReadSecret,
}

impl Plugin for Probe {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declares(&self) -> Declaration {
        self.declaration.clone()
    }

    fn on_request(&self, view: &mut RequestView<'_>) -> Verdict {
        match self.does {
            Does::Append(letter) => {
                let before =
                    view.header("x-trail").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
                view.set_header("X-Trail", &format!("{before}{letter}"));
                view.add_fact("seen", letter);
            }
            Does::Panic => panic!("a plugin's own mistake"),
            Does::Refuse => return Verdict::refuse("not_today"),
            Does::SetUndeclared => view.set_header("x-other", "1"),
            Does::RemoveUndeclared => view.remove_header("x-other"),
            Does::SetBadValue => view.set_header("x-trail", "a\r\nb"),
            Does::AddBadFact => view.add_fact("Not A Word", "1"),
            Does::NeedFact(name) => {
                if view.fact(name).is_none() {
                    return Verdict::refuse("fact_missing");
                }
            }
            Does::ReadSecret => {
                let shown = ["authorization", "X-Api-Key", "cookie", "sec-websocket-protocol"]
                    .iter()
                    .any(|name| view.header(name).is_some() || view.headers(name).next().is_some());
                if shown {
                    return Verdict::refuse("saw_a_secret");
                }
            }
        }
        Verdict::Continue
    }

    fn on_response(&self, view: &mut ResponseView<'_>) -> Verdict {
        match self.does {
            Does::Append(letter) => {
                let before =
                    view.header("x-trail").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
                view.set_header("x-trail", &format!("{before}{letter}"));
                Verdict::Continue
            }
            Does::Panic => panic!("a plugin's own mistake"),
            Does::SetUndeclared => {
                view.set_header("x-other", "1");
                Verdict::Continue
            }
            Does::Refuse
            | Does::RemoveUndeclared
            | Does::SetBadValue
            | Does::AddBadFact
            | Does::NeedFact(_)
            | Does::ReadSecret => Verdict::refuse("not_today"),
        }
    }
}

fn probe(name: &'static str, does: Does) -> Link {
    let trail = vec![HeaderName::from_static("x-trail")];
    let declaration = Declaration {
        phases: vec![Phase::Request, Phase::Response],
        request_headers: trail.clone(),
        response_headers: trail,
        ..Declaration::default()
    };
    let plugin = Arc::new(Probe { name, declaration: declaration.clone(), does });
    Link { name, declaration, plugin }
}

fn request(links: Vec<Link>, headers: &mut HeaderMap) -> (Result<(), ChainStop>, Facts) {
    let mut facts = Facts::new();
    facts.state("application", "demo-agent");
    let answer = Chain { links }.on_request("GET", "/read/hello", headers, &mut facts);
    (answer, facts)
}

fn spec(text: &str) -> PluginSpec {
    let mut config: Table = text.parse().unwrap();
    let name = config.remove("name").unwrap().as_str().unwrap().to_owned();
    PluginSpec { name, config, place: Place { file: "resources.toml".into(), line: 7, column: 3 } }
}

fn refused_at_load(text: &str) -> String {
    let problems = Chain::build(&Registry::stock(), &[spec(text)]).unwrap_err();
    assert_eq!(problems[0].place.line, 7);
    problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
}

#[test]
fn plugins_run_in_the_order_of_the_list_in_both_directions() {
    let links = || vec![probe("one", Does::Append("1")), probe("two", Does::Append("2"))];
    let mut headers = HeaderMap::new();
    let (answer, facts) = request(links(), &mut headers);
    assert_eq!(answer, Ok(()));
    assert_eq!(headers["x-trail"], "12");
    assert_eq!(facts.find("one.seen"), Some("1"));
    assert_eq!(facts.iter().count(), 3);
    let mut response = HeaderMap::new();
    assert_eq!(Chain { links: links() }.on_response(200, &mut response, None), Ok(()));
    assert_eq!(response["x-trail"], "12");
}

#[test]
fn the_first_objection_ends_the_chain() {
    let mut headers = HeaderMap::new();
    let links = vec![probe("no", Does::Refuse), probe("after", Does::Append("x"))];
    let (answer, _) = request(links, &mut headers);
    assert_eq!(answer, Err(ChainStop::Refused { plugin: "no", code: "not_today" }));
    assert!(headers.is_empty());
}

#[test]
fn a_panicking_plugin_refuses_in_both_directions() {
    let (answer, _) = request(vec![probe("broken", Does::Panic)], &mut HeaderMap::new());
    assert_eq!(answer, Err(ChainStop::Fault { plugin: "broken" }));
    let chain = Chain { links: vec![probe("broken", Does::Panic)] };
    let answer = chain.on_response(200, &mut HeaderMap::new(), None);
    assert_eq!(answer, Err(ChainStop::Fault { plugin: "broken" }));
}

#[test]
fn an_undeclared_header_change_refuses_and_is_not_made() {
    for does in [Does::SetUndeclared, Does::RemoveUndeclared, Does::SetBadValue, Does::AddBadFact] {
        let mut headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-other"),
            HeaderValue::from_static("original"),
        )]);
        let (answer, facts) = request(vec![probe("sly", does)], &mut headers);
        assert_eq!(answer, Err(ChainStop::Fault { plugin: "sly" }), "{does:?}");
        assert_eq!(headers["x-other"], "original");
        assert_eq!(headers.len(), 1);
        assert_eq!(facts.iter().count(), 1);
    }
    let mut response = HeaderMap::new();
    let chain = Chain { links: vec![probe("sly", Does::SetUndeclared)] };
    assert_eq!(chain.on_response(200, &mut response, None), Err(ChainStop::Fault { plugin: "sly" }));
    assert!(response.is_empty());
}

#[test]
fn a_fact_is_stated_once_and_only_under_its_plugins_name() {
    let links = vec![probe("two", Does::NeedFact("one.seen"))];
    let (answer, _) = request(links, &mut HeaderMap::new());
    assert_eq!(answer, Err(ChainStop::Refused { plugin: "two", code: "fact_missing" }));
    let links = vec![probe("one", Does::Append("1")), probe("two", Does::NeedFact("one.seen"))];
    assert_eq!(request(links, &mut HeaderMap::new()).0, Ok(()));
    let twice = vec![probe("one", Does::Append("1")), probe("one", Does::Append("2"))];
    assert_eq!(request(twice, &mut HeaderMap::new()).0, Err(ChainStop::Fault { plugin: "one" }));
}

#[test]
fn facts_are_bounded_in_number_and_size() {
    let mut facts = Facts::new();
    assert!(!facts.add("p", "long", &"x".repeat(Facts::MAX_VALUE_BYTES + 1)));
    for index in 0..Facts::MAX {
        assert!(facts.add("p", &format!("f{index}"), "v"));
    }
    assert!(!facts.add("p", "one_more", "v"));
}

#[test]
fn a_plugin_is_not_shown_headers_that_may_hold_secrets() {
    let mut headers = HeaderMap::new();
    for name in ["authorization", "x-api-key", "cookie", "sec-websocket-protocol"] {
        headers.insert(name, HeaderValue::from_static("secret"));
    }
    assert_eq!(request(vec![probe("nosy", Does::ReadSecret)], &mut headers).0, Ok(()));
}

#[test]
fn no_response_plugin_runs_before_the_scrub_wherever_it_stands_in_the_list() {
    let mut scrub = Chain::build(&Registry::stock(), &[spec(r#"name = "response_scrub""#)]).unwrap().links;
    let mut links = vec![probe("reader", Does::Append("!"))];
    links.append(&mut scrub);
    let chain = Chain { links };
    assert!(chain.scrubs() && !chain.scrubs_bodies());
    let bodies = [spec("name = \"response_scrub\"\nbodies = true")];
    assert!(Chain::build(&Registry::stock(), &bodies).unwrap().scrubs_bodies());
    let mut headers = HeaderMap::new();
    headers.insert("x-trail", HeaderValue::from_static("key=demo-secret-value"));
    let scrubber = Scrubber::new(&[b"demo-secret-value"]);
    assert_eq!(chain.on_response(200, &mut headers, Some(&scrubber)), Ok(()));
    assert_eq!(headers["x-trail"], "key=*****************!");
}

#[test]
fn the_headers_plugin_sets_and_removes_both_ways() {
    let chain = Chain::build(
        &Registry::stock(),
        &[spec(
            r#"
            name = "headers"
            request_set = { "X-Team" = "payments" }
            request_remove = ["X-Debug"]
            response_set = { "Cache-Control" = "no-store" }
            response_remove = ["Via"]
            "#,
        )],
    )
    .unwrap();
    assert!(!chain.is_empty() && !chain.scrubs());
    let mut headers = HeaderMap::new();
    headers.append("x-team", HeaderValue::from_static("a"));
    headers.append("x-team", HeaderValue::from_static("b"));
    headers.insert("x-debug", HeaderValue::from_static("1"));
    assert_eq!(chain.on_request("GET", "/", &mut headers, &mut Facts::new()), Ok(()));
    assert_eq!(headers.get_all("x-team").iter().collect::<Vec<_>>(), ["payments"]);
    assert!(!headers.contains_key("x-debug"));
    let mut response = HeaderMap::new();
    response.insert("via", HeaderValue::from_static("1.1 somewhere"));
    assert_eq!(chain.on_response(200, &mut response, None), Ok(()));
    assert_eq!(response["cache-control"], "no-store");
    assert!(!response.contains_key("via"));
}

#[test]
fn bad_settings_are_load_errors_with_their_place() {
    assert!(refused_at_load(r#"name = "header""#).contains("no plugin called `header`"));
    assert!(refused_at_load(r#"name = "headers""#).contains("neither sets nor removes"));
    assert!(
        refused_at_load("name = \"headers\"\nrequest_sett = {}").contains("unknown field `request_sett`")
    );
    assert!(refused_at_load("name = \"headers\"\nrequest_remove = [\"a b\"]").contains("not a header name"));
    assert!(refused_at_load("name = \"response_scrub\"\nlevel = 3").contains("unknown field `level`"));
    let twice = "name = \"headers\"\nrequest_remove = [\"x-a\"]\nrequest_set = { \"X-A\" = \"1\" }";
    assert!(refused_at_load(twice).contains("more than once"));
    let bad_value = "name = \"headers\"\nresponse_set = { \"X-A\" = \"a\\nb\" }";
    assert!(refused_at_load(bad_value).contains("cannot stand in a header"));
}

#[test]
fn reserved_headers_are_load_errors_all_at_once() {
    let text = "name = \"headers\"\nrequest_set = { Authorization = \"Bearer x\", Host = \"evil\" }\nresponse_remove = [\"X-Caracal-Identity\"]";
    let found = refused_at_load(text);
    for name in ["authorization", "host", "x-caracal-identity"] {
        assert!(found.contains(&format!("`{name}`")), "{found}");
    }
    let own = [spec("name = \"headers\"\nrequest_set = { \"X-Vendor-Key\" = \"1\" }")];
    assert!(Chain::build(&Registry::stock(), &own).is_ok_and(|chain| !chain.is_empty()));
    let problems = Chain::build_reserving(&Registry::stock(), &own, &["x-vendor-key"]).unwrap_err();
    assert!(problems[0].message.contains("x-vendor-key"));
}

#[test]
fn a_plugin_is_registered_once_and_under_its_own_name() {
    fn make(_: &Table) -> Result<Arc<dyn Plugin>, String> {
        Ok(probe("mine", Does::Refuse).plugin)
    }
    let mut registry = Registry::stock();
    assert_eq!(registry.register("mine", make), Ok(()));
    assert_eq!(registry.register("headers", make).unwrap_err().name, "headers");
    assert_eq!(registry.register("yours", make), Ok(()));
    assert_eq!(registry.names().collect::<Vec<_>>(), ["headers", "mine", "response_scrub", "yours"]);
    assert!(Chain::build(&registry, &[spec("name = \"mine\"")]).is_ok_and(|chain| !chain.is_empty()));
    let problems = Chain::build(&registry, &[spec("name = \"yours\"")]).unwrap_err();
    assert!(problems[0].message.contains("calls itself `mine`"));
}
