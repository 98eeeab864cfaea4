//! The tokenizers that a `text` field can name.
//!
//! An index stores a tokenizer's *name* alone and looks it up on every open, so a name must mean the
//! same for ever: each carries a version, and a change of behaviour is a new name beside the old one.

use materializer_model::definition;
use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, RawTokenizer, RemoveLongFilter, SimpleTokenizer,
    Stemmer, StopWordFilter, TextAnalyzer, TokenizerManager, WhitespaceTokenizer,
};

/// Tokens of more bytes than this are no words; they are left out, as in tantivy's own analyzers.
const TOKEN_BYTES_MAX: usize = 40;

/// The stemmer and stop words of each name in [`definition::LANGUAGES`].
const STEMMERS: [(&str, Language); 18] = [
    ("arabic", Language::Arabic),
    ("danish", Language::Danish),
    ("dutch", Language::Dutch),
    ("english", Language::English),
    ("finnish", Language::Finnish),
    ("french", Language::French),
    ("german", Language::German),
    ("greek", Language::Greek),
    ("hungarian", Language::Hungarian),
    ("italian", Language::Italian),
    ("norwegian", Language::Norwegian),
    ("portuguese", Language::Portuguese),
    ("romanian", Language::Romanian),
    ("russian", Language::Russian),
    ("spanish", Language::Spanish),
    ("swedish", Language::Swedish),
    ("tamil", Language::Tamil),
    ("turkish", Language::Turkish),
];

/// Returns the name under which an index stores a language's tokenizer; `None` for an unknown one.
pub(super) fn of_language(language: &str) -> Option<String> {
    let known = definition::LANGUAGES.contains(&language);
    known.then(|| format!("{language}_v1"))
}

/// Returns the name under which an index stores a tokenizer; `None` for an unknown one.
pub(super) fn of_name(tokenizer: &str) -> Option<String> {
    definition::TOKENIZERS
        .contains(&tokenizer)
        .then(|| format!("{tokenizer}_v1"))
}

fn stemmed(language: Language) -> TextAnalyzer {
    let words = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(TOKEN_BYTES_MAX))
        .filter(LowerCaser);
    match StopWordFilter::new(language) {
        Some(stop_words) => words
            .filter(stop_words)
            .filter(Stemmer::new(language))
            .build(),
        None => words.filter(Stemmer::new(language)).build(),
    }
}

/// Returns every tokenizer under its stored name, beside tantivy's own `raw` for `string` fields and
/// `default` for `json` ones.
pub(super) fn manager() -> TokenizerManager {
    let manager = TokenizerManager::default();
    manager.register(
        "default_v1",
        TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(RemoveLongFilter::limit(TOKEN_BYTES_MAX))
            .filter(LowerCaser)
            .build(),
    );
    manager.register(
        "folded_v1",
        TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(RemoveLongFilter::limit(TOKEN_BYTES_MAX))
            .filter(LowerCaser)
            .filter(AsciiFoldingFilter)
            .build(),
    );
    manager.register("whitespace_v1", WhitespaceTokenizer::default());
    manager.register("raw_v1", RawTokenizer::default());
    for (name, language) in STEMMERS {
        manager.register(&format!("{name}_v1"), stemmed(language));
    }
    manager
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expected: &[&str]) {
        let mut analyzer = manager().get(name).expect("a tokenizer");
        let mut tokens = analyzer.token_stream(text);
        let mut found = Vec::new();
        while let Some(token) = tokens.next() {
            found.push(token.text.clone());
        }
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn every_name_of_a_definition_has_a_tokenizer() {
        let languages = definition::LANGUAGES.iter().map(|name| of_language(name));
        let tokenizers = definition::TOKENIZERS.iter().map(|name| of_name(name));
        for name in languages.chain(tokenizers) {
            let name = name.expect("a known name");
            assert!(manager().get(&name).is_some(), "{name}");
        }
        assert_eq!(of_language("klingon"), None);
        assert_eq!(of_name("english"), None);
    }

    /// A change here is another name with a higher number: indices on disks rely on these.
    #[test]
    fn a_name_means_the_same_for_ever() {
        let text = "The Crème-brûlées of 1984";
        check(
            "default_v1",
            text,
            &["the", "crème", "brûlées", "of", "1984"],
        );
        check(
            "folded_v1",
            text,
            &["the", "creme", "brulees", "of", "1984"],
        );
        check(
            "whitespace_v1",
            text,
            &["The", "Crème-brûlées", "of", "1984"],
        );
        check("raw_v1", text, &[text]);
        check("english_v1", "The running shoes", &["run", "shoe"]);
        check("german_v1", "Die roten Schuhe", &["rot", "schuh"]);
        check("default_v1", &"x".repeat(41), &[]);
    }
}
