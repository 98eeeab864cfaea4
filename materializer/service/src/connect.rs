//! How the parts reach Kafka and the sinks: settings in, clients out.

use std::sync::Arc;

use anyhow::Context as _;
use materializer_kafka::{Cluster, KafkaControlLog, KafkaSettings, Observer};
use materializer_model::ports::ControlLog;
use materializer_model::{CatalogId, Clock};
use materializer_sinks::redis::{Password, RedisPlace, RedisSettings, Tls};

use crate::config::{Config, Connection};

/// Returns the place of this installation in a Redis connection.
///
/// # Errors
/// Where the connection is not configured, or its certificate authority cannot be read.
pub(crate) fn redis_place(
    config: &Config,
    connection: &str,
    catalog: &CatalogId,
) -> anyhow::Result<RedisPlace> {
    let Some(settings) = config.connections.get(connection) else {
        let known: Vec<String> = config
            .connections
            .keys()
            .map(|name| format!("`{name}`"))
            .collect();
        anyhow::bail!(
            "connection `{connection}` is not in the settings{}",
            if known.is_empty() {
                ", there is none under `connections`".to_owned()
            } else {
                format!(", there are {}", known.join(", "))
            }
        );
    };
    Ok(RedisPlace {
        server: redis_server(connection, settings)?,
        installation: config.installation.clone(),
        catalog: catalog.clone(),
        sink: None,
    })
}

fn redis_server(name: &str, connection: &Connection) -> anyhow::Result<RedisSettings> {
    let insecure = if connection.tls_insecure {
        "#insecure"
    } else {
        ""
    };
    let mut server = RedisSettings::parse(&format!("{}{insecure}", connection.url))
        .with_context(|| format!("connection `{name}`"))?;
    if let Some(password) = &connection.password {
        let password = Password::new(password.expose());
        server = server.with_login(connection.username.as_deref(), &password);
    }
    if let Some(file) = &connection.password_file {
        server = server.with_password_file(file.clone());
    }
    if let Some(path) = &connection.tls_ca {
        let authorities = std::fs::read(path)
            .with_context(|| format!("connection `{name}`: read `{}`", path.display()))?;
        server = server.with_tls(Tls {
            authorities: Some(authorities),
            client: None,
        });
    }
    Ok(server)
}

/// Returns how the brokers are reached.
///
/// # Errors
/// Where a property may not be set.
pub(crate) fn kafka(config: &Config) -> anyhow::Result<KafkaSettings> {
    let properties = config.kafka.properties.iter();
    let properties = properties.map(|(name, value)| (name.clone(), value.expose().to_owned()));
    let cluster = if config.kafka.mock {
        Cluster::Mock
    } else if config.dev {
        Cluster::Dev
    } else {
        Cluster::Production
    };
    KafkaSettings::new(&config.kafka.brokers, properties.collect(), cluster)
        .context("`kafka.properties`")
}

/// Opens the control topics; connects with the first call.
///
/// # Errors
/// Where librdkafka does not take a property.
pub(crate) fn control_log(config: &Config) -> anyhow::Result<Box<dyn ControlLog>> {
    let log = KafkaControlLog::open(&kafka(config)?, &config.installation)?;
    Ok(Box::new(log))
}

/// Starts the process's one observer.
///
/// # Errors
/// Where librdkafka does not take a property.
pub(crate) fn observer(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<Observer>> {
    Ok(Arc::new(Observer::start(&kafka(config)?, clock)?))
}
