use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use caracal_policies::{Assigned, BundleSource, Scheme, SourceFile, compile};

use super::class::Standing;
use super::*;

fn config(more: &str) -> Config {
    let text = format!("schema = 1\n{more}\n[zones.z]\n");
    crate::config::parse("caracal.toml", &text, Path::new(".")).unwrap_or_else(|report| panic!("{report}"))
}

/// Gives the answers in turn, and the last one for ever.
#[derive(Debug)]
struct Scripted {
    answers: Vec<Vec<&'static str>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&'static str]]) -> Arc<Self> {
        Arc::new(Self {
            answers: answers.iter().map(|one| one.to_vec()).collect(),
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Resolver for Scripted {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed).min(self.answers.len() - 1);
        Ok(self.answers[turn].iter().map(|address| address.parse().unwrap()).collect())
    }
}

#[test]
fn every_range_has_its_class() {
    use Class::{
        Benchmark, Broadcast, Documentation, LinkLocal, Loopback, Metadata, Multicast, Private, Public,
        Reserved, Shared, Unspecified,
    };
    for (address, class) in [
        ("93.184.216.34", Public),
        ("8.8.8.8", Public),
        ("172.15.255.255", Public),
        ("172.32.0.0", Public),
        ("100.63.255.255", Public),
        ("100.128.0.0", Public),
        ("2606:2800:220:1::1", Public),
        ("2001:200::1", Public),
        ("127.0.0.1", Loopback),
        ("127.255.255.254", Loopback),
        ("::1", Loopback),
        ("10.0.0.1", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("fc00::1", Private),
        ("fdff::1", Private),
        ("fec0::1", Private),
        ("100.64.0.1", Shared),
        ("100.127.255.255", Shared),
        ("169.254.0.1", LinkLocal),
        ("169.254.169.253", LinkLocal),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("169.254.169.254", Metadata),
        ("169.254.170.2", Metadata),
        ("169.254.170.23", Metadata),
        ("100.100.100.200", Metadata),
        ("192.0.0.192", Metadata),
        ("168.63.129.16", Metadata),
        ("fd00:ec2::254", Metadata),
        ("fd00:ec2::23", Metadata),
        ("fd20:ce::254", Metadata),
        ("fd00:c1::a9fe:a9fe", Metadata),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("ff02::1", Multicast),
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("::", Unspecified),
        ("255.255.255.255", Broadcast),
        ("192.0.2.1", Documentation),
        ("198.51.100.1", Documentation),
        ("203.0.113.1", Documentation),
        ("2001:db8::1", Documentation),
        ("3fff::1", Documentation),
        ("198.18.0.1", Benchmark),
        ("198.19.255.255", Benchmark),
        ("2001:2::1", Benchmark),
        ("192.0.0.8", Reserved),
        ("240.0.0.1", Reserved),
        ("100::1", Reserved),
        ("2001:20::1", Reserved),
        ("4000::1", Reserved),
        ("5f00::1", Reserved),
    ] {
        assert_eq!(Class::of(address.parse().unwrap()), class, "{address}");
    }
}

#[test]
fn an_ipv4_address_is_judged_in_every_form_it_hides_in() {
    use Class::{Loopback, Metadata, Multicast, Private, Public, Reserved, Translated, Tunnel, Unspecified};
    for (address, class) in [
        // IPv4-mapped.
        ("::ffff:8.8.8.8", Public),
        ("::ffff:10.0.0.1", Private),
        ("::ffff:169.254.169.254", Metadata),
        ("::ffff:0.0.0.0", Unspecified),
        // IPv4-compatible.
        ("::8.8.8.8", Reserved),
        ("::169.254.169.254", Metadata),
        // NAT64.
        ("64:ff9b::5db8:d822", Public),
        ("64:ff9b::a00:1", Private),
        ("64:ff9b::7f00:1", Loopback),
        ("64:ff9b::a9fe:a9fe", Metadata),
        ("64:ff9b::e000:1", Multicast),
        // NAT64 of this network, with prefixes of 96, 64, 56 and 48 bits.
        ("64:ff9b:1::808:808", Translated),
        ("64:ff9b:1::a9fe:a9fe", Metadata),
        ("64:ff9b:1:0:a9:fea9:fe00:0", Metadata),
        ("64:ff9b:1:a9:fe:a9fe::", Metadata),
        ("64:ff9b:1:a9fe:a9:fe00::", Metadata),
        // 6to4 and Teredo.
        ("2002:808:808::1", Tunnel),
        ("2002:a9fe:a9fe::1", Metadata),
        ("192.88.99.1", Tunnel),
        ("2001:0:808:808::1", Tunnel),
        ("2001:0:a9fe:a9fe::1", Metadata),
        ("2001::5601:5601", Metadata),
    ] {
        assert_eq!(Class::of(address.parse().unwrap()), class, "{address}");
    }
}

/// What each reach makes of each kind of address, without and with the operator's networks.
#[tokio::test]
async fn who_dials_and_what_the_operator_lists_decide_together() {
    let upstream = Reach::Upstream;
    let token = Reach::TokenEndpoint(Scheme::Https);
    let plain = Reach::TokenEndpoint(Scheme::Http);
    let keys = Reach::KeySet(Scheme::Https);
    let listed = "[egress]\nnetworks = [\"10.20.0.0/16\", \"198.18.0.0/15\", \"64:ff9b:1::/48\"]";
    let hosts = "[federation]\nprivate_hosts = [\"10.1.2.3\", \"169.254.169.254\"]";
    for (more, address, reach, expected) in [
        ("", "93.184.216.34", upstream, "ok"),
        ("", "10.1.2.3", upstream, "ok"),
        ("", "100.64.0.1", upstream, "ok"),
        ("", "fd12::1", upstream, "ok"),
        ("", "127.0.0.1", upstream, "ok"),
        ("", "169.254.169.254", upstream, "never"),
        ("", "::ffff:169.254.169.254", upstream, "never"),
        ("", "fd00:ec2::254", upstream, "never"),
        ("", "198.18.0.1", upstream, "network"),
        ("", "203.0.113.1", upstream, "network"),
        ("", "10.1.2.3", token, "ok"),
        ("", "fe80::1", token, "never"),
        ("", "127.0.0.1", plain, "ok"),
        ("", "::1", plain, "ok"),
        ("", "10.1.2.3", plain, "plaintext"),
        ("", "93.184.216.34", keys, "ok"),
        ("", "127.0.0.1", keys, "inside"),
        (hosts, "10.1.2.3", keys, "ok"),
        (hosts, "10.1.2.4", keys, "inside"),
        (hosts, "169.254.169.254", keys, "never"),
        (listed, "93.184.216.34", upstream, "ok"),
        (listed, "10.20.1.1", upstream, "ok"),
        (listed, "64:ff9b::a14:101", upstream, "ok"),
        (listed, "198.18.0.1", upstream, "ok"),
        (listed, "64:ff9b:1::808:808", upstream, "ok"),
        (listed, "64:ff9b:1::a9fe:a9fe", upstream, "never"),
        (listed, "10.21.0.1", upstream, "network"),
        (listed, "127.0.0.1", token, "network"),
        (listed, "10.20.1.1", keys, "inside"),
        ("[egress]\nnetworks = []", "::1", upstream, "network"),
        ("[egress]\nhosts = [\"api.example.com\"]", "93.184.216.34", upstream, "host"),
        ("[egress]\nhosts = [\"93.184.216.34\"]", "93.184.216.34", upstream, "ok"),
    ] {
        let egress = Egress::new(&config(more), Arc::new(SystemResolver)).unwrap();
        let found = egress.address(address, 443, reach).await;
        assert_eq!(word(found.err().as_ref()), expected, "{more} {address} {reach:?}");
    }
}

fn word(refused: Option<&Refused>) -> &'static str {
    match refused {
        None => "ok",
        Some(Refused::Unresolved(_)) => "unresolved",
        Some(Refused::Host(_)) => "host",
        Some(Refused::Never { .. }) => "never",
        Some(Refused::Network { .. }) => "network",
        Some(Refused::Inside { .. }) => "inside",
        Some(Refused::Plaintext { .. }) => "plaintext",
    }
}

#[tokio::test]
async fn a_refusal_says_which_address_why_and_what_allows_it() {
    let keys = Reach::KeySet(Scheme::Https);
    for (more, address, reach, expected) in [
        (
            "",
            "::ffff:169.254.169.254",
            keys,
            "is at ::ffff:169.254.169.254, which is a cloud's metadata service and never dialled",
        ),
        (
            "",
            "198.18.0.1",
            Reach::Upstream,
            "is at 198.18.0.1, which is an address for benchmarks; list its network in [egress] networks if it is meant",
        ),
        (
            "",
            "10.1.2.3",
            keys,
            "is at 10.1.2.3, which is a private address; list the host in [federation] private_hosts if it is meant",
        ),
        ("[egress]\nhosts = [\"a\"]", "10.1.2.3", keys, "is not in [egress] hosts"),
    ] {
        let egress = Egress::new(&config(more), Arc::new(SystemResolver)).unwrap();
        let refused = egress.address(address, 443, reach).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("`{address}` {expected}"));
    }
}

