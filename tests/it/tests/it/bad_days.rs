//! Bad days as an operator has them, on the real program: each ends in a state or an error that names the
//! thing, the place and the next command; nothing is lost, and serving goes on.

use it::services::Services;
use rdkafka::producer::{BaseRecord, Producer as _};
use serde_json::Value;

use crate::kafka_scene::{LIMIT, Scene};
use chaos::installation::{Installation, wait_until};

/// A topic of its own and an installation that reads it.
struct Day {
    services: Services,
    scene: Scene,
    installation: Installation,
}

impl Day {
    fn begin(name: &str, records: &[(&str, Option<&str>)]) -> Self {
        let services = Services::find();
        let scene = Scene::new(name, 1, &[("cleanup.policy", "compact")]);
        let day = Self {
            installation: services.installation(name),
            services,
            scene,
        };
        day.write(records);
        day
    }

    fn write(&self, records: &[(&str, Option<&str>)]) {
        let producer = self.scene.producer(false);
        for (key, value) in records {
            self.scene.send(&producer, key, *value);
        }
        producer.flush(LIMIT).expect("acknowledged");
    }

    fn start(&mut self) {
        self.installation.run.start_ready();
    }

    /// Writes a definition whose rows are at `<installation>-<prefix>:<key>` for readers.
    fn define(&self, view: &str, prefix: &str) -> String {
        let (topic, name) = (&self.scene.topic, &self.installation.name);
        let text = format!(
            "view: {view}\nfrom: {{topics: ['{topic}']}}\nkey: record.key\n\
             document: {{title: event.title}}\n\
             to: {{redis: {{connection: cache, key: '{name}-{prefix}:{{key}}'}}}}\n\
             gates: {{stable_for: 1s}}\n"
        );
        self.installation.define(&format!("{view}.yaml"), &text)
    }

    fn get(&self, key: &str) -> Option<String> {
        let url = format!("redis://127.0.0.1:{}", self.installation.run.redis);
        let mut gateway = redis::Client::open(url).expect("an address");
        redis::cmd("GET")
            .arg(key)
            .query(&mut gateway)
            .expect("a reply")
    }

