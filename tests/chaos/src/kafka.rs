//! A Kafka that belongs to one scene: one broker, or a cluster of three.

mod facts;
mod properties;
mod topics;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::installation::{LIMIT, wait_until};
use crate::process::{free_port, signal};
use crate::proxy::{Network, Proxy};
use properties::{Ports, properties};

pub use properties::authority;

/// How long one request to a broker may take.
const REQUEST: Duration = Duration::from_secs(10);
/// Any cluster id: a UUID in 22 characters of base64.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// By which way the program reaches the brokers; the scene itself and its second opinion go directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the scene does.
    Directly,
    /// Through a proxy before each broker, whose connections [`Kafka::network`] hurts.
    Proxied,
    /// By TLS and with a login, at the listener for that.
    Login,
}

/// One broker, which is also a controller.
struct Node {
    ports: Ports,
    proxy: Proxy,
    child: Option<Child>,
}

impl Node {
    fn new(behind: u16) -> Self {
        let proxy = Proxy::before(behind);
        let ports = Ports {
            directly: free_port(),
            controller: free_port(),
            login: free_port(),
            behind,
            proxy: proxy.port,
        };
        Self {
            ports,
            proxy,
            child: None,
        }
    }
}

/// Brokers with folders and ports of their own, the same in each of their lives.
pub struct Kafka {
    folder: PathBuf,
    /// `target/services`: the jars, and the archive of their classes.
    services: PathBuf,
    nodes: Vec<Node>,
    runtime: tokio::runtime::Runtime,
}

