//! Holds the sink in memory to what every sink promises.

use materializer_model::Unit;
use materializer_model::memory::MemoryStore;
use materializer_model::ports::{Sink, SinkAdmin, SinkReader};
use materializer_sinks::conformance::{Abilities, Harm, Place, Restore};

#[derive(Default)]
struct MemoryPlace(MemoryStore);

impl Place for MemoryPlace {
    fn abilities(&self) -> Abilities {
        Abilities {
            takes_from_the_living: true,
            shards: true,
            expiry: false,
            aliases: true,
        }
    }

    fn sink(&self, unit: &Unit) -> Box<dyn Sink> {
        Box::new(self.0.sink(unit))
    }

    fn reader(&self, unit: &Unit) -> Box<dyn SinkReader> {
        Box::new(self.0.reader(unit))
    }

    fn admin(&self) -> Box<dyn SinkAdmin> {
        Box::new(self.0.admin())
    }

    fn save(&self) -> Restore<'_> {
        let image = self.0.image();
        Box::new(move || self.0.restore(image))
    }

    fn harm(&self, _unit: &Unit, harm: Harm) -> bool {
        match harm {
            Harm::Empty => {
                self.0.clear();
                true
            }
            // Rows and checkpoint are one value here.
            Harm::LoseCheckpoint | Harm::SpoilCheckpoint => false,
        }
    }
}

materializer_sinks::conformance_suite!(MemoryPlace::default());
