//! Keys of ours in Redis that somebody else deletes, overwrites, or makes something else of.

use std::thread;
use std::time::Duration;

use chaos::installation::wait_until;
use chaos::now;
use chaos::stage::repair::products;
use chaos::stage::{Setting, Stage, V2};
use redis::Connection;

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "redis-foreign-row",
        fault: "every row is overwritten by a key of another type",
        short: false,
        play: row,
    },
    Scene {
        name: "redis-foreign-token",
        fault: "the token is overwritten by another text",
        short: false,
        play: token,
    },
    Scene {
        name: "redis-foreign-checkpoint",
        fault: "the checkpoint is overwritten by a key of another type",
        short: false,
        play: checkpoint,
    },
    Scene {
        name: "redis-alias",
        fault: "the alias key is deleted, overwritten by a text, made a list, and set back",
        short: false,
        play: alias,
    },
];

/// Makes a key a list of somebody else's.
fn make_list(stage: &Stage, key: &str) {
    stage.redis.ask::<()>(&["DEL", key]);
    stage.redis.ask::<u64>(&["LPUSH", key, "foreign"]);
}

fn row(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    // Rows that are written meanwhile are good again.
    stage.stop_writing();
    stage.installation.run.presence.set(false);
    let pattern = format!("{}:products:v1:*", stage.installation.name);
    let keys: Vec<String> = stage.redis.ask(&["KEYS", &pattern]);
    assert!(keys.len() > 100, "there are rows");
    for key in &keys {
        make_list(&stage, key);
    }
    // Nothing reads rows back unasked: a comparison finds it.
    let verify = ["verify", "products@v1", "--full"];
    let (code, said) = stage.installation.answer(&verify);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("0 missing, 0 unexpected"), "{said}");
    assert!(said.contains("`apply FILE --rebuild`"), "{said}");
    stage.write();
    stage.define_version("v2.yaml", V2);
    let apply = ["apply", "v2.yaml", "--rebuild"];
    stage.installation.done(&apply);
    stage.await_version("products@v2", "ready");
    stage.installation.done(&["promote", "products@v2"]);
    stage.await_version("products@v2", "live");
    stage.installation.run.presence.set(true);
    stage.end(2, V2);
    stage
}

fn token(name: &str) -> Stage {
    let stage = Stage::begin(name, &Setting::default());
    let key = format!("{}::products:v1:s0:token", stage.installation.name);
    stage.redis.ask::<()>(&["SET", &key, "foreign"]);
    rebuild(stage, "not one of ours")
}

fn checkpoint(name: &str) -> Stage {
    let stage = Stage::begin(name, &Setting::default());
    let key = format!("{}::products:v1:s0:checkpoint", stage.installation.name);
    make_list(&stage, &key);
    rebuild(stage, "WRONGTYPE")
}

/// The version is damaged and serves what it has, until the way out that is offered is typed.
fn rebuild(mut stage: Stage, words: &str) -> Stage {
    let began = now();
    stage.await_shown("products", 1, "damaged", words);
    stage.measure("until the status says `damaged`", began);
    assert_eq!(stage.role("products", 1), "live");
    let rows = products(&mut stage.connected().expect("the gateway listens"))
        .expect("it serves what it has");
    assert!(rows.iter().flatten().count() > 0, "{rows:?}");
    stage.define_version("v2.yaml", V2);
    assert_eq!(stage.rebuild_as_told("products", 1, "v2.yaml"), 2);
    stage.end(2, V2);
    stage
}

fn alias(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    stage.apply_version("v2.yaml", V2);
    stage.await_version("products@v2", "ready");
    stage.installation.done(&["promote", "products@v2"]);
    stage.await_version("products@v2", "live");
    let key = format!("{}::products:alias", stage.installation.name);
    let right: String = stage.redis.ask(&["GET", &key]);
    assert!(right.starts_with("v2 "), "{right}");
    stage.installation.run.presence.set(false);
    let set = ["SET", key.as_str()];
    let harms: [(&str, Vec<&str>); 4] = [
        ("a deleted alias", vec!["DEL", &key]),
        (
            "an alias of another text",
            [&set[..], &["foreign"]].concat(),
        ),
        ("an alias that is a list", vec!["LPUSH", &key, "foreign"]),
        ("an alias that is set back", [&set[..], &["v1 1"]].concat()),
    ];
    let mut reader = Reader {
        stage: &stage,
        connection: None,
    };
    let mut restored = Vec::new();
    for (what, harm) in harms {
        wait_until("readers are answered", || reader.is_answered());
        if harm[0] == "LPUSH" {
            stage.redis.ask::<()>(&["DEL", &key]);
        }
        stage.redis.ask::<redis::Value>(&harm);
        let harmed = now();
        loop {
            reader.is_answered();
            let stored = stage.redis.try_ask::<Option<String>>(&["GET", &key]);
            if stored.is_ok_and(|stored| stored.as_ref() == Some(&right)) {
                break;
            }
            assert!(harmed.elapsed() < RESTORED, "{what} is not mended");
            thread::sleep(Duration::from_millis(20));
        }
        restored.push((format!("until {what} is mended"), harmed.elapsed()));
    }
    stage.measured.extend(restored);
    stage.installation.run.presence.set(true);
    stage.end(2, V2);
    stage
}

/// The most that it may take until an alias is mended: it is read back every five seconds.
const RESTORED: Duration = Duration::from_secs(15);

/// A reader that stays connected as long as the gateway lets it.
struct Reader<'a> {
    stage: &'a Stage,
    connection: Option<Connection>,
}

impl Reader<'_> {
    /// Says whether rows are shown; fails where they are of the version before, or none are there.
    fn is_answered(&mut self) -> bool {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.stage.connected().expect("the gateway listens"),
        };
        let Ok(rows) = products(&mut connection) else {
            return false; // it is told that there is no alias, or that it went back
        };
        let rows: Vec<String> = rows.into_iter().flatten().collect();
        assert!(!rows.is_empty(), "no rows are there");
        let is_newest = rows.iter().all(|row| row.contains("\"brand\""));
        assert!(is_newest, "of the version before: {rows:?}");
        self.connection = Some(connection);
        true
    }
}
