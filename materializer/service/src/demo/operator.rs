//! The operator: does with the catalog's client what a person does with the verbs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail};
use materializer_migrations::status::VersionStatus;
use materializer_migrations::{CatalogClient, Outcome, Role, Status, Verb};
use materializer_model::{Clock, Monotonic, VersionId, VersionNumber, ViewDefinition, ViewName};
use materializer_view::{diff, fingerprint};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::connect;

/// How often something that is waited for is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Ends every wait when it is set: Ctrl-C.
#[derive(Clone, Debug)]
pub(super) struct Interrupted(pub(super) Arc<AtomicBool>);

impl Interrupted {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Looks again and again until `look` finds something.
    ///
    /// # Errors
    /// Where it does not within `limit`, where looking fails, and where it is interrupted.
    pub(super) fn wait<T>(
        &self,
        clock: &SystemClock,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let began = clock.monotonic();
        loop {
            if let Some(found) = look().with_context(|| format!("wait until {what}"))? {
                return Ok(found);
            }
            if self.is_set() {
                bail!("interrupted");
            }
            if clock.monotonic().since(began) > limit {
                bail!("not so after {limit:.0?}: {what}");
            }
            sleep(GLANCE);
        }
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// Where it is interrupted.
    pub(super) fn pause(&self, clock: &SystemClock, span: Duration) -> anyhow::Result<()> {
        let until = clock.monotonic().plus(span);
        let over = || Ok((clock.monotonic() >= until).then_some(()));
        self.wait(
            clock,
            "time has passed",
            span * 2 + Duration::from_secs(1),
            over,
        )
    }
}

/// The operator.
pub(super) struct Operator {
    client: CatalogClient,
    clock: SystemClock,
    interrupted: Interrupted,
}

impl Operator {
    /// Opens the catalog as soon as a coordinator has made it.
    pub(super) fn start(
        config: &Config,
        clock: &SystemClock,
        interrupted: &Interrupted,
        alive: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let limit = Duration::from_secs(30);
        let client = interrupted.wait(clock, "there is a catalog", limit, || {
            alive()?;
            let log = connect::control_log(config)?;
            let new_id = || materializer_model::EventId::new(uuid::Uuid::new_v4().to_string());
            Ok(CatalogClient::open(log, &config.who, Box::new(new_id)).ok())
        })?;
        Ok(Self {
            client,
            clock: clock.clone(),
            interrupted: interrupted.clone(),
        })
    }

    /// Returns the catalog's client, as it was read last.
    pub(super) fn client(&self) -> &CatalogClient {
        &self.client
    }

    /// Applies a definition and returns why there is a new version.
    pub(super) fn apply(&mut self, definition: &ViewDefinition) -> anyhow::Result<Vec<String>> {
        self.client.refresh()?;
        let catalog = self.client.state().catalog();
        let live = catalog.view(&definition.view).and_then(|view| view.live());
        let difference = live.map(|live| diff(&live.definition, definition));
        let reasons = difference
            .iter()
            .flat_map(|difference| difference.reasons());
        let because: Vec<String> = reasons.map(ToString::to_string).collect();
        self.carry_out(Verb::Apply {
            definition: Box::new(definition.clone()),
            fingerprint: fingerprint(definition),
            because: because.clone(),
            replace: false,
            rebuild: false,
        })?;
        Ok(because)
    }

    /// Asks for a verb, waits until it is done, and returns when it was asked for.
    pub(super) fn carry_out(&mut self, verb: Verb) -> anyhow::Result<Monotonic> {
        let what = format!("`{}` of `{}` is done", verb.word(), verb.view());
        self.client.refresh()?;
        let plan = self.client.plan(&verb)?;
        let asked = self.clock.monotonic();
        let request = self.client.ask(verb, plan, "the demo")?;
        let (client, clock) = (&mut self.client, &self.clock);
        let limit = Duration::from_secs(120);
        self.interrupted.wait(clock, &what, limit, || {
            client.refresh()?;
            let outcome = client.outcome(&request, clock.monotonic().since(asked));
            match outcome {
                None => Ok(None),
                Some(Outcome::Done | Outcome::Nothing(_)) => Ok(Some(asked)),
                Some(Outcome::Refused { why, .. } | Outcome::GateFailed { why, .. }) => bail!(why),
                Some(Outcome::NoCoordinator | Outcome::Unknown) => bail!("nobody answers"),
            }
        })
    }

