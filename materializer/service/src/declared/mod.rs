//! Definitions that stand in a folder, as one that Git fills, are applied by the coordinator itself.
//!
//! What was declared is carried out once ([`materializer_migrations::declare`]). Several coordinators may
//! look at copies of the folder that are not renewed in one moment: each acts on what it has *seen change*
//! and, at its start, on what the catalog does not know as settled. One whose copy is still the old one
//! has seen nothing, and so never takes back what another one has just carried out.

mod folder;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use materializer_migrations::declare::Step;
use materializer_migrations::{
    Catalog, CatalogClient, ClientError, Declaration, Declared, Outcome,
};
use materializer_model::{Clock, EventId, Monotonic, ViewName};
use tracing::info;

use crate::difference::because;
use folder::{Files, Folder};

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long after a refusal the same is asked for again, at first; then twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Carries out what a folder declares.
pub(crate) struct Declarer {
    folder: PathBuf,
    client: CatalogClient,
    clock: Arc<dyn Clock>,
    looked: Option<Monotonic>,
    /// The files as they were at the last look, and what they say.
    read: Option<(Files, Arc<Folder>)>,
    /// Also of what is in the folder no more: a file that could not be read for a moment is no change.
    seen: BTreeMap<ViewName, Seen>,
}

/// What this process has seen of one view in its folder.
#[derive(Debug)]
struct Seen {
    digest: String,
    /// Whether something may still have to be done about it.
    open: bool,
    asked: Option<EventId>,
    not_before: Monotonic,
    pause: Duration,
    /// The digests of what came before it: was seen here, was carried out, or was asked for. Another
    /// one that is carried out came after it.
    earlier: BTreeSet<String>,
}

impl Seen {
    fn new(
        declaration: &Declaration,
        before: Option<Self>,
        catalog: &Catalog,
        now: Monotonic,
    ) -> Self {
        let view = &declaration.definition.view;
        let mut earlier = before.map_or_else(BTreeSet::new, |before| {
            let mut earlier = before.earlier;
            earlier.insert(before.digest);
            earlier
        });
        earlier.extend(carried_out(catalog, view).map(str::to_owned));
        let outstanding = catalog.outstanding().into_iter();
        let of_view = outstanding.filter(|(_, asked)| asked.verb.view() == view);
        earlier.extend(of_view.filter_map(|(_, asked)| asked.declaration.clone()));
        Self {
            digest: declaration.digest.clone(),
            open: true,
            asked: None,
            not_before: now,
            pause: FIRST_PAUSE,
            earlier,
        }
    }

    /// Says whether a later one was carried out, which others have seen and this process has not yet.
    fn is_overtaken(&self, catalog: &Catalog, view: &ViewName) -> bool {
        let is_later = |digest: &str| digest != self.digest && !self.earlier.contains(digest);
        carried_out(catalog, view).is_some_and(is_later)
    }
}

/// Returns the digest of the declaration of a view that was settled last.
fn carried_out<'a>(catalog: &'a Catalog, view: &ViewName) -> Option<&'a str> {
    Some(&settled(catalog, view)?.digest)
}

/// Returns what was settled last of a view.
fn settled<'a>(catalog: &'a Catalog, view: &ViewName) -> Option<&'a Declared> {
    catalog.view(view)?.declared.as_ref()
}

impl Declarer {
    /// Sets one up; the client's name is the one that the catalog will tell as who asked.
    pub(crate) fn new(folder: PathBuf, client: CatalogClient, clock: Arc<dyn Clock>) -> Self {
        Self {
            folder,
            client,
            clock,
            looked: None,
            read: None,
            seen: BTreeMap::new(),
        }
    }

