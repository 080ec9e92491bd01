//! One search over everything an edge leaves behind: no secret, no mandate, no client secret is in it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::edge::{
    Agent, CANARY, ECHO, Edge, Plan, SECRET, ZONE, client, eventually, install_crypto, write_private,
};
use crate::tokens::{CLIENT, TokenServer, form};
use crate::upstream::Upstream;

/// `{token}` stands for what every provider of its kind has.
const PROVIDERS: [&str; 11] = [
    "kind = \"none\"\nforward_caracal_identity = true",
    "kind = \"caracal_mandate\"",
    "kind = \"api_key\"\nlocation = \"header\"\nheader_name = \"X-Api-Key\"\nsecret = \"secret://echo/api_key\"",
    "kind = \"api_key\"\nlocation = \"query\"\nquery_param_name = \"key\"\nsecret = \"secret://echo/api_key\"",
    "kind = \"bearer_token\"\nsecret = \"secret://echo/api_key\"",
    "kind = \"http_basic\"\nusername = \"edge\"\nsecret = \"secret://echo/api_key\"",
    "kind = \"bearer_token\"\nforward_caracal_identity = true\nsecret = \"secret://echo/api_key\"",
    "{token}client_secret = \"secret://echo/api_key\"",
    "{token}client_auth_method = \"client_secret_post\"\nclient_secret = \"secret://echo/api_key\"",
    "{token}client_auth_method = \"private_key_jwt\"\nprivate_key = \"secret://echo/key\"",
    "{token}client_auth_method = \"none\"\ngrant_type = \"jwt_bearer\"\nprivate_key = \"secret://echo/key\"",
];

