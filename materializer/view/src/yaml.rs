//! YAML as a tree of nodes that know where they stand.
//!
//! Built from the parser's events and not from a loader's maps, so that a duplicate key is still
//! there to be pointed at. Anchors, aliases and tags are no part of the language.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use crate::faults::{Place, Sheet};

/// More than any definition needs; bounds the recursion.
const DEPTH_MAX: usize = 16;

/// A node and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) at: Place,
    pub(crate) content: Content<'a>,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Content<'a> {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar without quotes.
    Plain(Cow<'a, str>),
    /// A scalar in quotes, or a block of text.
    Quoted(Cow<'a, str>),
    List(Vec<Node<'a>>),
    /// Keys and values in order, duplicates included.
    Map(Vec<(Node<'a>, Node<'a>)>),
    /// A fault that has been told.
    Faulty,
}

impl Node<'_> {
    /// Returns a scalar's text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Plain(text) | Content::Quoted(text) => Some(text),
            Content::Null | Content::List(_) | Content::Map(_) | Content::Faulty => None,
        }
    }

    /// Returns what the node is, in words, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "an empty value",
            Content::Plain(_) | Content::Quoted(_) => "a value",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
            Content::Faulty => "a fault",
        }
    }
}

/// Returns the documents of a text; where the syntax has a fault, those before it.
pub(crate) fn documents<'a>(text: &'a str, sheet: &mut Sheet<'_>) -> Vec<Node<'a>> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        sheet,
        broken: false,
    };
    let mut documents = Vec::new();
    while let Some((event, _)) = builder.next() {
        if matches!(event, Event::DocumentStart(_))
            && let Some(node) = builder.node(0)
            && !builder.broken
        {
            documents.push(node);
        }
    }
    documents
}

struct Builder<'a, 's, 'f> {
    parser: Parser<'a, StrInput<'a>>,
    sheet: &'s mut Sheet<'f>,
    /// The syntax has a fault: what is being built is not whole.
    broken: bool,
}

impl<'a> Builder<'a, '_, '_> {
    fn next(&mut self) -> Option<(Event<'a>, Place)> {
        if self.broken {
            return None;
        }
        match self.parser.next()? {
            Ok((event, span)) => {
                let at = self.place(span);
                Some((event, at))
            }
            Err(error) => {
                let at = Place {
                    line: error.marker().line(),
                    column: error.marker().col(),
                    length: 1,
                };
                self.broken = true;
                let message = format!("not YAML: {}", error.info());
                let help = "put quotes around an expression that holds `: `, ` #`, or brackets within `{…}`";
                self.sheet.helped(at, message, help);
                None
            }
        }
    }

    fn place(&self, span: Span) -> Place {
        let (line, column) = (span.start.line(), span.start.col());
        let rest = Place {
            line,
            column,
            length: usize::MAX,
        };
        let length = if span.end.line() == line {
            span.end.col().saturating_sub(column)
        } else {
            self.sheet.text_at(rest).trim_end().chars().count()
        };
        Place {
            line,
            column,
            length,
        }
    }

    /// Returns the next node; `None` at the end of what holds it, or after a fault of the syntax.
    fn node(&mut self, depth: usize) -> Option<Node<'a>> {
        let (event, at) = self.next()?;
        let content = match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                let help = "put quotes around an expression that begins with `!`";
                self.sheet.helped(at, "a tag has no meaning here", help);
                self.skip(&event);
                Content::Faulty
            }
            Event::Scalar(text, ScalarStyle::Plain, ..) => match text.as_ref() {
                "" | "~" | "null" => Content::Null,
                _ => Content::Plain(text),
            },
            Event::Scalar(text, ..) => Content::Quoted(text),
            Event::SequenceStart(..) | Event::MappingStart(..) if depth == DEPTH_MAX => {
                self.sheet
                    .push(self.sheet.fault(at, "nested deeper than any definition"));
                self.skip(&event);
                Content::Faulty
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while let Some(item) = self.node(depth + 1) {
                    items.push(item);
                }
                Content::List(items)
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                while let Some(key) = self.node(depth + 1) {
                    let Some(value) = self.node(depth + 1) else {
                        break;
                    };
                    entries.push((key, value));
                }
                Content::Map(entries)
            }
            Event::Alias(_) => {
                let help = "write it out";
                self.sheet.helped(at, "an alias has no meaning here", help);
                Content::Faulty
            }
            Event::SequenceEnd
            | Event::MappingEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => return None,
        };
        Some(Node { at, content })
    }

    /// Passes over the rest of what `event` began.
    fn skip(&mut self, event: &Event<'a>) {
        let mut open = usize::from(matches!(
            event,
            Event::SequenceStart(..) | Event::MappingStart(..)
        ));
        while open > 0 {
            let Some((event, _)) = self.next() else {
                return;
            };
            if matches!(event, Event::SequenceStart(..) | Event::MappingStart(..)) {
                open += 1;
            } else if matches!(event, Event::SequenceEnd | Event::MappingEnd) {
                open -= 1;
            }
        }
    }
}
