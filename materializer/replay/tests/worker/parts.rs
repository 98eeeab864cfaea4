//! Commits in parts whose last part did not come, and what the log has lost since.

use std::time::Duration;

use materializer_model::memory::{MemoryRecord, TopicSettings};
use materializer_model::progress::Health;
use materializer_model::{Offset, Partition};

use crate::bench::{Bench, rows};

#[test]
fn parts_of_a_commit_whose_records_the_log_lost_damage_the_unit_before_anything_is_written() {
    /// When the log is cut back.
    enum Cut {
        Never,
        /// Before the unit is opened again; the log is left so, or written to until it is longer.
        Before {
            grows: bool,
        },
        /// While the unit reads on, before it is past the end of the commit.
        While {
            grows: bool,
        },
    }
    let check = |cut: Cut| {
        let is_whole = matches!(cut, Cut::Never);
        let mut bench = Bench::new(TopicSettings::kept(1));
        bench.part_keys = 2;
        bench.produce(0, "a", Some("1"));
        let mut first = bench.worker(1);
        bench.run(&mut first, 3);
        for key in ["b", "c", "d"] {
            bench.produce(0, key, Some("1"));
        }
        // `b` and `c` are written, and then it is gone.
        while bench.stored().0.len() == 1 {
            bench.clock.advance(Duration::from_millis(5));
            first.step(&bench.directive);
        }
        drop(first);
        assert_eq!(bench.stored().1, 1);
        let (log, topic) = (bench.log.clone(), bench.topic.clone());
        let cut_back = |grows: bool| {
            log.truncate(&topic, Partition(0), Offset(2));
            for _ in 0..if grows { 4 } else { 0 } {
                log.produce(&topic, Partition(0), MemoryRecord::text("a", Some("2")));
            }
        };
        if let Cut::Before { grows } = cut {
            cut_back(grows);
        }
        let mut next = bench.worker(2);
        if let Cut::While { grows } = cut {
            // It opens, and has the end of the commit proved.
            next.step(&bench.directive);
            next.step(&bench.directive);
            cut_back(grows);
        }
        bench.run(&mut next, 12);
        let whole = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
        let health = next.progress().health;
        if is_whole {
            assert_eq!(health, Health::Ok);
            assert_eq!(bench.stored(), (rows(&whole), 4));
            assert_eq!(bench.store.unfinished(&bench.unit), None);
        } else {
            let told =
                matches!(&health, Health::Damaged { why } if why.contains("parts of a commit"));
            assert!(told, "{health:?}");
            assert_eq!(bench.stored(), (rows(&whole[..3]), 1));
        }
    };
    check(Cut::Never);
    for grows in [false, true] {
        check(Cut::Before { grows });
        check(Cut::While { grows });
    }
}