#[tokio::test]
async fn a_name_that_answers_differently_each_time_is_asked_once_for_each_connection() {
    let names = Scripted::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let egress = Egress::keeping(&config(""), Arc::<Scripted>::clone(&names), Duration::ZERO).unwrap();
    let first = egress.address("rebind.test", 80, Reach::Upstream).await.unwrap();
    assert_eq!((first.to_string().as_str(), names.asked()), ("127.0.0.1:80", 1));
    let second = egress.address("rebind.test", 80, Reach::Upstream).await.unwrap_err();
    assert!(matches!(second, Refused::Never { class: Class::Metadata, .. }), "{second}");
    assert_eq!(names.asked(), 2);
}

#[tokio::test]
async fn one_address_that_may_not_be_dialled_refuses_the_name() {
    for answers in [&["8.8.8.8", "169.254.169.254"][..], &["::ffff:169.254.169.254", "8.8.8.8"]] {
        let egress = Egress::new(&config(""), Scripted::new(&[answers])).unwrap();
        let refused = egress.address("mixed.test", 443, Reach::Upstream).await.unwrap_err();
        assert!(matches!(refused, Refused::Never { class: Class::Metadata, .. }), "{refused}");
    }
    let egress = Egress::new(&config(""), Scripted::new(&[&["2606::1", "8.8.8.8", "9.9.9.9"]])).unwrap();
    let chosen = egress.address("both.test", 443, Reach::Upstream).await.unwrap();
    assert_eq!(chosen.to_string(), "8.8.8.8:443");
    let egress = Egress::new(&config(""), Scripted::new(&[&[]])).unwrap();
    let refused = egress.address("nothing.test", 443, Reach::Upstream).await.unwrap_err();
    assert_eq!(refused.to_string(), "the name `nothing.test` cannot be resolved");
}

