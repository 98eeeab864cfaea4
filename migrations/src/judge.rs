//! Whether a verb can be done as things are, and what it would do. Pure.
//!
//! This is where legality is judged: against the roles, by the same table that the fold follows.

use materializer_model::definition::{RedisTarget, Target};
use materializer_model::{
    Fingerprint, Origin, Skip, Topic, TopicId, VersionId, VersionNumber, ViewDefinition, ViewName,
};

use crate::catalog::Catalog;
use crate::defect::Defect;
use crate::event::Verb;
use crate::lifecycle::Role;
use crate::plan::Plan;
use crate::versions::{Version, View};
use materializer_model::defect::is_planted;

/// Why a verb cannot be done as things are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// Why.
    pub why: String,
    /// What to type instead.
    pub hint: Option<String>,
}

fn refuse<T>(why: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        why: why.into(),
        hint: Some(hint.into()),
    })
}

fn nothing(why: impl Into<String>) -> Result<Plan, Refusal> {
    Ok(Plan::Nothing { why: why.into() })
}

/// Returns what a verb would do.
///
/// # Errors
/// [`Refusal`] where it cannot be done in the catalog as it is.
pub fn plan(catalog: &Catalog, verb: &Verb) -> Result<Plan, Refusal> {
    match verb {
        Verb::Apply {
            definition,
            fingerprint,
            because,
            replace,
            rebuild,
        } => {
            let same = (!rebuild).then_some(fingerprint);
            apply(catalog, definition, same, because, *replace)
        }
        Verb::Promote { version, .. } => promote(catalog, version),
        Verb::Rollback { view, .. } => rollback(known_view(catalog, view)?, view),
        Verb::Pause { version } => pause(known_version(catalog, version)?),
        Verb::Resume { version } => match &known_version(catalog, version)?.paused {
            Some(_) => Ok(Plan::Resume {
                version: version.clone(),
            }),
            None => nothing(format!("`{version}` is not paused")),
        },
        Verb::Skip {
            version,
            at,
            topic_id,
        } => skip(catalog, version, at, topic_id.as_ref()),
        Verb::Retire {
            view,
            version: Some(number),
        } => {
            let version = VersionId {
                view: view.clone(),
                number: *number,
            };
            retire_version(known_version(catalog, &version)?)
        }
        Verb::Retire {
            view,
            version: None,
        } => retire_view(known_view(catalog, view)?, view),
        Verb::Abort { version } => abort(known_version(catalog, version)?),
    }
}

fn known_view<'a>(catalog: &'a Catalog, view: &ViewName) -> Result<&'a View, Refusal> {
    catalog.view(view).ok_or_else(|| Refusal {
        why: format!("there is no view `{view}`"),
        hint: Some("`materializer status` lists the views".into()),
    })
}

fn known_version<'a>(catalog: &'a Catalog, id: &VersionId) -> Result<&'a Version, Refusal> {
    let view = known_view(catalog, &id.view)?;
    view.versions.get(&id.number).ok_or_else(|| Refusal {
        why: format!("there is no version `{id}`"),
        hint: Some(format!(
            "`materializer status {}` lists its versions",
            id.view
        )),
    })
}

/// `same` is the fingerprint of the versions that will do; `None` where none that exists will.
fn apply(
    catalog: &Catalog,
    definition: &ViewDefinition,
    same: Option<&Fingerprint>,
    because: &[String],
    replace: bool,
) -> Result<Plan, Refusal> {
    let name = &definition.view;
    let empty = View::default();
    let view = catalog.view(name).unwrap_or(&empty);
    if view.retired.is_some() && is_planted(Defect::RetiredForEver) {
        return refuse(format!("`{name}` was retired"), "choose another name");
    }
    let same = |version: &&Version| Some(&version.fingerprint) == same;
    if let Some(live) = view.live().filter(same) {
        return in_place(live, definition, because);
    }
    if let Some(standby) = view.standby().filter(same) {
        if standby.rolled_back {
            return refuse(
                format!("`{}` is this definition, and was rolled back", standby.id),
                format!(
                    "`materializer promote {}` if it is right after all",
                    standby.id
                ),
            );
        }
        return rollback(view, name);
    }
    if let Some(candidate) = view.candidate().filter(same) {
        return in_place(candidate, definition, because);
    }
    key_templates_differ(catalog, definition)?;
    let replaces = view.candidate().map(|candidate| candidate.id.number);
    if let Some(other) = replaces.filter(|_| !replace) {
        return refuse(
            format!("`{name}@{other}` is being built"),
            format!("add `--replace` to abort `{name}@{other}`"),
        );
    }
    Ok(Plan::Start {
        version: VersionId {
            view: name.clone(),
            number: view.next_number(),
        },
        live: view.live().map(|live| live.id.number),
        replaces,
        because: because.to_vec(),
    })
}

