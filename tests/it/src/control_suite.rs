//! One suite of promises that every control log keeps: real, mock and in memory alike.

use materializer_model::ports::{ControlError, ControlLog, ControlRecord, ControlTopic};
use materializer_model::{Offset, Timestamp};

/// Holds a control log to its port. `make` returns a client of one and the same empty log each time.
///
/// # Panics
/// Where a promise is broken.
pub fn control_log_suite<L: ControlLog>(make: impl Fn() -> L) {
    let mut log = make();
    let identity = log.create().expect("make the topics");
    assert_eq!(
        log.create(),
        Ok(identity.clone()),
        "making them twice changes nothing"
    );
    assert_eq!(
        make().identity(),
        Ok(Some(identity)),
        "another client sees the same log"
    );

    for topic in ControlTopic::ALL {
        an_append_is_read_back_at_its_offset(&mut log, &mut make(), topic);
    }
    a_read_goes_to_the_end_that_stood_when_it_began(&mut log, &mut make());
    an_end_before_what_was_read_is_a_lost_log(&mut log);
}

fn read(
    log: &mut impl ControlLog,
    topic: ControlTopic,
    from: Offset,
) -> (Offset, Vec<ControlRecord>) {
    let mut records = Vec::new();
    let end = log.read(topic, from, &mut records).expect("read");
    (end, records)
}

fn an_append_is_read_back_at_its_offset(
    writer: &mut impl ControlLog,
    reader: &mut impl ControlLog,
    topic: ControlTopic,
) {
    assert_eq!(
        read(reader, topic, Offset(0)),
        (Offset(0), vec![]),
        "{topic:?} begins empty"
    );
    let first = writer
        .append(topic, Some("a/v1/c0/s0"), Some(b"one"))
        .expect("append");
    let second = writer
        .append(topic, Some("a/v1/c0/s0"), None)
        .expect("append a tombstone");
    assert_eq!((first, second), (Offset(0), Offset(1)), "{topic:?}");
    let (end, records) = read(reader, topic, Offset(0));
    assert_eq!(end, Offset(2));
    let seen: Vec<_> = records
        .iter()
        .map(|it| (it.offset, it.key.as_deref(), it.value.as_deref()))
        .collect();
    let key = Some("a/v1/c0/s0");
    assert_eq!(
        seen,
        [(first, key, Some(&b"one"[..])), (second, key, None)],
        "{topic:?}"
    );
    assert!(
        records.iter().all(|it| it.appended > Timestamp(0)),
        "{topic:?} has append times"
    );
    assert_eq!(
        read(reader, topic, end),
        (end, vec![]),
        "nothing is read twice"
    );
}

fn a_read_goes_to_the_end_that_stood_when_it_began(
    writer: &mut impl ControlLog,
    reader: &mut impl ControlLog,
) {
    let topic = ControlTopic::Catalog;
    let (mut from, _) = read(reader, topic, Offset(0));
    for round in 0..20_u8 {
        let offset = writer.append(topic, None, Some(&[round])).expect("append");
        let (end, records) = read(reader, topic, from);
        assert_eq!(records.len(), 1, "round {round}");
        assert_eq!(
            (records[0].offset, records[0].key.as_deref()),
            (offset, None)
        );
        assert_eq!(end, offset.next());
        from = end;
    }
}

fn an_end_before_what_was_read_is_a_lost_log(log: &mut impl ControlLog) {
    let (end, _) = read(log, ControlTopic::Claims, Offset(0));
    let error = log
        .read(ControlTopic::Claims, end.next(), &mut Vec::new())
        .expect_err("a log that ends before what was seen");
    assert!(matches!(error, ControlError::Lost(_)), "{error:?}");
}
