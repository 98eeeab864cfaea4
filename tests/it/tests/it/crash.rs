//! kill -9 of the real program at random moments of replay, promotion, rollback and retirement, with
//! writes and reads going on: afterwards Redis and the search
//! index equal what another Kafka client makes of the log.
//!
//! `MATERIALIZER_CRASH_EVENTS` begins with a longer log (2000000 for the run by hand), and
//! `MATERIALIZER_CRASH_SEED` chooses other moments.

use it::services::Services;
use serde_json::Value;

use chaos::Moments;
use chaos::installation::{Installation, wait_until};
use chaos::oracle::{Oracle, Producer};
use chaos::readers::Readers;

const VIEWS: [&str; 2] = ["products", "product-search"];
const KEYS: u32 = 2_000;
/// Events a second while everything goes on.
const RATE: u32 = 300;

/// A number from the environment, for runs by hand.
#[allow(
    clippy::disallowed_methods,
    reason = "a switch for the one who runs the tests"
)]
fn chosen(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}: `{text}` is not a number")),
        Err(_) => usual,
    }
}

const V1: &str = "title: event.title, price: event.price, rev: event.rev";
const V2: &str = "title: event.title, price: event.price, brand: event.brand.name, \
    rev: event.rev";
const SEARCHED: &str = "title: {value: event.title, type: text, language: english}, \
    brand: {value: event.brand.name, type: string, facet: true, missing: ''}, \
    price: {value: event.price, type: f64, sort: true}";
const TO_REDIS: &str = "redis: {connection: cache, key: 'product:{key}'}";

fn definition(view: &str, topic: &str, fields: &str, to: &str) -> String {
    format!(
        "view: {view}\nfrom: {{topics: ['{topic}']}}\nonly: event.kind == 'product'\n\
         where: event.hidden != true\ndocument: {{{fields}}}\nto: {{{to}}}\n\
         gates: {{lag_seconds: 30, lag_records: 10000, stable_for: 1s}}\n"
    )
}

/// The installation under test, what is written to its log, and when it is killed.
struct Scene {
    installation: Installation,
    oracle: Oracle,
    moments: Moments,
    seed: u64,
    /// Events that stand in the log.
    events: u64,
}

impl Scene {
    /// Begins with a log and without a process.
    fn begin(services: &Services) -> Self {
        let installation = services.installation("crash");
        let (brokers, redis) = (services.get("KAFKA_BROKERS"), services.get("REDIS_URL"));
        let oracle = Oracle::new(brokers, redis, &installation);
        oracle.create(&[]);
        let seed = chosen("MATERIALIZER_CRASH_SEED", 1);
        let events = chosen("MATERIALIZER_CRASH_EVENTS", 30_000);
        let events = oracle.produce(events, KEYS, seed, 0, None).finish();
        Self {
            installation,
            oracle,
            moments: Moments::new(seed),
            seed,
            events,
        }
    }

    /// Lets writes go on until the producer is told to end.
    fn write(&mut self) -> Producer {
        self.seed += 1;
        self.oracle
            .produce(u64::MAX, KEYS, self.seed, self.events, Some(RATE))
    }

    /// Writes a definition of the topic and applies it.
    fn apply(&self, file: &str, view: &str, fields: &str, to: &str) {
        let definition = definition(view, &self.installation.topic, fields, to);
        self.installation.define(file, &definition);
        self.installation.done(&["apply", file]);
    }

    /// Kills the process at a random moment and starts it again.
    fn kill_within(&mut self, limit_ms: u64) {
        self.moments.pass(limit_ms);
        self.installation.run.kill();
        self.installation.run.start_ready();
    }

    fn live(&self) -> Option<u64> {
        self.installation.view("products")["alias"]["version"].as_u64()
    }

    /// Asks for a verb, kills the process while it is under way, and asks again until the alias is at
    /// `version`: whether the first request still counted is the program's to say.
    fn move_alias(&mut self, verb: &[&str], version: u64) {
        let mut asked = self.installation.begin(verb);
        self.kill_within(400);
        asked.wait().expect("our child");
        wait_until(&format!("{verb:?} moves the alias"), || {
            if self.live() == Some(version) {
                return true;
            }
            self.installation.verb(verb);
            false
        });
    }

    /// Waits until a version stands where `wait` says.
    fn wait(&self, version: &str, goal: &str) {
        let limit = ["--timeout", "2m"];
        let wait = [&["wait", version, "--for", goal][..], &limit].concat();
        self.installation.done(&wait);
    }

    /// Ends the writes, and waits until every version that is fed has committed every event.
    fn settle(&mut self, producer: Producer) {
        self.events += producer.finish();
        for view in VIEWS {
            wait_until("every version has read every event", || {
                let view = self.installation.view(view);
                let versions = view["versions"].as_array().into_iter().flatten();
                let mut fed = versions.filter(|version| version["role"] != "retiring");
                view != Value::Null
                    && fed.all(|version| version["records"]["done"].as_u64() == Some(self.events))
            });
        }
    }
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_process_killed_at_any_moment_loses_doubles_and_resurrects_nothing() {
    let services = Services::find();
    let mut scene = Scene::begin(&services);
    let producer = scene.write();
    scene.installation.run.start_ready();

    scene.apply("v1.yaml", "products", V1, TO_REDIS);
    scene.apply("search.yaml", "product-search", SEARCHED, "tantivy: {}");
    for _ in 0..3 {
        scene.kill_within(1_500);
    }
    for view in VIEWS {
        wait_until("every gateway serves the first version", || {
            scene.installation.view(view)["alias"]["confirmed"] == true
        });
    }
    let readers = Readers::start(&scene.installation.run, KEYS);

    scene.apply("v2.yaml", "products", V2, TO_REDIS);
    for _ in 0..3 {
        scene.kill_within(1_500);
    }
    scene.wait("products@v2", "ready");
    scene.move_alias(&["promote", "products@v2", "--reason", "adds brand"], 2);
    scene.move_alias(&["rollback", "products", "--reason", "wrong brands"], 1);
    scene.move_alias(&["promote", "products@v2", "--reason", "not our bug"], 2);
    scene.settle(producer);
    for (version, fields) in [(1, "title,price,rev"), (2, "title,price,brand,rev")] {
        println!("{}", scene.oracle.check(version, fields, None));
    }

    let producer = scene.write();
    let retire = ["retire", "products@v1", "--reason", "done with it"];
    scene.installation.done(&retire);
    for _ in 0..3 {
        scene.kill_within(2_500);
    }
    scene.wait("products@v1", "retired");
    scene.settle(producer);
    let Scene {
        installation,
        oracle,
        ..
    } = &scene;
    let compared = oracle.check(2, "title,price,brand,rev", Some(installation.run.http));
    println!("{} kills; {compared}", installation.run.kills);
    assert_eq!(
        rows_of(&services, &installation.name, 1),
        0,
        "rows of a retired version"
    );
    assert!(installation.run.kills >= 10);
    let seen = readers.finish();
    seen.assert_good();
    assert_eq!(seen.versions.len(), 2, "both versions answered: {seen:?}");
}

/// Returns how many rows of a version Redis holds.
fn rows_of(services: &Services, installation: &str, version: u32) -> usize {
    let client = redis::Client::open(services.get("REDIS_URL")).expect("a URL");
    let mut connection = client.get_connection().expect("a connection");
    let pattern = format!("{installation}:products:v{version}:*");
    let rows: redis::Iter<'_, Vec<u8>> =
        redis::Commands::scan_match(&mut connection, pattern).expect("a scan");
    rows.count()
}
