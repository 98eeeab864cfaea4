//! What is true: the shop's events folded by themselves, in memory, with when each was acknowledged.
//!
//! It shares no code with the worker. Every document that a reader is shown is held against it: does it
//! look as the product did at that revision, and how long ago was a later revision in the log?

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use materializer_model::{Monotonic, VersionNumber};
use serde::Deserialize;

use super::shop::{Event, Look, Standing, look};

/// A document as readers get it, of either mapping.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) title: String,
    pub(super) price: u64,
    pub(super) revision: u64,
    /// Only in v1's mapping.
    pub(super) shelf: Option<String>,
    /// Only in v2's.
    pub(super) brand: Option<String>,
}

impl Document {
    /// Returns the version whose mapping it has, `None` if it has fields of both or lacks one.
    pub(super) fn mapping(&self) -> Option<VersionNumber> {
        match (&self.shelf, &self.brand) {
            (Some(_), None) => Some(VersionNumber(1)),
            (None, Some(_)) => Some(VersionNumber(2)),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    fn is(&self, look: &Look) -> bool {
        self.title == look.title
            && self.price == look.price
            && self.shelf.as_ref().is_none_or(|shelf| *shelf == look.shelf)
            && self.brand.as_ref().is_none_or(|brand| *brand == look.brand)
    }
}

/// One event of a product.
#[derive(Clone, Copy, Debug)]
struct Past {
    standing: Standing,
    /// When it was known to be in the log; `None` while it is on its way.
    stored: Option<Monotonic>,
}

/// How an answer stands to the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The product was like this, and the log had held nothing newer for longer than `behind`.
    Was {
        /// How long a later event had been in the log when the reader asked; zero if there was none.
        behind: Duration,
    },
    /// The product never was like this.
    NeverWas,
}

/// How one key of a finished view differs from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Not at all.
    None,
    /// The document is missing.
    Lost,
    /// There is a document of a product that is hidden or gone.
    Resurrected,
    /// The document is not the product's last.
    Differs,
}

/// The truth.
pub(super) struct Oracle {
    seed: u64,
    products: RwLock<Vec<Vec<Past>>>,
}

