//! The views of a scene, as their definitions say them.

use super::Stage;

/// The fields of the first version of `products`.
pub const V1: &str = "title: event.title, price: event.price, rev: event.rev";
/// The fields of the second version, which readers tell from the first.
pub const V2: &str = "title: event.title, price: event.price, brand: event.brand.name, \
    rev: event.rev";
const SEARCHED: &str = "title: {value: event.title, type: text, language: english}, \
    brand: {value: event.brand.name, type: string, facet: true, missing: ''}, \
    price: {value: event.price, type: f64, sort: true}";
const TO_REDIS: &str = "redis: {connection: cache, key: 'product:{key}'}";

impl Stage {
    /// Returns the definition of the search view, with its copies as they are said.
    #[must_use]
    pub fn search_definition(&self, to: &str) -> String {
        self.definition("product-search", SEARCHED, to)
    }

    /// Applies a definition of `products` with certain fields: [`V1`] or [`V2`].
    pub fn apply_version(&self, file: &str, fields: &str) {
        self.define_version(file, fields);
        self.installation.done(&["apply", file]);
    }

    /// Writes a file with a definition of `products` with certain fields: [`V1`] or [`V2`].
    pub fn define_version(&self, file: &str, fields: &str) {
        let text = self.redis_definition(fields);
        self.installation.define(file, &text);
    }

    /// Writes the definition of `product-search` and returns its file.
    #[must_use]
    pub fn define_search(&self) -> String {
        let search = self.search_definition("tantivy: {}");
        self.installation.define("search.yaml", &search)
    }

    /// Returns a definition of `products` with certain fields.
    #[must_use]
    pub fn redis_definition(&self, fields: &str) -> String {
        self.definition("products", fields, TO_REDIS)
    }

    /// Returns a definition of a view of the log.
    #[must_use]
    pub fn definition(&self, view: &str, fields: &str, to: &str) -> String {
        format!(
            "view: {view}\nfrom: {{topics: ['{}']}}\nonly: event.kind == 'product'\n\
             where: event.hidden != true\ndocument: {{{fields}}}\nto: {{{to}}}\n\
             gates: {{lag_seconds: 30, lag_records: 10000, stable_for: 1s}}\n",
            self.installation.topic
        )
    }
}
