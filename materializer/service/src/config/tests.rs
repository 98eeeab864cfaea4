use super::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn good(text: &str, variables: &[(&str, &str)]) -> Config {
    Config::from_text(FILE, text, &environment(variables)).expect("no fault")
}

fn faults(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match Config::from_text(FILE, text, &environment(variables)) {
        Ok(_) => Vec::new(),
        Err(Faults(faults)) => faults.iter().map(Fault::to_string).collect(),
    }
}

#[test]
fn one_setting_is_enough() {
    let config = good("kafka: {brokers: 'localhost:9092'}", &[("USER", "ada")]);
    assert_eq!(config.installation.as_str(), "main");
    assert_eq!(config.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.redis.to_string(), "127.0.0.1:6380");
    assert_eq!(config.who, "ada");
    assert!(!config.dev && config.connections.is_empty());
}

#[test]
fn the_environment_lies_over_the_file() {
    let file = "
installation: shop
kafka: {brokers: a:1, properties: {sasl.username: file}}
connections: {cache-eu: redis://h:1}
";
    let config = good(
        file,
        &[
            ("MATERIALIZER__KAFKA__BROKERS", "b:2"),
            ("MATERIALIZER__KAFKA__PROPERTIES__SASL_USERNAME", "env"),
            ("MATERIALIZER__CONNECTIONS__CACHE_EU__PASSWORD", "0123"),
            ("MATERIALIZER__DEV", "true"),
        ],
    );
    assert_eq!(config.installation.as_str(), "shop");
    assert_eq!(config.kafka.brokers, "b:2");
    assert_eq!(config.kafka.properties["sasl.username"].expose(), "env");
    let cache = &config.connections["cache-eu"];
    assert_eq!(cache.url, "redis://h:1");
    assert_eq!(cache.password.as_ref().map(Secret::expose), Some("0123"));
    assert!(config.dev);
}

#[test]
fn a_secret_is_printed_nowhere() {
    let file = std::env::temp_dir().join(format!("materializer-secret-{}", std::process::id()));
    std::fs::write(&file, "from-file\n").expect("a temporary file");
    let text = format!(
        "
kafka: {{brokers: a:1, properties: {{sasl.password_file: {}}}}}
connections: {{cache: 'redis://ada:in-url@h:1/2', other: {{url: 'redis://h:2', password: 0123}}}}
",
        file.display()
    );
    let config = good(&text, &[]);
    std::fs::remove_file(&file).expect("the temporary file");
    assert_eq!(
        config.kafka.properties["sasl.password"].expose(),
        "from-file"
    );
    let cache = &config.connections["cache"];
    assert_eq!(
        (cache.url.as_str(), cache.username.as_deref()),
        ("redis://h:1/2", Some("ada"))
    );
    let other = config.connections["other"].password.as_ref();
    assert_eq!(other.map(Secret::expose), Some("0123"));
    let shown = format!("{config:?}");
    for secret in ["from-file", "in-url", "0123"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn all_faults_are_told_together_by_key() {
    let file = "\
installation: Main
kafka:
  broker: a:1
http: here
connections:
  cache: http://h:1
  Bad: redis://h:1
  twice: {url: 'redis://h:1', password: a, password_file: b}
worker: {slots: many, reclaim_after: 10}
gateway: {memory: 16MiB}
log: {format: xml}
colour: blue
";
    assert_eq!(
        faults(file, &[("MATERIALIZER__DEV", "maybe")]),
        [
            "materializer.yaml:1: `installation`: `Main` is not a name: use lower-case letters, digits and `-`, at most 63, beginning with a letter or digit",
            "materializer.yaml: `kafka.brokers`: missing: say where Kafka is, as in `localhost:9092`",
            "materializer.yaml:3: `kafka.broker`: not a setting, did you mean `kafka.brokers`?",
            "materializer.yaml:7: `connections.Bad`: not a name: lower-case letters, digits and `-`",
            "materializer.yaml:6: `connections.cache.url`: not a Redis URL: write `redis://host:6379`, or `rediss://` for TLS",
            "materializer.yaml:8: `connections.twice.password_file`: `connections.twice.password` is set as well: one of the two",
            "materializer.yaml:4: `http`: `here` is not an address with a port, as in `127.0.0.1:8080`",
            "MATERIALIZER__DEV: `dev`: `maybe` is not `true` or `false`",
            "materializer.yaml:9: `worker.slots`: `many` is not a number of units",
            "materializer.yaml:9: `worker.reclaim_after`: `10` is not a duration: write `500ms`, `30s`, `2m`, `24h` or `7d`",
            "materializer.yaml:10: `gateway.memory`: less than `gateway.reply_size`: no such reply could be sent",
            "materializer.yaml:11: `log.format`: `xml` is not `text` or `json`",
            "materializer.yaml:12: `colour`: not a setting, there are `access`, `advertise`, `connections`, `data_dir`, `definitions`, `dev`, `drain`, `gateway`, `http`, `installation`, `kafka`, `log`, `redis`, `who`, `worker`",
        ]
    );
}

#[test]
fn a_port_that_others_reach_demands_something_or_is_declared_open() {
    let broker = "kafka: {brokers: a:1}\n";
    let check = |text: &str, expected: &[&str]| {
        let faults = faults(&format!("{broker}{text}"), &[]);
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{fault}");
            assert!(fault.contains("set `access.token_file`"), "{fault}");
        }
    };
    for local in [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "'[::1]:1'",
        "'[::ffff:127.0.0.1]:1'",
    ] {
        check(&format!("http: {local}\nredis: {local}"), &[]);
    }
    let http = "materializer.yaml:2: `http`: other machines reach `0.0.0.0:1`";
    check("http: 0.0.0.0:1", &[http]);
    check(
        "redis: '[::]:2'",
        &["materializer.yaml:2: `redis`: other machines reach `[::]:2`"],
    );
    check(
        "http: 0.0.0.0:1\nredis: 10.0.0.1:2",
        &[http, "materializer.yaml:3: `redis`"],
    );
    for guard in ["{token: 0123456789abcdef}", "{open: true}"] {
        check(
            &format!("http: 0.0.0.0:1\nredis: 0.0.0.0:2\naccess: {guard}"),
            &[],
        );
    }
    check("http: 0.0.0.0:1\naccess: {token: ''}", &[http]);
    check("http: 0.0.0.0:1\naccess: {open: false}", &[http]);
    let variable = [("MATERIALIZER__HTTP", "0.0.0.0:1")];
    let told = faults(broker, &variable);
    assert!(
        told[0].starts_with("MATERIALIZER__HTTP: `http`: "),
        "{told:?}"
    );
}

#[test]
fn faults_of_access_are_told_by_key() {
    let file = "\
kafka: {brokers: a:1}
advertise: worker-0
access:
  token: short
  tls_cert: /no/such/cert
  tls_ca: /no/such/ca
";
    assert_eq!(
        faults(file, &[]),
        [
            "materializer.yaml:2: `advertise`: `worker-0` is not a host with a port, as in `worker-0.example:8080`",
            "materializer.yaml:4: `access.token`: a token has 16 to 512 characters: make one with `openssl rand -hex 32`",
            "materializer.yaml:5: `access.tls_cert`: cannot read `/no/such/cert`: No such file or directory (os error 2)",
            "materializer.yaml:6: `access.tls_ca`: cannot read `/no/such/ca`: No such file or directory (os error 2)",
        ]
    );
    let both = "kafka: {brokers: a:1}\naccess: {token: a, token_file: b}";
    let told = faults(both, &[]);
    assert_eq!(
        told,
        ["materializer.yaml:2: `access.token_file`: `access.token` is set as well: one of the two"]
    );
}

#[test]
fn others_are_told_the_scheme_under_which_a_process_is_reached() {
    let files = crate::access::tests::Files::new();
    let tls = format!(
        "{{tls_cert: {}, tls_key: {}}}",
        files.path("cert.pem").display(),
        files.path("key.pem").display()
    );
    let check = |advertise: &str, access: &str, expected: &str| {
        let text = format!("kafka: {{brokers: a:1}}\nadvertise: '{advertise}'\naccess: {access}");
        assert_eq!(good(&text, &[]).address(), expected);
    };
    check("", "{}", "127.0.0.1:8080");
    check("w-0.workers:8080", "{}", "w-0.workers:8080");
    check("", &tls, "https://127.0.0.1:8080");
    check("w-0.workers:8080", &tls, "https://w-0.workers:8080");
    check("[fd00::1]:8080", &tls, "https://[fd00::1]:8080");
    // A proxy before it may speak what it does not.
    check("https://w-0.workers:443", "{}", "https://w-0.workers:443");
    check("http://w-0.workers:80", &tls, "http://w-0.workers:80");
}

#[test]
fn broken_yaml_names_the_line() {
    assert_eq!(
        faults("kafka:\n  brokers: [a\n", &[])
            .first()
            .map(|fault| fault.starts_with("materializer.yaml:")),
        Some(true)
    );
    assert_eq!(
        faults("dev: true\ndev: false\nkafka: {brokers: a:1}", &[]).len(),
        1
    );
}

/// Returns the files in the `ConfigMap`s of a rendered chart, by their names.
fn files_of_chart(rendered: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut name = None;
    for line in rendered.lines() {
        let begins = line
            .strip_prefix("  ")
            .and_then(|it| it.strip_suffix(": |"));
        if begins.is_some_and(|it| !it.starts_with(' ')) {
            name = begins.map(str::to_owned);
        } else if let Some((name, text)) = name.as_ref().zip(line.strip_prefix("    ")) {
            let file: &mut String = files.entry(name.clone()).or_default();
            file.push_str(text);
            file.push('\n');
        } else {
            name = None;
        }
    }
    files
}

#[test]
fn what_the_chart_writes_is_read() {
    let open = files_of_chart(include_str!("../../../../helm/golden/open.yaml"));
    assert_eq!(
        faults(&open["materializer.yaml"], &[]),
        Vec::<String>::new()
    );
    let full = files_of_chart(include_str!("../../../../helm/golden/full.yaml"));
    let told = faults(&full["materializer.yaml"], &[]);
    let is_missing = |fault: &String| fault.contains("/run/secrets/materializer/");
    assert!(!told.is_empty() && told.iter().all(is_missing), "{told:?}");
    let views = full.iter().filter(|(name, _)| *name != "materializer.yaml");
    let declared = views.map(|(file, text)| {
        let read = materializer_view::declared(file, text).expect("no fault");
        (read[0].0.view.to_string(), read[0].1)
    });
    let expected = [
        ("old", true),
        ("product-search", false),
        ("products", false),
    ];
    let expected = expected.map(|(view, retire)| (view.to_owned(), retire));
    assert_eq!(declared.collect::<Vec<_>>(), expected);
}