impl Oracle {
    /// Begins with products of which nothing is known yet.
    pub(super) fn new(seed: u64, products: usize) -> Self {
        Self {
            seed,
            products: RwLock::new(vec![Vec::new(); products]),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Vec<Past>>> {
        self.products.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Vec<Past>>> {
        self.products
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in events that are about to be written: from now on readers may see them.
    pub(super) fn sending(&self, events: &[Event]) {
        let mut products = self.write();
        for event in events {
            let past = &mut products[event.product];
            past.push(Past {
                standing: event.standing,
                stored: None,
            });
            debug_assert_eq!(index(event.revision), Some(past.len() - 1));
        }
    }

    /// Takes in that events are in the log: from now on a reader that does not see them is behind.
    pub(super) fn stored(&self, events: &[Event], now: Monotonic) {
        let mut products = self.write();
        for event in events {
            let past = index(event.revision).and_then(|at| products[event.product].get_mut(at));
            past.expect("it was sent before").stored = Some(now);
        }
    }

    /// Returns how many products there are, and how many of them everybody sees.
    pub(super) fn count(&self) -> (u64, u64) {
        let products = self.read();
        let listed = products
            .iter()
            .filter(|past| last(past) == Standing::Listed)
            .count();
        let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
        (number(products.len()), number(listed))
    }

    /// Returns a product that everybody sees, if there is one.
    pub(super) fn listed(&self) -> Option<usize> {
        let is_listed = |past: &Vec<Past>| last(past) == Standing::Listed;
        self.read().iter().position(is_listed)
    }

    /// Judges what a reader that asked at `asked` was shown of a product.
    pub(super) fn judge(
        &self,
        product: usize,
        found: Option<&Document>,
        asked: Monotonic,
    ) -> Judgement {
        let products = self.read();
        let Some(past) = products.get(product) else {
            return Judgement::NeverWas;
        };
        // How many events the answer has taken in. Nothing found: as many as can be.
        let taken_in = match found {
            None => {
                let unseen = past
                    .iter()
                    .rposition(|event| event.standing != Standing::Listed);
                unseen.map_or(0, |at| at + 1)
            }
            Some(document) => {
                let Some(at) = index(document.revision) else {
                    return Judgement::NeverWas;
                };
                let listed = past
                    .get(at)
                    .is_some_and(|it| it.standing == Standing::Listed);
                if !listed || !document.is(&look(self.seed, product, document.revision)) {
                    return Judgement::NeverWas;
                }
                at + 1
            }
        };
        let missed = past.get(taken_in).and_then(|event| event.stored);
        Judgement::Was {
            behind: missed.map_or(Duration::ZERO, |stored| asked.since(stored)),
        }
    }

    /// Compares a product in a view that has taken in everything.
    pub(super) fn compare(&self, product: usize, found: Option<&Document>) -> Difference {
        let products = self.read();
        let past = products.get(product).map_or(&[][..], Vec::as_slice);
        match (last(past), found) {
            (Standing::Listed, None) => Difference::Lost,
            (Standing::Hidden | Standing::Gone, Some(_)) => Difference::Resurrected,
            (Standing::Hidden | Standing::Gone, None) => Difference::None,
            (Standing::Listed, Some(document)) => {
                let is_last = index(document.revision) == past.len().checked_sub(1);
                let looks = document.is(&look(self.seed, product, document.revision));
                if is_last && looks {
                    Difference::None
                } else {
                    Difference::Differs
                }
            }
        }
    }
}

fn index(revision: u64) -> Option<usize> {
    usize::try_from(revision).ok()?.checked_sub(1)
}

/// Returns where a product stands in the end; one without events was never there.
fn last(past: &[Past]) -> Standing {
    past.last().map_or(Standing::Gone, |event| event.standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 3;

    fn event(revision: u64, standing: Standing) -> Event {
        Event {
            product: 0,
            revision,
            standing,
        }
    }

    fn document(revision: u64) -> Document {
        let look = look(SEED, 0, revision);
        Document {
            title: look.title,
            price: look.price,
            revision,
            shelf: Some(look.shelf),
            brand: None,
        }
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    /// Listed at 1 s, listed again at 2 s, gone at 3 s, listed again on its way.
    fn oracle() -> Oracle {
        let oracle = Oracle::new(SEED, 1);
        let standings = [Standing::Listed, Standing::Listed, Standing::Gone];
        for (revision, standing) in (1..).zip(standings) {
            let event = event(revision, standing);
            oracle.sending(&[event]);
            oracle.stored(&[event], at(revision));
        }
        oracle.sending(&[event(4, Standing::Listed)]);
        oracle
    }

    #[test]
    fn an_answer_is_behind_since_the_first_event_that_it_misses() {
        let check = |found: Option<Document>, expected: Judgement| {
            assert_eq!(
                oracle().judge(0, found.as_ref(), at(10)),
                expected,
                "{found:?}"
            );
        };
        let behind = |seconds| Judgement::Was {
            behind: Duration::from_secs(seconds),
        };
        check(Some(document(1)), behind(8));
        check(Some(document(2)), behind(7));
        check(None, behind(0));
        check(Some(document(4)), behind(0));
        check(Some(document(3)), Judgement::NeverWas);
        check(Some(document(5)), Judgement::NeverWas);
        check(Some(document(0)), Judgement::NeverWas);
        let torn = Document {
            price: document(2).price + 1,
            ..document(2)
        };
        check(Some(torn), Judgement::NeverWas);
    }

    #[test]
    fn a_finished_view_is_compared_with_each_product_s_last_event() {
        let oracle = oracle();
        assert_eq!((oracle.count(), oracle.listed()), ((1, 1), Some(0)));
        assert_eq!(oracle.compare(0, None), Difference::Lost);
        assert_eq!(oracle.compare(0, Some(&document(2))), Difference::Differs);
        assert_eq!(oracle.compare(0, Some(&document(4))), Difference::None);
        oracle.sending(&[event(5, Standing::Hidden)]);
        assert_eq!(
            oracle.compare(0, Some(&document(4))),
            Difference::Resurrected
        );
        assert_eq!(oracle.compare(0, None), Difference::None);
        assert_eq!(
            oracle.compare(7, Some(&document(4))),
            Difference::Resurrected
        );
    }

    #[test]
    fn a_document_of_two_mappings_has_none() {
        let one = document(1);
        let two = Document {
            shelf: None,
            brand: Some("Acme".into()),
            ..document(1)
        };
        let both = Document {
            brand: Some("Acme".into()),
            ..document(1)
        };
        assert_eq!(one.mapping(), Some(VersionNumber(1)));
        assert_eq!(two.mapping(), Some(VersionNumber(2)));
        assert_eq!(both.mapping(), None);
    }
}
