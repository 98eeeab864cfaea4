//! A folder of definitions, as Git fills it, on the real program: a change is a migration, going back is a
//! rollback, and nothing is retired that does not say so.

use chaos::installation::{Installation, wait_until};
use it::services::Services;
use serde_json::Value;

use crate::kafka_scene::{LIMIT, Scene};
use rdkafka::producer::Producer as _;

struct Repository {
    installation: Installation,
    topic: String,
}

impl Repository {
    /// Commits a definition that writes `title` as `value`, with further lines.
    fn commit(&self, value: &str, further: &str) {
        let (topic, name) = (&self.topic, &self.installation.name);
        let text = format!(
            "view: products\nfrom: {{topics: ['{topic}']}}\ndocument: {{title: {value}}}\n\
             to: {{redis: {{connection: cache, key: '{name}:{{key}}'}}}}\n\
             gates: {{stable_for: 1s}}\npromotion: auto\n{further}"
        );
        self.installation.define("declared/products.yaml", &text);
    }

    fn live(&self) -> Value {
        self.installation.view("products")["alias"]["version"].clone()
    }

    fn await_live(&self, version: u32) {
        wait_until(&format!("v{version} is live"), || self.live() == version);
    }

    fn faults(&self) -> String {
        self.installation.status()["faults"].to_string()
    }
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_folder_that_changes_migrates_a_view_and_goes_back_as_it_does() {
    let services = Services::find();
    let scene = Scene::new("declared", 1, &[("cleanup.policy", "compact")]);
    let producer = scene.producer(false);
    for key in ["a", "b"] {
        scene.send(&producer, key, Some(r#"{"title":"shoe","brand":"acme"}"#));
    }
    producer.flush(LIMIT).expect("acknowledged");
    let installation = Installation::new(
        services.get("KAFKA_BROKERS"),
        services.get("REDIS_URL"),
        "declared",
        "definitions: declared\n",
    );
    std::fs::create_dir(installation.folder().join("declared")).expect("a folder");
    let mut repository = Repository {
        installation,
        topic: scene.topic.to_string(),
    };
    repository.commit("event.title", "");
    repository.installation.run.start_ready();
    repository.await_live(1);

    repository.commit("event.brand", "");
    repository.await_live(2);

    // A person goes back: what is declared was carried out, and is not carried out again.
    let why = ["--reason", "wrong brands"];
    let installation = &repository.installation;
    installation.done(&[&["rollback", "products"][..], &why].concat());
    installation.done(&["promote", "products@v2", "--reason", "they were right"]);

    // Git goes back: the standby is live again, and nothing is built.
    repository.commit("event.title", "");
    repository.await_live(1);
    let versions = repository.installation.view("products")["versions"].clone();
    assert_eq!(versions.as_array().map(Vec::len), Some(2), "{versions}");

    // A restart finds everything settled.
    repository.installation.run.kill();
    repository.installation.run.start_ready();

    // A file that is at fault, and a view that is gone from the folder, change nothing.
    let good = repository.installation.folder().join("declared");
    std::fs::rename(good.join("products.yaml"), good.join("products.old")).expect("renamed");
    wait_until("the drift is told", || {
        repository.faults().contains("declared no more")
    });
    repository.commit("event.title", "soak: never\n");
    wait_until("the fault is told", || {
        repository.faults().contains("products.yaml:")
    });
    assert_eq!(repository.live(), 1);

    repository.commit("event.title", "retire: true\n");
    wait_until("nothing is left", || {
        let versions = repository.installation.view("products")["versions"].clone();
        versions.as_array().is_some_and(Vec::is_empty)
    });
    let (_, history) = repository.installation.answer(&["history", "products"]);
    for told in ["definitions", "products.yaml", "retired as a whole"] {
        assert!(history.contains(told), "{told}: {history}");
    }
}
