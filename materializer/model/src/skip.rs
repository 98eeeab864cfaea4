//! Records that are passed over in every build of a view.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::mutation::Origin;
use crate::offset::TopicId;
use crate::record::Record;

/// A record that `skip --at` names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skip {
    /// Where it stands.
    pub at: Origin,
    /// The id of its topic: what stands there in one made anew under the same name is another record.
    /// `None` is whichever topic the unit reads.
    pub id: Option<TopicId>,
}

/// All records that a version passes over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Skips(BTreeSet<Skip>);

impl Skips {
    /// Adds a record.
    pub fn add(&mut self, skip: Skip) {
        self.0.insert(skip);
    }

    /// Says whether a record of the topic with this id is passed over.
    #[must_use]
    pub fn hold(&self, record: &Record<'_>, id: &TopicId) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let at = record.origin();
        let of = |id| Skip { at: at.clone(), id };
        self.0.contains(&of(None)) || self.0.contains(&of(Some(id.clone())))
    }
}

impl FromIterator<Skip> for Skips {
    fn from_iter<T: IntoIterator<Item = Skip>>(skips: T) -> Self {
        Self(skips.into_iter().collect())
    }
}