    /// Waits until the only version of a view is as it should be, and returns it.
    fn wait(&self, view: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut version = Value::Null;
        wait_until(what, || {
            version = self.installation.view(view)["versions"][0].take();
            is_so(&version)
        });
        version
    }
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_record_that_cannot_be_taken_in_is_named_and_passed_over_by_a_verb() {
    let mut day = Day::begin(
        "poison",
        &[
            ("never-there", None),
            ("a", Some(r#"{"title":"shoe"}"#)),
            ("b", Some(r#"{"title":"#)),
            ("c", Some(r#"{"title":"boot"}"#)),
        ],
    );
    let file = day.define("products", "p");
    day.start();
    day.installation.done(&["apply", &file]);
    let failed = day.wait("products", "the broken record is told", |version| {
        version["health"]["is"] == "failed"
    });
    let at = format!("{}/0/2", day.scene.topic);
    let hint = failed["health"]["hint"].as_str().expect("a hint");
    assert!(
        hint.contains(&format!("materializer skip products@v1 --at {at}")),
        "{hint}"
    );

    let reason = ["--reason", "a producer of before the schema"];
    let nowhere = format!("{}/0/4", day.scene.topic);
    let (code, said) = (day.installation)
        .answer(&[&["skip", "products@v1", "--at", &nowhere][..], &reason].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no record"), "{said}");
    day.installation
        .done(&[&["skip", "products@v1", "--at", &at][..], &reason].concat());
    day.installation
        .done(&["wait", "products@v1", "--for", "live"]);
    let name = &day.installation.name;
    assert_eq!(
        day.get(&format!("{name}-p:c")).as_deref(),
        Some(r#"{"title":"boot"}"#)
    );
    assert_eq!(day.get(&format!("{name}-p:b")), None);
    day.installation.done(&["verify", "products@v1", "--full"]);
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn no_catalog_is_begun_where_redis_knows_of_another() {
    let mut day = Day::begin("mark", &[]);
    let name = day.installation.name.clone();
    let mut redis = redis::Client::open(day.services.get("REDIS_URL")).expect("an address");
    let mark = r#"{"catalog":"the-one-before","sink":"s"}"#;
    let key = format!("{name}::mark");
    redis::cmd("SET")
        .arg(&key)
        .arg(mark)
        .exec(&mut redis)
        .expect("set");
    day.installation.run.start();
    assert_eq!(day.installation.run.wait_for_end().code(), Some(1));
    let said = day.installation.run.logged();
    for word in ["the-one-before", "`cache`", "choose another `installation`"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (code, said) = day.installation.answer(&["status"]);
    assert_eq!(
        (code, said.contains("there is no catalog")),
        (Some(1), true),
        "{said}"
    );

    redis::cmd("DEL")
        .arg(&key)
        .exec(&mut redis)
        .expect("deleted");
    day.start();
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn two_views_may_not_write_one_place_and_a_topic_that_is_missing_is_waited_for() {
    let mut day = Day::begin("places", &[("a", Some(r#"{"title":"shoe"}"#))]);
    let (first, second) = (day.define("products", "p"), day.define("others", "p"));
    day.scene.delete();
    day.start();
    day.installation.done(&["apply", &first]);
    let failed = day.wait("products", "the topic is told to be missing", |version| {
        version["health"]["is"] == "failed"
    });
    let why = failed["health"]["why"].as_str().expect("a reason");
    assert!(
        why.contains(day.scene.topic.as_str()) && why.contains("no such topic"),
        "{why}"
    );

    let (code, said) = day.installation.answer(&["apply", &second]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("view `products`") && said.contains("to.redis.key"),
        "{said}"
    );

    day.scene.create(1, &[]);
    day.write(&[("a", Some(r#"{"title":"boot"}"#))]);
    // `wait` gives up a version that failed, so the topic has to be found first.
    day.wait("products", "the topic is found", |version| {
        version["health"]["is"] == "ok"
    });
    day.installation
        .done(&["wait", "products@v1", "--for", "live"]);
    let name = &day.installation.name;
    assert_eq!(
        day.get(&format!("{name}-p:a")).as_deref(),
        Some(r#"{"title":"boot"}"#)
    );
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_newer_programs_event_ends_deciding_and_not_serving() {
    let mut day = Day::begin("newer", &[("a", Some(r#"{"title":"shoe"}"#))]);
    let file = day.define("products", "p");
    day.start();
    day.installation.done(&["apply", &file]);
    day.installation
        .done(&["wait", "products@v1", "--for", "live"]);

    let name = day.installation.name.clone();
    let newer = r#"{"schema":99,"id":"from-the-future","views":{},"not_before":null,
        "not_after":9223372036854775807,"who":"them","why":"","answers":null,"body":{"moved":{}}}"#;
    let producer = day.scene.producer(false);
    let catalog = format!("{name}.materializer.catalog");
    let record = BaseRecord::<(), str>::to(&catalog).payload(newer);
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("queued");
    producer.flush(LIMIT).expect("acknowledged");
    wait_until("the newer event is told", || {
        day.installation
            .answer(&["status"])
            .1
            .contains("a newer program's")
    });
    let (code, said) = day
        .installation
        .answer(&["pause", "products@v1", "--reason", "x"]);
    assert_eq!(
        (code, said.contains("use the release that wrote it")),
        (Some(1), true),
        "{said}"
    );

    day.write(&[("a", Some(r#"{"title":"boot"}"#))]);
    wait_until("the version is fed on and read", || {
        day.get(&format!("{name}-p:a")).as_deref() == Some(r#"{"title":"boot"}"#)
    });
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn told_to_end_in_the_middle_it_ends_in_order_and_goes_on_later() {
    let row = r#"{"title":"shoe"}"#;
    let keys: Vec<String> = (0..20_000).map(|n| format!("key-{n}")).collect();
    let records: Vec<_> = keys.iter().map(|key| (key.as_str(), Some(row))).collect();
    let mut day = Day::begin("ended", &records);
    let file = day.define("products", "p");
    day.start();
    day.installation.done(&["apply", &file]);
    let ended = day.installation.run.end();
    assert_eq!(ended.code(), Some(0), "after SIGTERM");
    day.start();
    day.installation
        .done(&["wait", "products@v1", "--for", "live"]);
    day.installation.done(&["verify", "products@v1", "--full"]);
}