    pub(super) fn promote(&mut self, version: &VersionId) -> anyhow::Result<Monotonic> {
        self.carry_out(Verb::Promote {
            version: version.clone(),
            waive: BTreeSet::new(),
        })
    }

    pub(super) fn rollback(&mut self, view: &ViewName) -> anyhow::Result<Monotonic> {
        self.carry_out(Verb::Rollback {
            view: view.clone(),
            waive: BTreeSet::new(),
        })
    }

    pub(super) fn retire(&mut self, version: &VersionId) -> anyhow::Result<Monotonic> {
        self.carry_out(Verb::Retire {
            view: version.view.clone(),
            version: Some(version.number),
        })
    }

    /// Waits until something is so in the catalog and the reports.
    pub(super) fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&CatalogClient) -> Option<T>,
    ) -> anyhow::Result<T> {
        let client = &mut self.client;
        let found = self.interrupted.wait(&self.clock, what, limit, || {
            client.refresh()?;
            Ok(look(client))
        });
        found.with_context(|| self.waits_for())
    }

    /// Waits until a version is ready.
    pub(super) fn wait_ready(&mut self, id: &VersionId) -> anyhow::Result<()> {
        let limit = Duration::from_secs(180);
        self.wait(&format!("`{id}` is ready"), limit, |client| {
            version_status(client, id)?.ready.then_some(())
        })
    }

    /// Waits until a version is live, and every gateway answers by it.
    pub(super) fn wait_live(&mut self, id: &VersionId) -> anyhow::Result<()> {
        let limit = Duration::from_secs(180);
        self.wait(&format!("`{id}` answers readers"), limit, |client| {
            let state = client.state();
            let status = Status::at(state, state.reports().newest()?);
            let alias = status.view(&id.view)?.alias.as_ref()?;
            (alias.version == id.number && alias.confirmed).then_some(())
        })
    }

    /// Waits until a version stands in a role.
    pub(super) fn wait_role(&mut self, id: &VersionId, role: Role) -> anyhow::Result<()> {
        let limit = Duration::from_secs(180);
        self.wait(&format!("`{id}` is {role}"), limit, |client| {
            let version = client.state().catalog().version(id)?;
            (version.role == role).then_some(())
        })
    }

    /// Returns the roles of all versions.
    pub(super) fn roles(&self) -> BTreeMap<String, String> {
        let views = self.client.state().catalog().views().values();
        let versions = views.flat_map(|view| view.versions.values());
        versions
            .map(|version| (version.id.to_string(), version.role.to_string()))
            .collect()
    }

    /// Says of every version what it waits for: the first thing to know when a wait was in vain.
    fn waits_for(&self) -> String {
        let state = self.client.state();
        let status = Status::at(state, state.reports().newest().unwrap_or_default());
        let versions = status.views.iter().flat_map(|view| &view.versions);
        let said = versions.map(|version| {
            let why = version
                .health
                .why
                .as_deref()
                .or(version.waits_for.as_deref());
            let why = why.unwrap_or("nothing");
            format!(
                "{} is {} ({}), waits for {why}",
                version.version, version.state, version.health.is
            )
        });
        said.chain(status.faults.iter().cloned())
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Returns a version's status as the reports say it now.
pub(super) fn version_status(client: &CatalogClient, id: &VersionId) -> Option<VersionStatus> {
    let state = client.state();
    let status = Status::at(state, state.reports().newest()?);
    status.version(id).cloned()
}

/// Names a version of a view.
pub(super) fn version(view: &ViewName, number: u32) -> VersionId {
    VersionId {
        view: view.clone(),
        number: VersionNumber(number),
    }
}