#[tokio::test]
async fn an_answer_is_kept_for_a_moment_and_judged_for_everybody_who_asks() {
    let names = Scripted::new(&[&["10.0.0.1"]]);
    let egress = Egress::new(&config(""), Arc::<Scripted>::clone(&names)).unwrap();
    egress.address("inside.test", 443, Reach::Upstream).await.unwrap();
    let refused = egress.address("inside.test", 443, Reach::KeySet(Scheme::Https)).await.unwrap_err();
    assert!(matches!(refused, Refused::Inside { .. }), "{refused}");
    assert_eq!(names.asked(), 1);
}

#[tokio::test]
async fn a_sink_is_on_this_host_public_or_in_a_network_that_is_listed() {
    for (more, address, scheme, expected) in [
        ("", "127.0.0.1", Scheme::Http, true),
        ("", "8.8.8.8", Scheme::Https, true),
        ("", "8.8.8.8", Scheme::Http, false),
        ("", "10.1.2.3", Scheme::Https, false),
        ("", "100.64.0.1", Scheme::Https, false),
        ("", "fd12::1", Scheme::Https, false),
        ("[egress]\nnetworks = [\"10.1.0.0/16\"]", "10.1.2.3", Scheme::Https, true),
        ("[egress]\nnetworks = [\"10.1.0.0/16\"]", "10.1.2.3", Scheme::Http, false),
        ("[egress]\nnetworks = [\"10.1.0.0/16\"]", "10.2.0.1", Scheme::Https, false),
        ("[egress]\nnetworks = []", "127.0.0.1", Scheme::Http, false),
        ("[egress]\nhosts = [\"a.example\"]", "8.8.8.8", Scheme::Https, false),
    ] {
        let egress = Egress::new(&config(more), Arc::new(SystemResolver)).unwrap();
        let found = egress.address(address, 443, Reach::Sink(scheme)).await;
        assert_eq!(found.is_ok(), expected, "{more} {address}: {found:?}");
    }
}

#[test]
fn a_bundle_that_names_what_may_not_be_dialled_does_not_load() {
    const ZONE: &str = r#"schema = 1
[zone]
id = "z"
[[providers]]
identifier = "provider://p"
kind = "oauth2_client_credentials"
token_endpoint = "https://TOKEN/t"
client_id = "c"
client_auth_method = "none"
[[resources]]
identifier = "resource://r"
upstream_url = "https://UPSTREAM"
scopes = ["a"]
credential_provider = "provider://p"
"#;
    for (more, upstream, token, expected) in [
        ("", "api.example", "id.example", &[][..]),
        ("", "169.254.169.254", "id.example", &[("egress_address", 11)]),
        ("", "[64:ff9b::a9fe:a9fe]", "id.example", &[("egress_address", 11)]),
        ("", "api.example", "169.254.169.254", &[("egress_address", 5)]),
        ("[egress]\nhosts = [\"*.example\"]", "api.example", "id.example", &[]),
        ("[egress]\nhosts = [\"api.example\"]", "api.example", "id.example", &[("egress_host", 5)]),
        ("[egress]\nhosts = [\"id.example\"]", "api.example", "id.example", &[("egress_host", 11)]),
        ("[egress]\nnetworks = []", "10.0.0.1", "id.example", &[("egress_address", 11)]),
    ] {
        let text = ZONE.replace("UPSTREAM", upstream).replace("TOKEN", token);
        let files = vec![SourceFile { path: "z.toml".into(), text }];
        let source = BundleSource { root: "bundles/z.toml".into(), files };
        let zone = compile(&source, "z", &Assigned::default()).unwrap_or_else(|report| panic!("{report}"));
        let problems = check_bundle(&zone, &config(more));
        let found: Vec<_> = problems.iter().map(|problem| (problem.code, problem.place.line)).collect();
        assert_eq!(found, expected, "{more} {upstream} {token}: {problems:#?}");
    }
}

#[test]
fn what_is_never_dialled_cannot_be_opened_by_the_words_for_it() {
    for address in ["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "255.255.255.255"] {
        assert!(never(address.parse().unwrap()), "{address}");
    }
    assert_eq!(Class::Tunnel.standing(), Standing::Odd);
}
