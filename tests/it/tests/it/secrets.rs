//! Secrets appear nowhere: the real program is run well and badly with a secret in every place where there
//! can be one, and every byte that comes out of it is searched for all of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::Child;

use chaos::installation::{Installation, wait_until};
use it::services::Services;
use rdkafka::producer::Producer as _;
use ureq::Agent;

use crate::access::{agent, ask, tls_file};
use crate::kafka_scene::{LIMIT, Scene};

/// A process that stays, its output in a file; killed at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The test is over, well or not; a process that is gone already is no fault.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// An installation, what is secret in it, and what has come out of it.
struct Leaks {
    installation: Installation,
    agent: Agent,
    /// By where it stands.
    secrets: BTreeMap<String, String>,
    /// Settings and files of secrets: the only places where they may be.
    sources: Vec<PathBuf>,
    said: Vec<(String, String)>,
}

impl Leaks {
    fn new(services: &Services) -> Self {
        let (brokers, redis) = (
            services.get("KAFKA_SASL_BROKERS"),
            services.get("REDIS_ACL_URL"),
        );
        let mut leaks = Self {
            installation: Installation::new(brokers, redis, "secrets", ""),
            agent: agent(services),
            secrets: BTreeMap::new(),
            sources: Vec::new(),
            said: Vec::new(),
        };
        leaks.hide("the broker's password", "admin-secret");
        leaks.hide("Redis' password", "redis-secret");
        let key = fs::read_to_string(tls_file(services, "server.key")).expect("a key");
        leaks.hide(
            "the key's file",
            key.lines().nth(1).expect("a line of the key"),
        );
        leaks
    }

    fn hide(&mut self, place: &str, secret: &str) {
        self.secrets.insert(place.to_owned(), secret.to_owned());
    }

    /// Makes a secret up that stands at a place.
    fn secret(&mut self, place: &str) -> String {
        let secret = format!("s3cret{:016x}", RandomState::new().hash_one(place));
        self.hide(place, &secret);
        secret
    }

    /// Writes a file with a secret in it.
    fn file(&mut self, name: &str, text: &str) -> String {
        let path = self.installation.folder().join(name);
        fs::write(&path, text).expect("a file");
        self.sources.push(path.clone());
        path.display().to_string()
    }

    /// Does a verb with these settings over the good ones, and keeps all that it says.
    fn verb(&mut self, verb: &[&str], settings: &[(&str, &str)]) -> String {
        let mut command = self.installation.command(verb);
        let output = command.envs(settings.iter().copied()).output();
        let output = output.expect("the program starts");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let keys: Vec<_> = settings.iter().map(|(key, _)| key).collect();
        self.said
            .push((format!("{verb:?} with {keys:?}"), said.clone()));
        said
    }

    /// Starts `run` with these settings over the good ones. What it says goes to a file of the folder.
    fn run(&self, name: &str, settings: &[(&str, &str)]) -> (Running, PathBuf) {
        let path = self.installation.folder().join(name);
        let log = File::create(&path).expect("a file");
        let mut command = self.installation.command(&["run"]);
        command.envs(settings.iter().copied());
        command
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        (Running(command.spawn().expect("the program starts")), path)
    }

    /// Asks the ports as readers, some of whom have no business there.
    fn ask(&mut self, token: &str, wrong: &str) {
        let http = self.installation.run.http;
        for path in [
            "/metrics",
            "/v1/views",
            "/v1/views/products",
            "/livez",
            "/nowhere",
        ] {
            for token in [None, Some(wrong), Some(token)] {
                let (_, body) = ask(&self.agent, http, path, token);
                self.said.push((format!("the answer of {path}"), body));
            }
        }
    }

    /// Searches everything that was said and every file of the folder.
    fn search(&self) {
        for (who, said) in &self.said {
            self.check(who, said.as_bytes());
        }
        let mut folders = vec![self.installation.folder().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if !self.sources.contains(&path) {
                    self.check(
                        &path.display().to_string(),
                        &fs::read(&path).expect("a file"),
                    );
                }
            }
        }
    }

    fn check(&self, who: &str, said: &[u8]) {
        for (place, secret) in &self.secrets {
            let found = said
                .windows(secret.len())
                .position(|part| part == secret.as_bytes());
            if let Some(at) = found {
                let around = &said[at.saturating_sub(200)..said.len().min(at + secret.len())];
                panic!("{who} tells {place}: …{}", String::from_utf8_lossy(around));
            }
        }
    }
}

fn wait_for(path: &Path, text: &str) {
    wait_until(&format!("{}: `{text}`", path.display()), || {
        fs::read_to_string(path).is_ok_and(|said| said.contains(text))
    });
}

