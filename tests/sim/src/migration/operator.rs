//! A person who asks for anything at any time, by a plan that may be old when it arrives.

use std::collections::BTreeSet;
use std::time::Duration;

use materializer_migrations::{CatalogClient, ClientError, Verb};
use materializer_model::definition::Promotion;
use materializer_model::{Offset, Origin, Partition, Topic};

use super::views::{apply, version, view};
use crate::chaos::Life;

pub(super) struct Operator {
    life: Life,
    client: CatalogClient,
    /// How many units a version has.
    shards: u16,
}

impl Operator {
    pub(super) fn new(life: &Life, client: CatalogClient, shards: u16) -> Self {
        Self {
            life: life.clone(),
            client,
            shards,
        }
    }

    /// Looks, and asks for something.
    pub(super) fn step(&mut self) -> Result<(), ClientError> {
        self.client.refresh()?;
        let verb = self.choose();
        self.ask(verb)
    }

    /// Asks for a verb by its plan, where there is one that does something.
    pub(super) fn ask(&mut self, verb: Verb) -> Result<(), ClientError> {
        let plan = self.client.plan(&verb)?;
        if plan.is_nothing() {
            return Ok(());
        }
        let words = format!("{} asks: {plan}", self.life.name);
        self.life.shared.note(words);
        self.client.ask(verb, plan, "a history")?;
        Ok(())
    }

    fn choose(&self) -> Verb {
        let shared = &self.life.shared;
        let catalog = self.client.state().catalog();
        let view_now = catalog.view(&view());
        let newest = view_now.map_or(0, |view| view.next_number().0 - 1);
        let back = u32::try_from(shared.below(3)).expect("small");
        let some = version(newest.saturating_sub(back).max(1));
        let candidate = view_now.and_then(|view| view.candidate());
        let soak = Duration::from_secs(20 + 20 * shared.below(2));
        let promotion = if shared.chance(300) {
            Promotion::Auto
        } else {
            Promotion::Manual
        };
        let (replace, rebuild) = (shared.chance(300), shared.chance(100));
        match shared.below(100) {
            0..18 => apply(
                shared.below(5),
                self.shards,
                soak,
                promotion,
                replace,
                rebuild,
            ),
            18..55 => Verb::Promote {
                version: candidate.map_or(some, |candidate| candidate.id.clone()),
                waive: self.waived(),
            },
            55..78 => Verb::Rollback {
                view: view(),
                waive: self.waived(),
            },
            78..81 => Verb::Pause { version: some },
            81..89 => Verb::Resume { version: some },
            89..91 => {
                let at = Origin {
                    topic: Topic::new("t"),
                    partition: Partition(i32::try_from(shared.below(3)).expect("small")),
                    offset: Offset(shared.below(300)),
                };
                self.client.skip(some, at)
            }
            91..95 => Verb::Retire {
                view: view(),
                version: Some(some.number),
            },
            95..96 => Verb::Retire {
                view: view(),
                version: None,
            },
            _ => Verb::Abort { version: some },
        }
    }

    fn waived(&self) -> BTreeSet<String> {
        let gate = match self.life.shared.below(8) {
            0 => "stable_for",
            1 => "lag_records",
            2 => "fresh_as_live",
            _ => return BTreeSet::new(),
        };
        BTreeSet::from([gate.to_owned()])
    }
}
