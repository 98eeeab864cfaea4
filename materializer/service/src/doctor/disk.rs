//! The data folder: whether it can be written, what is free, what was left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use materializer_migrations::{Follower, Role};
use materializer_model::{VersionId, VersionNumber, ViewName};

use super::Finding;
use crate::config::Config;
use crate::output::Bytes;

/// Below this much free space an index that merges may fill the disk.
const LOW: u64 = 1 << 30;

pub(super) fn examine(config: &Config, follower: &Follower, holds_indices: bool) -> Vec<Finding> {
    let folder = &config.data_dir;
    let place = folder.display();
    let mut findings = Vec::new();
    // A folder that is not there yet is made by the role that needs it, if its parent can be written.
    let existing = folder
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("."));
    match space_free(existing) {
        Ok(free) if free < LOW && holds_indices => findings.push(Finding::fault(
            "disk",
            format!("`{place}`: only {} are free", Bytes(free)),
            "a rebuild stands beside the live index: make room, or set `data_dir`",
        )),
        Ok(free) => findings.push(Finding::ok(
            "disk",
            format!("`{place}`: {} free", Bytes(free)),
        )),
        Err(error) => findings.push(Finding::fault(
            "disk",
            format!("`{place}`: {error}"),
            "set `data_dir` to a folder on a local disk that this user may write",
        )),
    }
    // Without a catalog nobody can say whose they are; a first start looks for them itself.
    if follower.catalog().id().is_some() {
        findings.extend(leftovers(config, follower));
    }
    findings
}

/// Returns how many bytes an ordinary user can still write.
pub(crate) fn space_free(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Finds indices of versions that are retired, or that the catalog does not know.
fn leftovers(config: &Config, follower: &Follower) -> Vec<Finding> {
    let root = config.data_dir.join(config.installation.as_str());
    let mut findings = Vec::new();
    let mut told = BTreeSet::new();
    for view in folders(&root) {
        let Ok(name) = view.parse::<ViewName>() else {
            continue;
        };
        for index in folders(&root.join(&view)) {
            // `v7-c0-1a2b3c4d`
            let Some(number) = index
                .split('-')
                .next()
                .and_then(|v| v.parse::<VersionNumber>().ok())
            else {
                continue;
            };
            let id = VersionId {
                view: name.clone(),
                number,
            };
            let version = follower.catalog().version(&id);
            let gone = version.is_none_or(|version| version.role == Role::Retired);
            if gone && told.insert(id.clone()) {
                findings.push(Finding::warning(
                    "leftovers",
                    format!(
                        "`{}` holds an index of `{id}`, which is gone",
                        root.join(&view).display()
                    ),
                    "a worker sweeps it at its start; delete the folder if none runs here any more",
                ));
            }
        }
    }
    findings
}

fn folders(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