/// Writes settings with a secret in every place that a good start has.
fn settings(leaks: &mut Leaks, services: &Services, token: &str) {
    let name = leaks.installation.name.clone();
    let (http, redis) = (leaks.installation.run.http, leaks.installation.run.redis);
    let second = leaks.secret("a second token");
    let tokens = leaks.file("tokens", &format!("{token}\n{second}\n"));
    let password = leaks.file("kafka-password", "admin-secret\n");
    let of_key = leaks.secret("a property");
    let url = services.get("REDIS_ACL_URL");
    let bare = services.get("REDIS_URL");
    let file = |name| tls_file(services, name).display().to_string();
    let text = format!(
        "installation: {name}\ndev: true\ndrain: 2s\nhttp: 127.0.0.1:{http}\nredis: 127.0.0.1:{redis}\n\
         log: {{filter: trace}}\n\
         kafka:\n  brokers: '{}'\n  properties:\n    security.protocol: SASL_SSL\n    sasl.mechanism: PLAIN\n    \
         sasl.username: admin\n    sasl.password_file: {password}\n    ssl.key.password: {of_key}\n    ssl.ca.location: {}\n\
         connections:\n  cache: '{url}'\n  other: {{url: '{bare}', username: materializer, password: redis-secret}}\n\
         access: {{token_file: {tokens}, tls_cert: {}, tls_key: {}, tls_ca: {}}}\n",
        services.get("KAFKA_SASL_BROKERS"),
        services.get("KAFKA_CA"),
        file("server.crt"),
        file("server.key"),
        file("ca.crt"),
    );
    leaks.file("materializer.yaml", &text);
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn no_secret_comes_out_of_good_and_bad_runs() {
    let services = Services::find();
    let scene = Scene::new("secrets", 1, &[("cleanup.policy", "compact")]);
    let producer = scene.producer(false);
    scene.send(&producer, "k", Some(r#"{"title":"red shoe"}"#));
    producer.flush(LIMIT).expect("acknowledged");
    let mut leaks = Leaks::new(&services);
    let token = leaks.secret("the token");
    settings(&mut leaks, &services, &token);
    let view = leaks.installation.define(
        "products.yaml",
        &format!(
            "view: products\nfrom: {{topics: ['{}']}}\nkey: record.key\ndocument: {{title: event.title}}\n\
             to: {{redis: {{connection: cache, key: '{}:{{key}}'}}}}\ngates: {{stable_for: 1s}}\n",
            scene.topic, leaks.installation.name
        ),
    );
    good(&mut leaks, &token, &view);
    bad(&mut leaks, &services, &view);
    leaks.search();
}

fn good(leaks: &mut Leaks, token: &str, view: &str) {
    let (_running, _log) = leaks.run("good.log", &[]);
    let (agent, http) = (leaks.agent.clone(), leaks.installation.run.http);
    wait_until("`run` is ready", || {
        ask(&agent, http, "/readyz", None).0 == 200
    });
    leaks.verb(&["apply", view], &[]);
    let live = leaks.verb(&["wait", "products@v1", "--for", "live"], &[]);
    assert!(live.contains("serving"), "{live}");
    for verb in [
        &["status"][..],
        &["status", "--output", "json"],
        &["doctor"],
        &["history"],
    ] {
        leaks.verb(verb, &[]);
    }
    leaks.verb(&["verify", "products@v1", "--full"], &[]);
    let wrong = leaks.secret("a wrong token");
    leaks.ask(token, &wrong);
}

fn bad(leaks: &mut Leaks, services: &Services, view: &str) {
    let of_redis = services.get("REDIS_URL").trim_start_matches("redis://");
    let kafka = leaks.secret("a wrong password of the broker");
    let [in_url, in_key, refused] = ["in a URL", "in a key", "of a server that is not there"]
        .map(|place| leaks.secret(&format!("a wrong password {place}")));
    let wrong_url = format!("redis://materializer:{in_url}@{of_redis}");
    let nobody = format!("redis://materializer:{refused}@127.0.0.1:1");
    let no_url = format!("redis:/materializer:{refused}@127.0.0.1:1");
    let no_port = format!("redis://materializer:{refused}@127.0.0.1:port");
    let short = leaks.secret("a token with a space") + " b";
    let bad_key = {
        let inside = leaks.secret("a file that is no key");
        leaks.file("bad-key", &format!("-----BEGIN {inside}\n{inside}\n"))
    };
    let wrong: [&[(&str, &str)]; 9] = [
        &[
            ("MATERIALIZER__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", ""),
            ("MATERIALIZER__KAFKA__PROPERTIES__SASL_PASSWORD", &kafka),
        ],
        &[("MATERIALIZER__KAFKA__BROKERS", "127.0.0.1:1")],
        &[
            ("MATERIALIZER__CONNECTIONS__CACHE__URL", &wrong_url),
            ("MATERIALIZER__CONNECTIONS__OTHER__PASSWORD", &in_key),
        ],
        &[("MATERIALIZER__CONNECTIONS__CACHE", &nobody)],
        &[("MATERIALIZER__CONNECTIONS__CACHE", &no_url)],
        &[("MATERIALIZER__CONNECTIONS__CACHE", &no_port)],
        &[
            ("MATERIALIZER__ACCESS__TOKEN_FILE", ""),
            ("MATERIALIZER__ACCESS__TOKEN", &short),
        ],
        &[("MATERIALIZER__ACCESS__TLS_KEY", &bad_key)],
        &[("MATERIALIZER__ACCESS__TOKEN", &in_key)],
    ];
    for (at, settings) in wrong.into_iter().enumerate() {
        leaks.verb(&["status"], settings);
        // Without a broker `doctor` waits for each of its questions.
        if at > 1 {
            leaks.verb(&["doctor"], settings);
        }
    }
    leaks.verb(&["plan", view], wrong[0]);
    leaks.verb(&["verify", "products@v1"], wrong[2]);
    // Those whose fault may pass go on trying, and say so.
    let (running, log) = leaks.run("kafka.log", wrong[0]);
    wait_for(&log, "uthentication");
    drop(running);
    let (running, log) = leaks.run("redis.log", wrong[2]);
    wait_for(&log, "authentication failed");
    drop(running);
    // A file that is no YAML near a secret.
    let secret = leaks.secret("a file that is no YAML");
    leaks.file(
        "broken.yaml",
        &format!("connections: {{cache: {{url: 'redis://a:{secret}@b:1', password: \"{secret}\n"),
    );
    let said = leaks.verb(&["status", "--config", "broken.yaml"], &[]);
    assert!(said.contains("broken.yaml"), "{said}");
}
