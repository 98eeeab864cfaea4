//! What a scene waits for, and how long that takes.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Stage;
use crate::installation::{LIMIT, wait_until};
use crate::process::now;

impl Stage {
    /// Waits until a version stands where `wait --for` says.
    pub fn await_version(&self, version: &str, goal: &str) {
        self.installation
            .done(&["wait", version, "--for", goal, "--timeout", "2m"]);
    }

    /// Asks again until the alias of `products` is at a version: whether a request that was hurt counted is
    /// the program's to say.
    pub fn insist(&self, verb: &[&str], number: u64) {
        wait_until(&format!("{verb:?} moves the alias"), || {
            let there = self.installation.view("products")["alias"]["version"] == number;
            there || {
                self.installation.verb(verb);
                false
            }
        });
    }

    /// Waits until readers of `products` are answered by a version everywhere.
    pub fn await_alias(&self, number: u64) {
        wait_until(&format!("readers see v{number}"), || {
            let alias = &self.installation.view("products")["alias"];
            alias["version"] == number && alias["confirmed"] == true
        });
    }

    /// Returns a version of `products` as `status` shows it; null where there is none.
    #[must_use]
    pub fn version(&self, number: u64) -> Value {
        version_of(&self.installation.view("products"), number)
    }

    /// Returns the health of a version of `products`, in the word of `status`.
    #[must_use]
    pub fn health(&self, number: u64) -> String {
        let version = self.version(number);
        version["health"]["is"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until a version of `products` is of a health, and returns the version as `status` shows it.
    #[must_use]
    pub fn await_health(&self, number: u64, health: &str) -> Value {
        let mut version = Value::Null;
        wait_until(&format!("v{number} is {health}"), || {
            version = self.version(number);
            version["health"]["is"] == health
        });
        version
    }

    /// Returns the checkpoint of a version of `products` as Redis holds it; `None` while there is none.
    #[must_use]
    pub fn checkpoint(&self, number: u64) -> Option<String> {
        let key = format!(
            "{}::products:v{number}:s0:checkpoint",
            self.installation.name
        );
        self.redis.try_ask(&["GET", &key]).ok()?
    }

    /// Returns how many records a version of `products` had read at the checkpoint that Redis holds; 0 while
    /// there is none.
    #[must_use]
    pub fn position(&self, number: u64) -> u64 {
        let stored = self.checkpoint(number).unwrap_or_default();
        let stored: Value = serde_json::from_str(&stored).unwrap_or_default();
        let partitions = stored["topics"][&self.installation.topic]["p"].as_object();
        let offsets = partitions.into_iter().flatten();
        offsets.filter_map(|(_, at)| at[0].as_u64()).sum()
    }

    /// Waits until a version of `products` has committed more than so many records.
    pub fn await_passed(&self, number: u64, records: u64) {
        wait_until(&format!("v{number} is past {records} records"), || {
            self.position(number) > records
        });
    }

    /// Waits until the process `run` has logged some words.
    pub fn await_logged(&self, words: &str) {
        wait_until(&format!("it is logged: {words}"), || {
            self.installation.run.logged().contains(words)
        });
    }

    /// Waits until a version of `products` has committed something else than `before`, and measures it
    /// from an instant.
    ///
    /// # Panics
    /// Where it does not.
    pub fn await_commit(&mut self, what: &str, number: u64, before: Option<&str>, since: Instant) {
        // At the pace of a measurement, not of a verb.
        loop {
            let now = self.checkpoint(number);
            if now.is_some() && now.as_deref() != before {
                break;
            }
            assert!(since.elapsed() < LIMIT, "{what}: no commit");
            thread::sleep(Duration::from_millis(5));
        }
        self.measure(what, since);
    }

    /// Notes how long something took.
    pub fn measure(&mut self, what: &str, since: Instant) -> Duration {
        let took = now() - since;
        self.measured.push((what.to_owned(), took));
        took
    }
}

/// Returns a version of a view as `status` shows it; null where there is none.
#[must_use]
pub fn version_of(view: &Value, number: u64) -> Value {
    let versions = view["versions"].as_array().into_iter().flatten();
    let suffix = format!("@v{number}");
    let is_it = |it: &&Value| {
        it["version"]
            .as_str()
            .is_some_and(|it| it.ends_with(&suffix))
    };
    let found = versions.into_iter().find(is_it);
    found.cloned().unwrap_or_default()
}
