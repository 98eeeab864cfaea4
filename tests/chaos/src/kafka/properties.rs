//! The settings of a broker.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a broker listens.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) directly: u16,
    pub(super) controller: u16,
    pub(super) login: u16,
    /// What stands behind the proxy, which is what clients are told.
    pub(super) behind: u16,
    pub(super) proxy: u16,
}

/// Returns the file of the authority that signed the brokers' certificates.
///
/// # Panics
/// Where `./dev services` has never made it.
#[must_use]
pub fn authority() -> PathBuf {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/services");
    let file = services.join("data/tls/ca.crt");
    file.canonicalize().expect("./dev services up")
}

/// Returns the properties of a broker: those of the tests' services, and what a cluster needs to notice
/// everything quickly.
pub(super) fn properties(id: usize, ports: Ports, voters: &str, folder: &Path) -> String {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/kafka.properties");
    let common = fs::read_to_string(services).expect("the services' properties");
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/services/data/tls");
    let common = common
        .replace("@DATA@/tls", &keys.display().to_string())
        .replace("@DATA@/kafka", &format!("{}/kafka-{id}", folder.display()))
        .replace("@PLAIN@", &ports.directly.to_string())
        .replace("@CONTROLLER@", &ports.controller.to_string())
        .replace("@SASL@", &ports.login.to_string());
    let Ports {
        directly,
        controller,
        login,
        behind,
        proxy,
    } = ports;
    let replicas = voters.split(',').count();
    // Of a property that is said twice the last one counts.
    format!(
        "{common}\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://127.0.0.1:{directly},CONTROLLER://127.0.0.1:{controller},\
         SASL_SSL://127.0.0.1:{login},PROXIED://127.0.0.1:{behind}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{directly},\
         SASL_SSL://localhost:{login},PROXIED://127.0.0.1:{proxy}\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,\
         SASL_SSL:SASL_SSL,PROXIED:PLAINTEXT\n\
         default.replication.factor={replicas}\n\
         offsets.topic.replication.factor={replicas}\n\
         transaction.state.log.replication.factor={replicas}\n\
         broker.session.timeout.ms=2000\n\
         broker.heartbeat.interval.ms=300\n\
         replica.lag.time.max.ms=2000\n\
         replica.fetch.wait.max.ms=100\n\
         controller.quorum.election.timeout.ms=500\n\
         controller.quorum.fetch.timeout.ms=1000\n\
         controller.quorum.request.timeout.ms=1000\n\
         unclean.leader.election.interval.ms=500\n\
         leader.imbalance.check.interval.seconds=5\n"
    )
}
