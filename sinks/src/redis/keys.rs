//! The names of what is stored. Installations and views hold neither `:` nor a character that a
//! `SCAN` pattern reads, so no name is a part of another and no pattern needs an escape.

use materializer_model::definition::RedisTarget;
use materializer_model::ports::SinkError;
use materializer_model::{Installation, Unit, VersionId, ViewName};

/// Returns what the key of everything that is no row begins with.
pub(super) fn own(i: &Installation) -> String {
    format!("{i}::")
}

/// Returns the key of the mark that says whose place this is.
pub(super) fn mark(i: &Installation) -> String {
    format!("{i}::mark")
}

/// Returns the key that readers follow to a view's live version.
pub(super) fn alias(i: &Installation, view: &ViewName) -> String {
    format!("{i}::{view}:alias")
}

/// Returns the key of a shard's fencing token.
pub(super) fn token(
    i: &Installation,
    VersionId { view, number }: &VersionId,
    shard: u16,
) -> String {
    format!("{i}::{view}:{number}:s{shard}:token")
}

/// Returns the key of a shard's checkpoint.
pub(super) fn checkpoint(
    i: &Installation,
    VersionId { view, number }: &VersionId,
    shard: u16,
) -> String {
    format!("{i}::{view}:{number}:s{shard}:checkpoint")
}

/// Returns the key that says where a shard's commit in parts ends whose last part did not come.
pub(super) fn unfinished(
    i: &Installation,
    VersionId { view, number }: &VersionId,
    shard: u16,
) -> String {
    format!("{i}::{view}:{number}:s{shard}:unfinished")
}

/// Returns what the key of every row of a version begins with. Nothing else does.
pub(super) fn rows(i: &Installation, VersionId { view, number }: &VersionId) -> String {
    format!("{i}:{view}:{number}:")
}

/// Returns the pattern that finds what begins with one of our prefixes, and some that does not: compare
/// each key with the prefix byte by byte.
pub(super) fn pattern(prefix: &str) -> String {
    format!("{prefix}*")
}

/// Returns what stands before `{key}` in a view's key template.
///
/// # Errors
/// [`SinkError::Refused`] where the template is not `<literal>{key}`.
pub(super) fn literal(target: &RedisTarget) -> Result<&str, SinkError> {
    target
        .key
        .strip_suffix("{key}")
        .filter(|literal| !literal.contains(['{', '}']))
        .ok_or_else(|| {
            SinkError::Refused(format!(
                "the key template `{}` is not text followed by `{{key}}`, as in `product:{{key}}`",
                target.key
            ))
        })
}

/// The names that the writer of one unit needs.
#[derive(Clone, Debug)]
pub(super) struct UnitKeys {
    pub(super) mark: String,
    pub(super) token: String,
    pub(super) checkpoint: String,
    pub(super) unfinished: String,
    /// What stands before a row's own key.
    pub(super) row: String,
}

impl UnitKeys {
    pub(super) fn new(
        i: &Installation,
        unit: &Unit,
        target: &RedisTarget,
    ) -> Result<Self, SinkError> {
        Ok(Self {
            mark: mark(i),
            token: token(i, &unit.version, unit.shard),
            checkpoint: checkpoint(i, &unit.version, unit.shard),
            unfinished: unfinished(i, &unit.version, unit.shard),
            row: rows(i, &unit.version) + literal(target)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use materializer_model::definition::RedisShape;

    fn target(key: &str) -> RedisTarget {
        RedisTarget {
            connection: "cache".into(),
            key: key.into(),
            shape: RedisShape::Json,
            ttl: None,
            shards: 1,
        }
    }

    #[test]
    fn the_names_are_those_that_are_stored_for_ever() {
        let i: Installation = "main".parse().expect("a name");
        let unit: Unit = "products/v7/c0/s1".parse().expect("a unit");
        let keys = UnitKeys::new(&i, &unit, &target("product:{key}")).expect("a template");
        assert_eq!(keys.mark, "main::mark");
        assert_eq!(alias(&i, &unit.version.view), "main::products:alias");
        assert_eq!(keys.token, "main::products:v7:s1:token");
        assert_eq!(keys.checkpoint, "main::products:v7:s1:checkpoint");
        assert_eq!(keys.unfinished, "main::products:v7:s1:unfinished");
        assert_eq!(keys.row, "main:products:v7:product:");
        assert_eq!(pattern(&rows(&i, &unit.version)), "main:products:v7:*");
    }

    #[test]
    fn a_key_template_is_text_followed_by_the_key() {
        assert_eq!(literal(&target("product:{key}")), Ok("product:"));
        assert_eq!(literal(&target("{key}")), Ok(""));
        for bad in ["", "product:", "{key}:x", "{key}{key}", "{id}:{key}"] {
            let target = target(bad);
            let found = literal(&target);
            assert!(
                matches!(found, Err(SinkError::Refused(_))),
                "{bad}: {found:?}"
            );
        }
    }
}
