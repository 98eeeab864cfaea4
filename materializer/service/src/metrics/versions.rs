//! What the catalog says of every version. The same in every process that has read as far.

use std::time::Duration;

use materializer_migrations::{Catalog, Role};

use super::scraped;

scraped! {
    /// Gauges of the catalog's versions.
    VersionGauges {
        catalog_next: IntGaugeVec[[]] "catalog_next_offset"
            "The next offset of the catalog that this process will read.";
        role: IntGaugeVec[["view", "version", "role"]] "version_role"
            "1 for the version's role, 0 for the others; absent once it is retired.";
        paused: IntGaugeVec[["view", "version"]] "version_paused"
            "1 if a person has paused the version.";
        alias_target: IntGaugeVec[["view", "version"]] "alias_target_info"
            "Always 1; the labels are the view and the version that readers see.";
        alias_epoch: IntGaugeVec[["view"]] "alias_epoch"
            "Catalog offset of the event that moved the view's alias last.";
        alias_moved: GaugeVec[["view"]] "alias_last_swap_timestamp_seconds"
            "When the broker appended that event, in seconds since the Unix epoch.";
    }
}

/// Returns a role as its label.
fn label(role: Role) -> &'static str {
    match role {
        Role::Building => "building",
        Role::Live => "live",
        Role::Standby => "standby",
        Role::Draining => "draining",
        Role::Retiring => "retiring",
        Role::Retired => "retired",
    }
}

/// The roles of versions of which there is something.
const ROLES: [Role; 5] = [
    Role::Building,
    Role::Live,
    Role::Standby,
    Role::Draining,
    Role::Retiring,
];

impl VersionGauges {
    /// Shows what the catalog says.
    pub fn set(&self, catalog: &Catalog) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let next = self.catalog_next.with_label_values::<&str>(&[]);
        next.set(whole(catalog.next().0));
        for (name, view) in catalog.views() {
            let name = name.as_str();
            if let Some(alias) = &view.alias {
                let version = alias.version.to_string();
                let target = self.alias_target.with_label_values(&[name, &version]);
                target.set(1);
                let epoch = self.alias_epoch.with_label_values(&[name]);
                epoch.set(whole(alias.moved.offset.0));
                let moved = u64::try_from(alias.moved.appended.0).unwrap_or(0);
                let moved = Duration::from_millis(moved).as_secs_f64();
                self.alias_moved.with_label_values(&[name]).set(moved);
            }
            let versions = view.versions.values();
            for version in versions.filter(|version| version.role != Role::Retired) {
                let number = version.id.number.to_string();
                for role in ROLES {
                    let labels = [name, number.as_str(), label(role)];
                    let is = i64::from(role == version.role);
                    self.role.with_label_values(&labels).set(is);
                }
                let paused = self.paused.with_label_values(&[name, &number]);
                paused.set(version.paused.is_some().into());
            }
        }
    }
}