    /// Looks at the folder from time to time, and does what is to be done next about each view. Returns
    /// what a person should know of it; `None` where it was not time to look.
    ///
    /// # Errors
    /// [`ClientError`]; the rest is done the next time.
    pub(crate) fn step(&mut self) -> Result<Option<Vec<String>>, ClientError> {
        let now = self.clock.monotonic();
        if self.looked.is_some_and(|at| now.since(at) < LOOK_EVERY) {
            return Ok(None);
        }
        self.looked = Some(now);
        self.client.refresh()?;
        let folder = self.read();
        let mut told = folder.faults.clone();
        for (view, (file, declaration)) in &folder.views {
            let declared = match self.declare(declaration, file, now) {
                Err(fault) if fault.may_pass() => return Err(fault),
                // It is this view's own, and keeps no other one waiting.
                Err(fault) => Some(fault.to_string()),
                Ok(declared) => declared,
            };
            told.extend(declared.map(|what| format!("`{view}` as {file} declares it: {what}")));
        }
        if folder.faults.is_empty() {
            told.extend(missing(self.client.state().catalog(), &folder));
        }
        Ok(Some(told))
    }

    /// Reads the folder. Only files that differ from the last look's are parsed again: the thread is the one
    /// that decides.
    fn read(&mut self) -> Arc<Folder> {
        let files = Files::read(&self.folder);
        match &self.read {
            Some((known, folder)) if *known == files => Arc::clone(folder),
            Some(_) | None => {
                let folder = Arc::new(Folder::of(&files));
                self.read = Some((files, Arc::clone(&folder)));
                folder
            }
        }
    }

    /// Does what is to be done next about one view, and says what is in the way.
    fn declare(
        &mut self,
        declaration: &Declaration,
        file: &str,
        now: Monotonic,
    ) -> Result<Option<String>, ClientError> {
        let view = &declaration.definition.view;
        let catalog = self.client.state().catalog();
        let seen = match self.seen.remove(view) {
            Some(seen) if seen.digest == declaration.digest => seen,
            before => Seen::new(declaration, before, catalog, now),
        };
        let seen = self.seen.entry(view.clone()).or_insert(seen);
        if seen.open && seen.is_overtaken(catalog, view) {
            info!(%view, file, "another definition was carried out since: this copy of the folder is late");
            seen.open = false;
        }
        if !seen.open {
            return Ok(refused(catalog, declaration));
        }
        if now < seen.not_before {
            return Ok(self.answer(view));
        }
        let because = because(catalog, &declaration.definition, &declaration.fingerprint);
        let (step, request) = self.client.declare(declaration, because, file)?;
        let seen = self.seen.get_mut(view).expect("entered above");
        match step {
            Step::Settled => {
                seen.open = false;
                Ok(refused(self.client.state().catalog(), declaration))
            }
            Step::Await | Step::Settle { .. } => Ok(None),
            Step::Ask { .. } => {
                seen.asked = request;
                seen.not_before = now.plus(seen.pause);
                seen.pause = (seen.pause * 2).min(LONGEST_PAUSE);
                Ok(None)
            }
            Step::Refused(refusal) => Ok(Some(refusal.why)),
        }
    }

    /// Says why the request that was made last for a view was not carried out.
    fn answer(&self, view: &ViewName) -> Option<String> {
        let request = self.seen.get(view)?.asked.as_ref()?;
        match self.client.outcome(request, Duration::ZERO)? {
            Outcome::Refused { why, .. } | Outcome::GateFailed { why, .. } => Some(why),
            Outcome::Done | Outcome::Nothing(_) | Outcome::NoCoordinator | Outcome::Unknown => None,
        }
    }
}

/// Says why a declaration is settled without having been carried out.
fn refused(catalog: &Catalog, declaration: &Declaration) -> Option<String> {
    let settled = settled(catalog, &declaration.definition.view);
    let own = settled.filter(|settled| settled.digest == declaration.digest);
    own?.refused.clone()
}

/// Tells of the views that were declared, are no more, and go on all the same.
fn missing(catalog: &Catalog, folder: &Folder) -> Vec<String> {
    let views = catalog.views().iter();
    let goes_on = views.filter(|(name, view)| {
        let is_fed = view.versions.values().any(|it| it.role.is_fed());
        view.declared.is_some() && is_fed && !folder.views.contains_key(*name)
    });
    goes_on
        .map(|(name, _)| {
            format!(
                "`{name}` is declared no more, and goes on: declare it with `retire: true`, or `materializer retire {name}`"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
