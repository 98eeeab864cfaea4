//! The one unsafe module: what librdkafka can do and its safe binding cannot.
//!
//! Batches of rows from the consumer queue, leader epochs, end-of-partition marks with topic and
//! offset, the text of an error row, topic ids and offsets by isolation level, and whether a failed
//! message may have reached the broker. Pointers stay in here; what leaves owns its bytes or borrows
//! them for one call of a closure.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka_sys as sys;

use crate::errors::Watch;

/// How many rows one batch call returns at most: measured best for the caches.
const BATCH_ROWS: usize = 500;

fn wait_ms(wait: Duration) -> c_int {
    c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX)
}

fn text<'a>(from: *const c_char) -> &'a str {
    if from.is_null() {
        return "";
    }
    // SAFETY: librdkafka's texts are NUL-terminated; each caller uses the text only while the object
    // that it came from lives.
    unsafe { CStr::from_ptr(from) }.to_str().unwrap_or_default()
}

/// Called by librdkafka, within a poll of the client, with `opaque` as set by `Client::new`.
unsafe extern "C" fn on_error(
    _: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: `Client::new` sets the opaque to its `Arc<Watch>`, which outlives the native client.
    let watch = unsafe { &*opaque.cast::<Watch>() };
    let code = sys::rd_kafka_resp_err_t::try_from(code);
    watch.note(
        code.map_or(RDKafkaErrorCode::Unknown, Into::into),
        text(reason),
    );
}

/// Called by librdkafka, from any of its threads.
unsafe extern "C" fn on_log(
    client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: `client` is alive during the call; its opaque is as in `on_error`, or null before
    // `Client::new` has set it.
    let watch = unsafe { sys::rd_kafka_opaque(client).cast::<Watch>().as_ref() };
    if let Some(watch) = watch {
        // Level 7 is debugging, asked for by the property `debug`.
        let level = if level < 7 {
            RDKafkaLogLevel::Info
        } else {
            RDKafkaLogLevel::Debug
        };
        watch.log(level, text(facility), text(line));
    }
}

/// Opens a client that tells its [`Watch`] of errors and logs through callbacks, since the batch
/// call serves no events.
pub(crate) fn open(config: &ClientConfig) -> KafkaResult<Client<Watch>> {
    let native = config.create_native_config()?;
    // SAFETY: `native` is a live configuration, which `Client::new` takes over.
    unsafe {
        sys::rd_kafka_conf_set_error_cb(native.ptr(), Some(on_error));
        sys::rd_kafka_conf_set_log_cb(native.ptr(), Some(on_log));
    }
    Client::new(
        config,
        native,
        sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
        Watch::default(),
    )
}

/// Runs the callbacks that wait. Needed now and then by a client that is not polled otherwise.
pub(crate) fn serve(client: &Client<Watch>) {
    // SAFETY: the client is alive.
    unsafe { sys::rd_kafka_poll(client.native_ptr(), 0) };
}

/// Sets the leader epoch that the broker is to validate on every entry whose epoch is known.
pub(crate) fn set_leader_epochs(list: &mut TopicPartitionList, epochs: &[Option<i32>]) {
    assert_eq!(list.count(), epochs.len(), "one epoch for each partition");
    for (index, epoch) in epochs.iter().enumerate() {
        if let Some(epoch) = epoch {
            // SAFETY: `elems` holds `cnt` entries, and `index` is below it as checked above.
            unsafe {
                let entry = (*list.ptr()).elems.add(index);
                sys::rd_kafka_topic_partition_set_leader_epoch(entry, *epoch);
            }
        }
    }
}

/// Says whether a message that was not acknowledged may stand in the log nevertheless.
pub(crate) fn may_be_stored(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the message is borrowed from its delivery report and alive.
    let status = unsafe { sys::rd_kafka_message_status(message.ptr()) };
    status != sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// Ends a producer as a broker does that has lost the producer's state: it takes no message any more.
#[cfg(test)]
pub(crate) fn make_fatal<C: ClientContext>(producer: &Client<C>) {
    let error = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    let why = c"the broker has lost its state";
    // SAFETY: the client is alive, and so is the text while it is copied.
    unsafe { sys::rd_kafka_test_fatal_error(producer.native_ptr(), error, why.as_ptr()) };
}

/// A record, a mark or an error as it lies in librdkafka's buffers.
pub(crate) struct Row<'a> {
    raw: &'a sys::rd_kafka_message_t,
}

