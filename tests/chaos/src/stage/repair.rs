//! What an operator sees where a version's data is gone, and the way out: `status` offers commands, and
//! they are typed as they stand there.

use std::time::Duration;

use redis::{Client, Connection, RedisResult};
use serde_json::Value;

use super::{Stage, version_of};
use crate::installation::wait_until;

/// How many documents of a view are asked for.
const ASKED: u32 = 40;

impl Stage {
    /// Returns a version as the process itself shows it: `status` without the start of a program.
    #[must_use]
    pub fn shown(&self, view: &str, number: u64) -> Value {
        let url = format!(
            "http://127.0.0.1:{}/v1/views/{view}",
            self.installation.run.http
        );
        let answer = ureq::get(&url).call().ok();
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string().ok());
        let shown = text.and_then(|text| serde_json::from_str(&text).ok());
        version_of(&shown.unwrap_or_default(), number)
    }

    /// Waits until a version is shown to be of a health, for a reason that contains some words, and returns it.
    pub fn await_shown(&self, view: &str, number: u64, health: &str, words: &str) -> Value {
        let mut shown = Value::Null;
        wait_until(&format!("{view}@v{number} is {health}: {words}"), || {
            shown = self.shown(view, number);
            let why = shown["health"]["why"].as_str().unwrap_or_default();
            shown["health"]["is"] == health && why.contains(words)
        });
        shown
    }

    /// Returns the role of a version, in the word of `status`.
    #[must_use]
    pub fn role(&self, view: &str, number: u64) -> String {
        let shown = self.shown(view, number);
        shown["role"].as_str().unwrap_or_default().to_owned()
    }

    /// Does a verb that must be refused, and returns what was said.
    ///
    /// # Panics
    /// Where it is carried out.
    #[must_use]
    pub fn refused(&self, verb: &[&str]) -> String {
        let (code, said) = self.installation.answer(verb);
        assert!(matches!(code, Some(1 | 3)), "{verb:?}: {code:?}: {said}");
        said
    }

    /// Fails where readers are told that documents are not there while their version's data is gone.
    ///
    /// # Panics
    /// Where they are.
    pub fn assert_nothing_is_shown_as_empty(&self, view: &str) {
        let run = &self.installation.run;
        for key in 0..ASKED {
            let url = format!(
                "http://127.0.0.1:{}/v1/views/{view}/documents/{key}",
                run.http
            );
            let answer = ureq::get(&url).call();
            let refused = matches!(answer, Err(ureq::Error::StatusCode(500..)));
            assert!(refused, "{view}/{key}: {answer:?}");
        }
    }

    /// Connects to the gateway by the Redis protocol.
    ///
    /// # Errors
    /// Where it does not listen.
    ///
    /// # Panics
    /// Where its port is none.
    pub fn connected(&self) -> RedisResult<Connection> {
        let url = format!("redis://127.0.0.1:{}", self.installation.run.redis);
        let client = Client::open(url).expect("a URL");
        client.get_connection_with_timeout(Duration::from_secs(5))
    }

    /// Types what `status` offers for a live version that is damaged, builds the next one from `file`,
    /// sends readers there, and lets the damaged one go. Returns the number of the version that is live.
    ///
    /// # Panics
    /// Where something that is offered does not do what it says, or what must be refused is not.
    pub fn rebuild_as_told(&mut self, view: &str, damaged: u64, file: &str) -> u64 {
        let shown = self.await_shown(view, damaged, "damaged", "");
        let offered = offered(&shown, file);
        let [rollback, apply] = offered.as_slice() else {
            panic!("two ways out are offered: {shown}");
        };
        assert_eq!(rollback, &["rollback", view]);
        let _no_standby = self.refused(&words(rollback));
        assert_eq!(apply, &["apply", file, "--rebuild"]);
        let next = self.build_next(view, damaged, apply);
        self.let_go_as_told(view, damaged);
        next
    }

    /// Types what `status` offers for a standby that is damaged, to which nobody can roll back.
    ///
    /// # Panics
    /// Where it does not go, leaves rows, or is rolled back to.
    pub fn let_go_as_told(&self, view: &str, damaged: u64) {
        let shown = self.await_shown(view, damaged, "damaged", "");
        assert_eq!(shown["role"], "standby", "{shown}");
        let said = self.refused(&["rollback", view]);
        assert!(said.contains("damaged"), "{said}");
        let version = format!("{view}@v{damaged}");
        let offered = offered(&shown, "");
        let [retire] = offered.as_slice() else {
            panic!("one way out is offered: {shown}");
        };
        assert_eq!(retire, &["retire", &version]);
        self.installation.done(&words(retire));
        self.await_version(&version, "retired");
        let left = format!("{}:{view}:v{damaged}:*", self.installation.name);
        assert_eq!(self.redis.count(&left), 0, "rows of a retired version");
    }

    /// Types what `status` offers for a candidate that is damaged: another one is built from `file` in its
    /// place. Returns its number.
    ///
    /// # Panics
    /// Where the damaged one is promoted, or the other one is not.
    pub fn replace_as_told(&self, view: &str, damaged: u64, file: &str) -> u64 {
        let shown = self.await_shown(view, damaged, "damaged", "");
        assert_eq!(shown["role"], "building", "{shown}");
        let said = self.refused(&["promote", &format!("{view}@v{damaged}")]);
        assert!(said.contains("damaged"), "{said}");
        let offered = offered(&shown, file);
        let [apply] = offered.as_slice() else {
            panic!("one way out is offered: {shown}");
        };
        assert_eq!(apply, &["apply", file, "--replace", "--rebuild"]);
        self.build_next(view, damaged, apply)
    }

    /// Types an `apply`, and makes the version live that it begins. Returns its number.
    fn build_next(&self, view: &str, damaged: u64, apply: &[String]) -> u64 {
        self.installation.done(&words(apply));
        let next = damaged + 1;
        let version = format!("{view}@v{next}");
        self.await_version(&version, "ready");
        self.installation.done(&["promote", &version]);
        self.await_version(&version, "live");
        next
    }
}

/// Asks the gateway for some products.
///
/// # Errors
/// As the gateway says.
pub fn products(connection: &mut Connection) -> RedisResult<Vec<Option<String>>> {
    let names: Vec<String> = (0..ASKED).map(|key| format!("product:{key}")).collect();
    redis::cmd("MGET").arg(names).query(connection)
}

/// Returns the commands of ours that the hint of a version names, with a file in the place of `FILE`.
fn offered(shown: &Value, file: &str) -> Vec<Vec<String>> {
    let hint = shown["health"]["hint"].as_str().unwrap_or_default();
    let quoted = hint.split('`').skip(1).step_by(2);
    let ours = quoted.filter_map(|text| text.strip_prefix("materializer "));
    let typed = |command: &str| {
        let words = command.split(' ');
        words.map(|word| word.replace("FILE", file)).collect()
    };
    ours.map(typed).collect()
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}
