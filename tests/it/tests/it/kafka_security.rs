//! Logins, certificates and permissions: the good ones work, each bad one gives its own clear error.

use chaos::installation::unique;
use it::services::Services;
use materializer_kafka::{KafkaSettings, sample};
use materializer_model::Topic;
use materializer_model::ports::LogError;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

const SASL: &str = "KAFKA_SASL_BROKERS";

fn made_topic(services: &Services) -> Topic {
    let topic = Topic::new(&unique("security"));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", services.get("KAFKA_BROKERS"));
    let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin client");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let new = NewTopic::new(topic.as_str(), 1, TopicReplication::Fixed(1));
    let made = admin.create_topics([&new], &AdminOptions::new());
    runtime.block_on(made).expect("create")[0]
        .as_ref()
        .expect("created");
    topic
}

fn login(services: &Services, mechanism: &str, user: &str, password: &str) -> KafkaSettings {
    services.kafka_with(
        SASL,
        &[
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", services.get("KAFKA_CA")),
            ("sasl.mechanism", mechanism),
            ("sasl.username", user),
            ("sasl.password", password),
        ],
    )
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn plain_and_scram_logins_over_tls_read_and_bad_ones_are_told_apart() {
    let services = Services::find();
    let topic = made_topic(&services);
    let good = login(&services, "PLAIN", "admin", "admin-secret");
    assert!(
        sample(&good, &topic, 1).is_ok(),
        "{:?}",
        sample(&good, &topic, 1)
    );

    let check = |settings: &KafkaSettings, expected: &str| {
        let error = sample(settings, &topic, 1).expect_err(expected);
        assert!(
            error.to_string().contains(expected),
            "{error} should say: {expected}"
        );
        error
    };
    let refused = |settings: &KafkaSettings, expected: &str| {
        let error = check(settings, expected);
        assert!(matches!(error, LogError::Refused(_)), "{error:?}");
    };
    refused(
        &login(&services, "PLAIN", "admin", "wrong"),
        "Invalid username or password",
    );
    refused(
        &login(&services, "SCRAM-SHA-256", "scram", "wrong"),
        "invalid credentials",
    );
    // The right password: what is missing is the permission.
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        refused(
            &login(&services, mechanism, "scram", "scram-secret"),
            "permissions on the topic",
        );
    }
    let no_authority = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "admin"),
        ("sasl.password", "admin-secret"),
    ];
    refused(
        &services.kafka_with(SASL, &no_authority),
        "certificate verify failed",
    );
    let plaintext = check(&services.kafka_with(SASL, &[]), &format!("topic `{topic}`"));
    assert!(
        matches!(plaintext, LogError::Unavailable(_)),
        "{plaintext:?}"
    );
}