impl<'a> Row<'a> {
    /// Returns the error that the row is, if it is no record.
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        let code: RDKafkaErrorCode = self.raw.err.into();
        (code != RDKafkaErrorCode::NoError).then_some(code)
    }

    /// Returns the error's text.
    pub(crate) fn error_text(&self) -> &'a str {
        // SAFETY: the row is alive for `'a`.
        text(unsafe { sys::rd_kafka_message_errstr(self.raw) })
    }

    /// Returns the topic's name; empty for an error of the client as a whole.
    pub(crate) fn topic(&self) -> &'a str {
        if self.raw.rkt.is_null() {
            return "";
        }
        // SAFETY: the row holds its topic.
        text(unsafe { sys::rd_kafka_topic_name(self.raw.rkt) })
    }

    pub(crate) fn partition(&self) -> i32 {
        self.raw.partition
    }

    /// Returns the record's offset, or the end of an end-of-partition mark.
    pub(crate) fn offset(&self) -> i64 {
        self.raw.offset
    }

    pub(crate) fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the row is alive.
        let epoch = unsafe { sys::rd_kafka_message_leader_epoch(self.raw) };
        (epoch >= 0).then_some(epoch)
    }

    pub(crate) fn timestamp(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the row is alive and `kind` is written before the call returns.
        let at = unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && at >= 0)
            .then_some(at)
    }

    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        bytes(self.raw.key, self.raw.key_len)
    }

    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        bytes(self.raw.payload, self.raw.len)
    }

    /// Returns every header in order.
    pub(crate) fn headers(&self) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        let mut all = Vec::new();
        let mut headers = ptr::null_mut();
        // SAFETY: the row is alive; the headers belong to it.
        let found = unsafe { sys::rd_kafka_message_headers(self.raw, &mut headers) };
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return all;
        }
        loop {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` is alive; an index past the last one gives an error.
            let found = unsafe {
                sys::rd_kafka_header_get_all(headers, all.len(), &mut name, &mut value, &mut size)
            };
            if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return all;
            }
            // SAFETY: a header's name is NUL-terminated and lives as long as the row.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes();
            all.push((name, bytes(value, size)));
        }
    }
}

fn bytes<'a>(from: *const c_void, size: usize) -> Option<&'a [u8]> {
    if from.is_null() {
        return None;
    }
    // SAFETY: librdkafka gives pointer and length of one buffer, alive as long as the row is.
    Some(unsafe { std::slice::from_raw_parts(from.cast(), size) })
}

/// A consumer that is drained in batches. It never joins a group.
pub(crate) struct Consumer {
    queue: *mut sys::rd_kafka_queue_t,
    client: Client<Watch>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Consumer {}

impl Consumer {
    pub(crate) fn open(config: &ClientConfig) -> KafkaResult<Self> {
        let client = open(config)?;
        // SAFETY: the client is alive; errors and logs come through the consumer's queue from here on.
        let queue = unsafe {
            sys::rd_kafka_poll_set_consumer(client.native_ptr());
            sys::rd_kafka_queue_get_consumer(client.native_ptr())
        };
        if queue.is_null() {
            return Err(KafkaError::ClientCreation("no `group.id`".to_owned()));
        }
        Ok(Self { queue, client })
    }

    pub(crate) fn client(&self) -> &Client<Watch> {
        &self.client
    }

    /// Replaces what is read. An empty list reads nothing.
    pub(crate) fn assign(&mut self, list: &TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: client and list are alive; the list is copied.
        let code: RDKafkaErrorCode =
            unsafe { sys::rd_kafka_assign(self.client.native_ptr(), list.ptr()) }.into();
        match code {
            RDKafkaErrorCode::NoError => Ok(()),
            _ => Err(KafkaError::Global(code)),
        }
    }

    /// Commits offsets for the display in lag tools; the answer is not waited for.
    pub(crate) fn commit(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: as in `assign`.
        let code: RDKafkaErrorCode =
            unsafe { sys::rd_kafka_commit(self.client.native_ptr(), list.ptr(), 1) }.into();
        match code {
            RDKafkaErrorCode::NoError => Ok(()),
            _ => Err(KafkaError::Global(code)),
        }
    }

    /// Hands the rows that have arrived to `each`, waiting at most `wait` for the first of them.
    pub(crate) fn poll(&mut self, wait: Duration, mut each: impl FnMut(&Row<'_>)) {
        // The batch call waits until its array is full: so it waits for one row, then takes the rest.
        let mut rows: [*mut sys::rd_kafka_message_t; BATCH_ROWS] = [ptr::null_mut(); BATCH_ROWS];
        for (wait, room) in [(wait_ms(wait), 1), (0, BATCH_ROWS)] {
            // SAFETY: `rows` has room for `room` pointers, and the queue is alive.
            let count = unsafe {
                sys::rd_kafka_consume_batch_queue(self.queue, wait, rows.as_mut_ptr(), room)
            };
            let count = usize::try_from(count).unwrap_or(0);
            for row in &rows[..count] {
                // SAFETY: the call has filled `count` pointers, each is ours until it is destroyed,
                // and `each` cannot keep what it borrows.
                unsafe {
                    each(&Row { raw: &**row });
                    sys::rd_kafka_message_destroy(*row);
                }
            }
            if count == 0 {
                return;
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // SAFETY: our reference to the queue, given back before the client ends.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OffsetOf {
    /// The log start.
    Start,
    /// The last stable offset.
    Stable,
    /// The high watermark.
    High,
}

/// One partition's answer.
pub(crate) struct ListedOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: Result<i64, RDKafkaErrorCode>,
    /// Of the leader that answered.
    pub(crate) epoch: Option<i32>,
}

/// One topic's answer.
pub(crate) struct DescribedTopic {
    pub(crate) topic: String,
    pub(crate) described: Result<(String, i32), RDKafkaErrorCode>,
}

struct Event(*mut sys::rd_kafka_event_t);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: we own the event; null is allowed.
        unsafe { sys::rd_kafka_event_destroy(self.0) };
    }
}

/// Sends one admin request with its own queue and options and waits for its answer.
fn ask(
    client: &Client<Watch>,
    kind: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    submit: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
) -> KafkaResult<Event> {
    let rk = client.native_ptr();
    // SAFETY: the client is alive; options and queue are destroyed after the last use, and the
    // request holds its own reference to the queue.
    let event = unsafe {
        let queue = sys::rd_kafka_queue_new(rk);
        let options = sys::rd_kafka_AdminOptions_new(rk, kind);
        let ms = wait_ms(timeout);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, ms, ptr::null_mut(), 0);
        submit(options, queue);
        let event = Event(sys::rd_kafka_queue_poll(queue, ms.saturating_add(500)));
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        event
    };
    serve(client);
    if event.0.is_null() {
        return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
    }
    // SAFETY: the event is alive.
    match unsafe { sys::rd_kafka_event_error(event.0) }.into() {
        RDKafkaErrorCode::NoError => Ok(event),
        code => Err(KafkaError::AdminOp(code)),
    }
}

/// Asks the leaders of partitions for offsets, in one round.
pub(crate) fn list_offsets(
    client: &Client<Watch>,
    partitions: impl Iterator<Item = (String, i32)>,
    which: OffsetOf,
    timeout: Duration,
) -> KafkaResult<Vec<ListedOffset>> {
    use sys::rd_kafka_IsolationLevel_t as Isolation;
    let (spec, isolation) = match which {
        OffsetOf::Start => (-2, Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED),
        OffsetOf::Stable => (-1, Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED),
        OffsetOf::High => (-1, Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED),
    };
    let list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        let topic = CString::new(topic).expect("a topic's name has no NUL");
        // SAFETY: the list is alive and copies the name; the entry is valid until the next one is added.
        unsafe {
            let entry =
                sys::rd_kafka_topic_partition_list_add(list.ptr(), topic.as_ptr(), partition);
            (*entry).offset = spec;
        }
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
    let event = ask(client, kind, timeout, |options, queue| {
        // SAFETY: all are alive; the list is copied. The setter fails only for another operation.
        unsafe {
            sys::rd_kafka_AdminOptions_set_isolation_level(options, isolation);
            sys::rd_kafka_ListOffsets(client.native_ptr(), list.ptr(), options, queue);
        }
    })?;
    // SAFETY: the result and its array belong to the event, which lives to the end of this function.
    let infos = unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_ListOffsets_result(event.0);
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
        if count == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(infos, count)
        }
    };
    let listed = infos.iter().map(|info| {
        // SAFETY: as above.
        let entry = unsafe { &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info) };
        let code: RDKafkaErrorCode = entry.err.into();
        // SAFETY: as above.
        let epoch = unsafe { sys::rd_kafka_topic_partition_get_leader_epoch(entry) };
        ListedOffset {
            topic: text(entry.topic).to_owned(),
            partition: entry.partition,
            offset: if code == RDKafkaErrorCode::NoError {
                Ok(entry.offset)
            } else {
                Err(code)
            },
            epoch: (epoch >= 0).then_some(epoch),
        }
    });
    Ok(listed.collect())
}

/// Asks for the ids and the number of partitions of topics, in one round.
pub(crate) fn describe_topics(
    client: &Client<Watch>,
    topics: &[&str],
    timeout: Duration,
) -> KafkaResult<Vec<DescribedTopic>> {
    let names: Vec<CString> = topics
        .iter()
        .map(|topic| CString::new(*topic).expect("a topic's name has no NUL"))
        .collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let event = ask(client, kind, timeout, |options, queue| {
        // SAFETY: the collection copies the names and is destroyed after its one use.
        unsafe {
            let collection =
                sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(client.native_ptr(), collection, options, queue);
            sys::rd_kafka_TopicCollection_destroy(collection);
        }
    })?;
    // SAFETY: the result and its array belong to the event, which lives to the end of this function.
    let found = unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        let found = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(found, count)
        }
    };
    // SAFETY: as above, for all that is read of one description.
    let described = found.iter().map(|topic| unsafe {
        let code = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(*topic)).into();
        let described = if code == RDKafkaErrorCode::NoError {
            let mut partitions = 0;
            sys::rd_kafka_TopicDescription_partitions(*topic, &mut partitions);
            let id = sys::rd_kafka_TopicDescription_topic_id(*topic);
            let id = text(sys::rd_kafka_Uuid_base64str(id)).to_owned();
            Ok((id, i32::try_from(partitions).unwrap_or(i32::MAX)))
        } else {
            Err(code)
        };
        DescribedTopic {
            topic: text(sys::rd_kafka_TopicDescription_name(*topic)).to_owned(),
            described,
        }
    });
    Ok(described.collect())
}