fn in_place(
    version: &Version,
    definition: &ViewDefinition,
    because: &[String],
) -> Result<Plan, Refusal> {
    let id = &version.id;
    if definition.to.shards() != version.shards {
        return refuse(
            format!(
                "`{id}` was started with {} shards, which is fixed",
                version.shards
            ),
            "leave `to.redis.shards`, or change it together with what makes a new version",
        );
    }
    if *definition == *version.definition {
        return nothing(format!("`{id}` is {} and is this definition", version.role));
    }
    Ok(Plan::ChangeSettings {
        version: id.clone(),
        because: because.to_vec(),
    })
}

/// Refuses a Redis view whose keys a gateway could not tell from another view's: the literals before
/// `{key}` must not be equal, nor one the beginning of the other.
fn key_templates_differ(catalog: &Catalog, definition: &ViewDefinition) -> Result<(), Refusal> {
    let Some(ours) = literal(&definition.to) else {
        return Ok(());
    };
    for (name, view) in catalog.views() {
        let served = view.versions.values().filter(|v| v.role.is_fed());
        for theirs in served.filter_map(|v| literal(&v.definition.to)) {
            let clash = ours.starts_with(theirs) || theirs.starts_with(ours);
            if *name != definition.view && clash {
                return refuse(
                    format!("keys `{ours}…` cannot be told from `{theirs}…` of view `{name}`"),
                    "change `to.redis.key`, so that neither begins with the other",
                );
            }
        }
    }
    Ok(())
}

fn literal(target: &Target) -> Option<&str> {
    match target {
        Target::Redis(RedisTarget { key, .. }) => Some(key.split("{key}").next().unwrap_or(key)),
        Target::Memory {} | Target::Tantivy(_) => None,
    }
}

fn soak_ms(definition: &ViewDefinition) -> u64 {
    u64::try_from(definition.soak.as_millis()).unwrap_or(u64::MAX)
}

fn promote(catalog: &Catalog, id: &VersionId) -> Result<Plan, Refusal> {
    let version = known_version(catalog, id)?;
    let view = known_view(catalog, &id.view)?;
    match version.role {
        Role::Building => {}
        Role::Standby if version.rolled_back => {}
        Role::Standby => {
            return refuse(
                format!("`{id}` is the standby"),
                format!("`materializer rollback {}` goes back to it", id.view),
            );
        }
        Role::Live => return nothing(format!("`{id}` is live")),
        Role::Draining | Role::Retiring | Role::Retired => {
            return refuse(
                format!("`{id}` is {}", version.role),
                "`materializer apply` with its definition builds it anew",
            );
        }
    }
    fed(version)?;
    let standby = view.standby().map(|standby| standby.id.number);
    Ok(Plan::Promote {
        version: id.clone(),
        from: view.live().map(|live| live.id.number),
        ends: standby.filter(|standby| *standby != id.number),
        soak_ms: soak_ms(&version.definition),
    })
}

/// Refuses to make live what is paused: its readers would be left with what it has.
fn fed(version: &Version) -> Result<(), Refusal> {
    match &version.paused {
        None => Ok(()),
        Some(by) => refuse(
            format!("`{}` is paused by {by}", version.id),
            format!("`materializer resume {}` feeds it again", version.id),
        ),
    }
}

