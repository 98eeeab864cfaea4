//! The two ports: what each demands of whoever connects, and whether other processes find this one.

use std::net::SocketAddr;

use super::Finding;
use crate::config::Config;
use crate::config::access::is_local;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = [("http", config.http), ("redis", config.redis)]
        .into_iter()
        .map(|(port, address)| demanded(config, port, address))
        .collect();
    if config.advertise.is_none() && config.http.ip().is_unspecified() {
        findings.push(Finding::warning(
            "ports",
            format!("other processes are told to reach this one at `{}`, which leads each to itself", config.http),
            "set `advertise` to the host and port under which they reach it, or run one process alone",
        ));
    }
    findings
}

/// Says what a port demands.
fn demanded(config: &Config, port: &str, address: SocketAddr) -> Finding {
    let access = &config.access;
    let token = if access.demands_token() {
        "a token is demanded"
    } else {
        "no token is demanded"
    };
    let tls = if access.speaks_tls() {
        "under TLS"
    } else {
        "in the clear"
    };
    let what = format!("`{port}` `{address}`: {token}, {tls}");
    if is_local(address) {
        return Finding::ok("ports", what);
    }
    match (access.demands_token(), access.speaks_tls()) {
        (true, true) => Finding::ok("ports", what),
        (true, false) => Finding::warning(
            "ports",
            what,
            "the token can be read on its way: set `access.tls_cert` and `access.tls_key`, unless a proxy or mesh does it",
        ),
        (false, _) => Finding::warning(
            "ports",
            what,
            "whoever reaches it may read: set `access.token_file`, unless that is meant",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Level;
    use super::*;

    #[test]
    fn each_port_says_what_it_demands() {
        let check = |text: &str, expected: &[(Level, &str)]| {
            let text = format!("kafka: {{brokers: a:1}}\n{text}");
            let config = Config::from_text("f", &text, &BTreeMap::new()).unwrap();
            let found = examine(&config);
            assert_eq!(found.len(), expected.len(), "{found:#?}");
            for (finding, (level, what)) in found.iter().zip(expected) {
                assert_eq!(finding.level, *level, "{finding}");
                assert!(finding.what.contains(what), "{finding}");
            }
        };
        let local = "`127.0.0.1:6380`: no token is demanded, in the clear";
        check(
            "",
            &[
                (Level::Ok, "`http` `127.0.0.1:8080`: no token"),
                (Level::Ok, local),
            ],
        );
        check(
            "http: 10.0.0.1:1\naccess: {open: true}",
            &[(Level::Warning, "no token is demanded"), (Level::Ok, local)],
        );
        check(
            "http: 0.0.0.0:1\naccess: {token: 0123456789abcdef}",
            &[
                (
                    Level::Warning,
                    "`http` `0.0.0.0:1`: a token is demanded, in the clear",
                ),
                (Level::Ok, "`redis` `127.0.0.1:6380`: a token is demanded"),
                (Level::Warning, "reach this one at `0.0.0.0:1`"),
            ],
        );
    }
}
