//! The tantivy sink on a real disk: the suite that all sinks share, and what only an index does.

mod damage;
mod disk;
mod kill;
mod names;
mod order;
mod place;
mod readers;
mod refusals;
mod search;
mod shop;
mod suite;