fn rollback(view: &View, name: &ViewName) -> Result<Plan, Refusal> {
    let (Some(live), Some(standby)) = (view.live(), view.standby()) else {
        return refuse(
            format!("`{name}` has no standby to roll back to"),
            "`materializer apply` with the earlier definition builds it anew",
        );
    };
    if standby.rolled_back {
        return refuse(
            format!("the standby `{}` was itself rolled back", standby.id),
            format!(
                "`materializer promote {}` if it is right after all",
                standby.id
            ),
        );
    }
    fed(standby)?;
    Ok(Plan::RollBack {
        version: standby.id.clone(),
        from: live.id.number,
        soak_ms: soak_ms(&standby.definition),
    })
}

fn pause(version: &Version) -> Result<Plan, Refusal> {
    let id = &version.id;
    if version.paused.is_some() {
        return nothing(format!("`{id}` is paused"));
    }
    if !version.role.is_fed() {
        return nothing(format!("`{id}` is {} and not fed", version.role));
    }
    Ok(Plan::Pause {
        version: id.clone(),
    })
}

fn skip(
    catalog: &Catalog,
    id: &VersionId,
    at: &Origin,
    topic_id: Option<&TopicId>,
) -> Result<Plan, Refusal> {
    let topics = &known_version(catalog, id)?.definition.from.topics;
    if !topics.contains(&at.topic) {
        let read: Vec<&str> = topics.iter().map(Topic::as_str).collect();
        return refuse(
            format!("`{id}` does not read topic `{}`", at.topic),
            format!("it reads `{}`", read.join("`, `")),
        );
    }
    let Some(topic_id) = topic_id.cloned() else {
        return refuse(
            format!(
                "`{id}` has not said yet which topic `{}` it reads",
                at.topic
            ),
            format!("`materializer status {}` shows when it reads", id.view),
        );
    };
    let skip = Skip {
        at: at.clone(),
        id: Some(topic_id.clone()),
    };
    if known_view(catalog, &id.view)?.skips.contains_key(&skip) {
        return nothing(format!("`{}` skips {at}", id.view));
    }
    Ok(Plan::Skip {
        version: id.clone(),
        at: at.clone(),
        topic_id: Some(topic_id),
    })
}

fn retire_version(version: &Version) -> Result<Plan, Refusal> {
    let id = &version.id;
    match version.role {
        Role::Standby => Ok(Plan::EndSoak {
            version: id.clone(),
        }),
        Role::Live => refuse(
            format!("`{id}` is live"),
            format!(
                "promote another version first, or `materializer retire {}` retires the whole view",
                id.view
            ),
        ),
        Role::Building => refuse(
            format!("`{id}` is being built"),
            format!("`materializer abort {id}` gives it up"),
        ),
        Role::Draining | Role::Retiring | Role::Retired => {
            nothing(format!("`{id}` is {}", version.role))
        }
    }
}

fn retire_view(view: &View, name: &ViewName) -> Result<Plan, Refusal> {
    let fed = view.versions.values().filter(|v| v.role.is_fed());
    let versions: Vec<VersionNumber> = fed.map(|v| v.id.number).collect();
    if versions.is_empty() {
        return nothing(format!("`{name}` has no version that is not retired"));
    }
    Ok(Plan::RetireView {
        view: name.clone(),
        versions,
    })
}

fn abort(version: &Version) -> Result<Plan, Refusal> {
    let id = &version.id;
    match version.role {
        Role::Building => Ok(Plan::Abort {
            version: id.clone(),
        }),
        Role::Retiring | Role::Retired => nothing(format!("`{id}` is {}", version.role)),
        Role::Live => refuse(
            format!("`{id}` is live"),
            format!(
                "`materializer rollback {}` goes back to the standby",
                id.view
            ),
        ),
        Role::Standby | Role::Draining => refuse(
            format!("`{id}` is {} and no candidate", version.role),
            format!("`materializer retire {id}` ends its soak"),
        ),
    }
}
