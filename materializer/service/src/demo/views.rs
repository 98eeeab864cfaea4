//! The demo's views, as their owner would write them: v1, and v2 with another mapping.

use anyhow::Context as _;
use materializer_model::ViewDefinition;
use materializer_view::parse;

/// The shop's topic.
pub(super) const TOPIC: &str = "shop.products";

/// The index that every demo has.
pub(super) const SEARCH: &str = "
view: product-search
from: {topics: [shop.products], policy: delete}
only: event.kind == 'product'
where: event.hidden != true
document:
  title: {value: event.title, type: text, language: english}
  price: {value: event.price, type: u64, sort: true}
  shelf: {value: event.shelf, type: string}
  revision: {value: event.revision, type: u64}
to: {tantivy: {copies: 2}}
gates: {lag_seconds: 5, lag_records: 1000, stable_for: 2s, documents_ratio: 0.9..1.1, queries: [{q: 'title:shoe'}]}
soak: 1h
";

/// The cache beside it, where there is a Redis.
pub(super) const CACHE: &str = "
view: products
from: {topics: [shop.products], policy: delete}
only: event.kind == 'product'
where: event.hidden != true
document: {title: event.title, price: event.price, shelf: event.shelf, revision: event.revision}
to: {redis: {connection: cache, key: 'product:{key}'}}
gates: {lag_seconds: 5, lag_records: 1000, stable_for: 2s, documents_ratio: 0.9..1.1}
soak: 1h
";

/// What v2 changes: products are no longer shown with their shelf, but with their brand.
const CHANGES: [(&str, &str); 2] = [
    (
        "shelf: {value: event.shelf, type: string}",
        "brand: {value: event.brand.name, type: string, facet: true}",
    ),
    ("shelf: event.shelf", "brand: event.brand.name"),
];

/// Reads a definition in v1's mapping or v2's.
pub(super) fn definition(text: &str, version: u32) -> anyhow::Result<ViewDefinition> {
    let changes = if version == 1 { &[][..] } else { &CHANGES[..] };
    let text = changes
        .iter()
        .fold(text.to_owned(), |text, (old, new)| text.replace(old, new));
    let parsed = parse("the demo's view", &text)?;
    parsed
        .into_iter()
        .next()
        .context("the demo's view is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_views_have_two_mappings() {
        for text in [SEARCH, CACHE] {
            let fields = |version| -> Vec<String> {
                let definition = definition(text, version).expect("a definition");
                definition
                    .document
                    .iter()
                    .map(|field| field.name.clone())
                    .collect()
            };
            assert_eq!(fields(1), ["title", "price", "shelf", "revision"]);
            assert_eq!(fields(2), ["title", "price", "brand", "revision"]);
        }
    }
}
