//! Making topics, asking for their settings and changing them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use materializer_model::Topic;
use materializer_model::ports::LogError;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;

use crate::client::{KafkaSettings, REQUEST};
use crate::errors::{Watch, kafka_error, log_error};
use crate::topics::Each;

/// A client for topics' settings, for the time of a few requests.
pub(crate) struct Admin {
    client: AdminClient<Watch>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread for an answer that another thread brings.
fn wait<T>(answer: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut answer = pin!(answer);
    loop {
        match answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST))
        .operation_timeout(Some(REQUEST))
}

impl Admin {
    pub(crate) fn open(settings: &KafkaSettings) -> Result<Self, LogError> {
        AdminClient::from_config_and_context(&settings.config(&[], &[]), Watch::default())
            .map(|client| Self { client })
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))
    }

    /// Makes a topic; one that is there already is left as it is.
    pub(crate) fn create(
        &self,
        topic: &Topic,
        partitions: i32,
        replication: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), LogError> {
        let what = format!("make topic `{topic}`");
        let mut new = NewTopic::new(
            topic.as_str(),
            partitions,
            TopicReplication::Fixed(replication),
        );
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let watch = self.client.inner().context();
        let made = wait(self.client.create_topics([&new], &options()))
            .map_err(|error| kafka_error(watch, &error, &what))?;
        for result in made {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(log_error(watch, code, &what)),
            }
        }
        Ok(())
    }

    /// Gives a topic these settings, and the broker's own for all others.
    pub(crate) fn set(&self, topic: &Topic, settings: &[(&str, &str)]) -> Result<(), LogError> {
        let what = format!("change the settings of topic `{topic}`");
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic.as_str()));
        for (name, value) in settings {
            change = change.set(name, value);
        }
        let watch = self.client.inner().context();
        let changed = wait(self.client.alter_configs([&change], &options()))
            .map_err(|error| kafka_error(watch, &error, &what))?;
        for result in changed {
            result.map_err(|(_, code)| log_error(watch, code, &what))?;
        }
        Ok(())
    }

    /// Returns the settings of topics by name.
    pub(crate) fn settings(
        &self,
        topics: &[Topic],
    ) -> Result<Each<BTreeMap<String, String>>, LogError> {
        let watch = self.client.inner().context();
        let resources: Vec<_> = topics
            .iter()
            .map(|topic| ResourceSpecifier::Topic(topic.as_str()))
            .collect();
        let described = wait(self.client.describe_configs(&resources, &options()))
            .map_err(|error| kafka_error(watch, &error, "ask for topics' settings"))?;
        let each = topics.iter().zip(described).map(|(topic, resource)| {
            let what = format!("ask for the settings of topic `{topic}`");
            let resource = resource.map_err(|code| log_error(watch, code, &what))?;
            let entries = resource.entries.into_iter();
            Ok(entries
                .filter_map(|entry| entry.value.map(|value| (entry.name, value)))
                .collect())
        });
        Ok(each.collect())
    }
}
