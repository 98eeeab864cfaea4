//! What is to be done so that a view becomes what is declared of it. Pure.
//!
//! A declaration is a definition that stands somewhere by itself, as in a folder that Git fills, in
//! place of a person who types `apply`. It is an edge, not a level: once it is settled (carried out, so
//! already, or refused for good) it does nothing, whatever persons do to the view, until another one
//! stands there. What settles it is in the catalog, in the same event as what was done.

use materializer_model::{Fingerprint, ViewDefinition};

use crate::catalog::{Asked, Catalog};
use crate::event::Verb;
use crate::judge::{Refusal, plan};
use crate::plan::Plan;
use crate::versions::Version;

/// What is declared of a view.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// The definition, defaults written out.
    pub definition: ViewDefinition,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Whether the whole view shall be retired.
    pub retire: bool,
    /// The hash of all this: another one is another declaration.
    pub digest: String,
}

/// What is to be done about a declaration.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing: it is settled.
    Settled,
    /// Nothing now: somebody has asked for it, and was not answered yet.
    Await,
    /// This is to be asked for.
    Ask {
        /// What.
        verb: Box<Verb>,
        /// What it does.
        plan: Plan,
        /// The digest of the declaration, where that is all of it.
        settles: Option<String>,
    },
    /// It is so already, or was rolled back and shall not come again by itself: that is to be written down.
    Settle {
        /// Why it is not carried out.
        refused: Option<String>,
    },
    /// It cannot be done as things are, which may pass.
    Refused(Refusal),
}

impl Declaration {
    /// Says whether nothing is to be done about it any more.
    #[must_use]
    pub fn is_settled(&self, catalog: &Catalog) -> bool {
        let declared = catalog.view(&self.definition.view);
        let declared = declared.and_then(|view| view.declared.as_ref());
        declared.is_some_and(|declared| declared.digest == self.digest)
    }

    /// Returns what is to be done next. `because` is how the definition differs from what there is.
    ///
    /// Another candidate is given up: what is declared is what is wanted. So is one that nobody declared.
    #[must_use]
    pub fn next(&self, catalog: &Catalog, because: Vec<String>) -> Step {
        let name = &self.definition.view;
        if self.is_settled(catalog) {
            return Step::Settled;
        }
        let awaited = |asked: &Asked| asked.verb.view() == name && asked.declaration.is_some();
        if catalog.outstanding().iter().any(|(_, it)| awaited(it)) {
            return Step::Await;
        }
        let verb = if self.retire {
            if catalog.view(name).is_none() {
                return Step::Settle { refused: None };
            }
            Verb::Retire {
                view: name.clone(),
                version: None,
            }
        } else {
            Verb::Apply {
                definition: Box::new(self.definition.clone()),
                fingerprint: self.fingerprint.clone(),
                because,
                replace: true,
                rebuild: false,
            }
        };
        let plan = match plan(catalog, &verb) {
            Ok(plan) => plan,
            Err(refusal) if self.was_rolled_back(catalog) => {
                return Step::Settle {
                    refused: Some(refusal.to_string()),
                };
            }
            Err(refusal) => return Step::Refused(refusal),
        };
        if let Some(other) = self.other_candidate(catalog)
            && !matches!(plan, Plan::Start { .. } | Plan::RetireView { .. })
        {
            let version = other.id.clone();
            return Step::Ask {
                verb: Box::new(Verb::Abort {
                    version: version.clone(),
                }),
                plan: Plan::Abort { version },
                settles: None,
            };
        }
        if plan.is_nothing() {
            return Step::Settle { refused: None };
        }
        Step::Ask {
            verb: Box::new(verb),
            plan,
            settles: Some(self.digest.clone()),
        }
    }

    /// Says whether a person went back from what is declared.
    fn was_rolled_back(&self, catalog: &Catalog) -> bool {
        let view = catalog.view(&self.definition.view);
        let standby = view.and_then(|view| view.standby());
        standby.is_some_and(|it| it.rolled_back && it.fingerprint == self.fingerprint)
    }

    /// Returns the candidate that is not what is declared.
    fn other_candidate<'a>(&self, catalog: &'a Catalog) -> Option<&'a Version> {
        let candidate = catalog.view(&self.definition.view)?.candidate()?;
        (candidate.fingerprint != self.fingerprint).then_some(candidate)
    }
}