/// Everything that was ever a credential in this run, and every text an edge gave away.
#[derive(Default)]
struct Run {
    credentials: Vec<String>,
    said: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_credential_is_in_the_ledger_the_state_the_metrics_the_log_or_an_error() {
    install_crypto();
    for (number, template) in PROVIDERS.into_iter().enumerate() {
        let server = TokenServer::start().await;
        server.rotate(CANARY);
        let token = format!(
            "kind = \"oauth2_client_credentials\"\nclient_id = \"{CLIENT}\"\ntoken_endpoint = \"{}\"\n",
            server.url()
        );
        let provider = &*template.replace("{token}", &token);
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ports = [port(), port(), port(), port()];
        let names = ["gateway", "authority", "coordinator", "ops"];
        let listeners = names
            .iter()
            .zip(ports)
            .map(|(name, port)| format!("[listeners.{name}]\naddress = \"127.0.0.1:{port}\"\n"));
        // Every third time the secrets file is sealed.
        let sealed = number % 3 == 0;
        let opened = "file = \"secrets.toml.age\"\nidentity_file = \"secrets.identity\"\n";
        let config = listeners.collect::<String>()
            + "[log]\nlevel = \"trace\"\n[secrets]\nfiles_dir = \"mounted\"\n"
            + if sealed { opened } else { "" };
        let edge = Edge {
            dir: tempfile::TempDir::new().unwrap(),
            upstream: Upstream::start().await,
            running: None,
            runtime: None,
            plan: Plan { config, provider: provider.into(), ..Plan::default() },
            http: client(),
            remote: Some(ports.map(|port| format!("127.0.0.1:{port}"))),
        };
        edge.write_files();
        // Every second time the value stands in a file of its own.
        fs::create_dir(edge.path("mounted")).unwrap();
        write_private(&edge.path("mounted/echo"), &format!("{CANARY}\n"));
        let value = if number % 2 == 0 { format!("\"{CANARY}\"") } else { "{ file = \"echo\" }".to_owned() };
        let secrets = format!(
            "schema = 1\n[secrets.echo]\nzones = [\"{ZONE}\"]\nhosts = [\"{}\", \"{}\"]\napi_key = {value}\n\
             key = \"\"\"\n{key}\"\"\"\n",
            edge.upstream.address, server.address
        );
        write_private(&edge.path("secrets.toml"), &secrets);
        if sealed {
            crate::sealed::seal(edge.dir.path());
        }
        fs::write(edge.path("caracal.toml"), edge.config_text(&edge.authority())).unwrap();
        let log = fs::File::create(edge.path("log")).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_caracal"))
            .arg("serve")
            .arg("--config")
            .arg(edge.path("caracal.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let url = format!("{}/ready", edge.ops());
        eventually("it is ready", async || edge.http.get(&url).send().await.is_ok_and(|r| r.status() == 200))
            .await;
        let mut run = traffic(&edge).await;
        assert_eq!(server.count() > 0, template.starts_with("{token}"));
        for asked in server.asked() {
            run.credentials.extend(asked.header("authorization").into_iter().map(str::to_owned));
            let signed = form(&asked.body).into_iter().filter(|(name, _)| name.contains("assertion"));
            run.credentials.extend(signed.map(|(_, value)| value).filter(|value| value.starts_with("ey")));
        }
        if sealed {
            let identity = fs::read_to_string(edge.path("secrets.identity")).unwrap();
            run.credentials.extend(identity.lines().filter(|line| !line.starts_with('#')).map(str::to_owned));
        }
        run.credentials.extend(key.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
        let pid = rustix::process::Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(process.wait().unwrap().success());
        search(&edge, run, provider);
    }
}

/// Calls that pass, are refused at each stage, or fail upstream.
async fn traffic(edge: &Edge) -> Run {
    let mut run = Run::default();
    let agent = Agent::provision(edge, &["echo:read"]).await;
    run.credentials.push(agent.bearer.clone());
    for path in [
        "/read/a?q=1",
        "/read/reset",
        "/admin",
        "/read/%2e%2e/a",
        "/read/cookie",
        "/read/{mandate}",
        "/read/a?x={mandate}",
    ] {
        let mandate = agent.mint(edge, &["echo:read"]).await;
        let path = path.replace("{mandate}", &mandate);
        for _ in 0..2 {
            let response = edge.get(&path, &mandate).send().await.unwrap();
            write!(run.said, "{:?}", response.headers()).unwrap();
            let refused = response.status().as_u16() >= 400;
            let body = response.text().await.unwrap().replace(&path, "");
            // What passes is the upstream's own echo of its request line.
            run.said += if refused { &body } else { "" };
        }
        run.credentials.push(mandate);
    }
    let prefixed = edge.http.get(format!("{}/echo/read/a", edge.gateway())).bearer_auth(&run.credentials[1]);
    run.said += &prefixed.send().await.unwrap().text().await.unwrap();
    let (_, body) = edge.try_token(&[("resource", "resource://no"), ("scope", "x")]).await.unwrap();
    run.said += &body.to_string();
    let wrong = edge
        .http
        .post(format!("{}/oauth/2/token", edge.authority()))
        .body(format!("client_secret={SECRET}&x"));
    run.said += &wrong.send().await.unwrap().text().await.unwrap();
    let foreign = edge.http.get(format!("{}/zones/zz/agents", edge.coordinator())).bearer_auth(&agent.bearer);
    run.said += &foreign.send().await.unwrap().text().await.unwrap();
    run.said += &edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap();
    // What we minted for the upstream is a credential too.
    for seen in edge.upstream.seen() {
        for name in ["authorization", "x-caracal-identity"] {
            let values =
                seen.header(name).into_iter().map(|value| value.rsplit(' ').next().unwrap().to_owned());
            run.credentials.extend(values);
        }
    }
    assert!(edge.upstream.count() > 0);
    assert_eq!(
        edge.get("/read/a", "junk").header("x-caracal-resource", ECHO).send().await.unwrap().status(),
        401
    );
    run
}

fn search(edge: &Edge, run: Run, provider: &str) {
    let mut needles = vec![CANARY.to_owned(), SECRET.to_owned()];
    needles.push(CANARY.replace('-', "%2D"));
    needles.extend(run.credentials.into_iter().filter(|text| text.len() >= 16));
    let mut haystacks = vec![("answers".to_owned(), run.said.into_bytes())];
    files(&edge.path("state"), &mut haystacks);
    haystacks.push(("log".to_owned(), fs::read(edge.path("log")).unwrap()));
    assert!(haystacks.iter().any(|(name, _)| name.ends_with(".jsonl")));
    for (name, bytes) in &haystacks {
        let text = String::from_utf8_lossy(bytes);
        for needle in &needles {
            assert!(!text.contains(needle.as_str()), "{name} holds a credential ({provider})");
        }
    }
}

fn files(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.is_file() {
            into.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}
