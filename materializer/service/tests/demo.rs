//! The demo as a stranger runs it: the executable, nothing else.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn the_demo_proves_a_whole_migration_and_leaves_nothing_behind() {
    let folder = std::env::temp_dir().join(format!("demo-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_materializer"))
        .args([
            "demo", "--events", "20000", "--seed", "7", "--output", "json",
        ])
        .env("TMPDIR", &folder)
        .stdin(Stdio::null())
        .output()
        .expect("the executable runs");
    let told = String::from_utf8_lossy(&output.stderr);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{told}\n{shown}",
        output.status
    );

    let proof: Value = serde_json::from_str(shown.trim()).expect("one line of JSON");
    let count = |name: &str| {
        proof[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no `{name}`: {proof}"))
    };
    let zeros = [
        "lost",
        "resurrected",
        "differing",
        "stale_reads",
        "mixed_reads",
        "failed_reads",
    ];
    for name in zeros {
        assert_eq!(count(name), 0, "{name}: {proof}");
    }
    assert!(
        count("events") > 20_000,
        "the shop goes on while versions are built: {proof}"
    );
    assert!(count("reads") > 1_000, "{proof}");
    assert_eq!(count("keys"), 1_000);
    for name in ["p50", "p99", "max"] {
        assert!(
            proof["swap_ms"][name].as_f64().is_some_and(|ms| ms > 0.0),
            "{name}: {proof}"
        );
    }
    for name in ["rollback_ms", "rollback_staleness_ms", "resume_ms"] {
        assert!(proof[name].is_f64(), "{name}: {proof}");
    }
    let versions = &proof["versions"];
    assert_eq!(versions["product-search@v1"], "retired");
    assert_eq!(versions["product-search@v2"], "live");

    let left: Vec<_> = std::fs::read_dir(&folder).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir(&folder).expect("an empty folder");
}