impl Kafka {
    /// Starts one broker.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        Self::cluster(folder, 1, "")
    }

    /// Starts brokers with further properties, and waits until all of them are there.
    ///
    /// # Panics
    /// Where one does not start.
    #[must_use]
    pub fn cluster(folder: &Path, brokers: usize, further: &str) -> Self {
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/services");
        let behind: Vec<u16> = (0..brokers).map(|_| free_port()).collect();
        let nodes: Vec<Node> = behind.into_iter().map(Node::new).collect();
        let voters: Vec<String> = nodes
            .iter()
            .zip(1..)
            .map(|(node, id)| format!("{id}@127.0.0.1:{}", node.ports.controller))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let mut kafka = Self {
            folder: folder.to_owned(),
            services: services.canonicalize().expect("./dev services up"),
            nodes,
            runtime: runtime.expect("a runtime"),
        };
        for at in 0..brokers {
            let ports = kafka.nodes[at].ports;
            let mut properties = properties(at + 1, ports, &voters.join(","), folder);
            properties.push_str(further);
            fs::write(kafka.file(at, "properties"), properties).expect("a file of properties");
            kafka.format(at);
        }
        for at in 0..brokers {
            kafka.launch(at);
        }
        for at in 0..brokers {
            kafka.wait_until_up(at);
        }
        kafka
    }

    fn file(&self, node: usize, kind: &str) -> PathBuf {
        self.folder.join(format!("kafka-{}.{kind}", node + 1))
    }

    fn java(&self) -> Command {
        let log4j = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/log4j2.properties");
        let mut java = Command::new("java");
        java.args(["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC"]);
        java.args(["-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
        // Where `./dev services` has archived the classes, a start takes half the time.
        let archive = self.services.join("kafka.jsa");
        if archive.exists() {
            java.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
            java.args(["-Xshare:auto", "-Xlog:disable"]);
        }
        java.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
        java.arg("-cp")
            .arg(format!("{}/libs/*", self.services.display()))
            .stdin(Stdio::null());
        java
    }

    fn format(&self, node: usize) {
        let done = self
            .java()
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"])
            .arg(self.file(node, "properties"))
            .output()
            .expect("java");
        assert!(done.status.success(), "{done:?}");
    }

    fn launch(&mut self, node: usize) {
        assert!(self.nodes[node].child.is_none(), "it runs already");
        let log = File::create(self.file(node, "log")).expect("a log");
        let copy = log.try_clone().expect("a second handle");
        let child = self
            .java()
            .arg("kafka.Kafka")
            .arg(self.file(node, "properties"))
            .stdout(log)
            .stderr(copy)
            .spawn();
        self.nodes[node].child = Some(child.expect("java"));
    }

    fn wait_until_up(&mut self, node: usize) {
        let log = self.file(node, "log");
        wait_until("the broker is up", || {
            let child = self.nodes[node].child.as_mut().expect("launched before");
            let ended = child.try_wait().expect("our child");
            assert!(ended.is_none(), "broker ended: {}", log.display());
            fs::read_to_string(&log).is_ok_and(|log| log.contains("Kafka Server started"))
        });
    }

    /// Kills a broker, as a power cut does.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].child.take().expect("started before");
        child.kill().expect("a running process");
        child.wait().expect("a killed process");
    }

    /// Starts a broker again, on what it had, and waits until it is up.
    pub fn restart(&mut self, node: usize) {
        self.launch(node);
        self.wait_until_up(node);
    }

    /// Stops a broker where it stands: SIGSTOP.
    pub fn pause(&self, node: usize) {
        signal(self.id(node), "STOP");
    }

    /// Lets a broker go on where it stood: SIGCONT.
    pub fn resume(&self, node: usize) {
        signal(self.id(node), "CONT");
    }

    fn id(&self, node: usize) -> u32 {
        let child = self.nodes[node].child.as_ref();
        child.expect("started before").id()
    }

    /// Says what the network between the program and the brokers does from now on, where the program's
    /// way is [`Way::Proxied`].
    pub fn network(&self, network: Network) {
        for node in &self.nodes {
            node.proxy.set(network);
        }
    }

    /// Returns the addresses of all brokers, as the scene reaches them.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.addresses(Way::Directly)
    }

    /// Returns the addresses of all brokers by a way.
    #[must_use]
    pub fn addresses(&self, way: Way) -> String {
        let address = |node: &Node| match way {
            Way::Directly => format!("127.0.0.1:{}", node.ports.directly),
            Way::Proxied => format!("127.0.0.1:{}", node.ports.proxy),
            Way::Login => format!("localhost:{}", node.ports.login),
        };
        let addresses: Vec<String> = self.nodes.iter().map(address).collect();
        addresses.join(",")
    }

    /// Gives a user a password, or another one, for a login by SCRAM-SHA-256.
    ///
    /// # Panics
    /// Where the broker does not take it.
    pub fn set_password(&self, user: &str, password: &str) {
        let login = format!("SCRAM-SHA-256=[iterations=4096,password={password}]");
        let done = self
            .java()
            .args(["kafka.admin.ConfigCommand", "--alter"])
            .args(["--bootstrap-server", &self.brokers()])
            .args(["--entity-type", "users", "--entity-name", user])
            .args(["--add-config", &login])
            .output()
            .expect("java");
        assert!(done.status.success(), "{done:?}");
    }

    /// Returns the settings of a client of the scene's own.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config.set("socket.timeout.ms", "10000");
        config
    }

    /// Returns a producer of the scene's own; with a transaction's name it writes transactions.
    ///
    /// # Panics
    /// Where a broker does not answer.
    #[must_use]
    pub fn producer(&self, transactional: Option<&str>) -> BaseProducer {
        let mut config = self.config();
        config.set("enable.idempotence", "true");
        // As the second opinion's client does, so that each key has one partition.
        config.set("partitioner", "murmur2_random");
        if let Some(name) = transactional {
            config.set("transactional.id", name);
        }
        let producer: BaseProducer = config.create().expect("a producer");
        if transactional.is_some() {
            producer.init_transactions(LIMIT).expect("init");
        }
        producer
    }
}

/// Writes records of a topic and waits until they are acknowledged.
///
/// # Panics
/// Where they are not.
pub fn send(producer: &BaseProducer, topic: &str, records: &[(&str, Option<&str>)]) {
    for (key, value) in records {
        let mut record = BaseRecord::<str, str>::to(topic).key(*key);
        if let Some(value) = value {
            record = record.payload(*value);
        }
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("queued");
    }
    producer.flush(LIMIT).expect("acknowledged");
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            // The scene is over, well or not; a process that is gone already is no fault.
            let _killed = child.kill();
            let _ended = child.wait();
        }
    }
}
