//! Values by path, out of one walk over a serialised record.
//!
//! The walk is one [`DeserializeSeed`] for every format that has a serde deserializer; what a leaf
//! becomes is the format's choice (JSON: its own text). The whole record is read, so that a broken
//! tail is found, and of a name that is given twice the last counts.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::expression::Step;

/// Raise it when a path may find another value than before.
pub(crate) const REVISION: u32 = 1;

/// What is found at the end of each path.
pub(crate) type Slots<L> = Vec<Option<L>>;

/// Which paths are looked for.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    paths: Vec<Vec<Step>>,
    /// No tree holds a path below another one: `event.brand` and `event.brand.name` are found by
    /// two walks, which hardly any view needs.
    trees: Vec<Tree>,
}

impl Paths {
    /// Returns the slot in which the value at a path will be found.
    pub(crate) fn slot(&mut self, path: &[Step]) -> usize {
        if let Some(slot) = self.paths.iter().position(|known| known == path) {
            return slot;
        }
        let slot = self.paths.len();
        self.paths.push(path.to_vec());
        if !self.trees.iter_mut().any(|tree| tree.add(path, slot)) {
            let mut tree = Tree::default();
            assert!(tree.add(path, slot), "an empty tree takes any path");
            self.trees.push(tree);
        }
        slot
    }

    /// Returns how many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Returns the trees; each is walked once.
    pub(crate) fn trees(&self) -> &[Tree] {
        &self.trees
    }
}

/// Paths by their first step.
#[derive(Debug, Default)]
pub(crate) enum Tree {
    /// Nothing is looked for yet.
    #[default]
    Empty,
    /// The value goes to this slot.
    Leaf(usize),
    /// The value's parts are looked into.
    Branch {
        fields: Vec<(String, Tree)>,
        items: Vec<(usize, Tree)>,
    },
}

impl Tree {
    /// Takes a path in; says no where it is below or above one that is there.
    fn add(&mut self, path: &[Step], slot: usize) -> bool {
        let Some((step, rest)) = path.split_first() else {
            let free = matches!(self, Self::Empty);
            if free {
                *self = Self::Leaf(slot);
            }
            return free;
        };
        if matches!(self, Self::Empty) {
            *self = Self::Branch {
                fields: Vec::new(),
                items: Vec::new(),
            };
        }
        let Self::Branch { fields, items } = self else {
            return false;
        };
        match step {
            Step::Field(name) => below(fields, name, rest, slot),
            Step::Item(at) => below(items, at, rest, slot),
        }
    }

    fn clear<L>(&self, slots: &mut Slots<L>) {
        match self {
            Self::Empty => {}
            Self::Leaf(slot) => slots[*slot] = None,
            Self::Branch { fields, items } => {
                fields.iter().for_each(|(_, tree)| tree.clear(slots));
                items.iter().for_each(|(_, tree)| tree.clear(slots));
            }
        }
    }
}

/// Adds a path to the tree of its first step; a refused one leaves nothing behind.
fn below<K: PartialEq + Clone>(
    children: &mut Vec<(K, Tree)>,
    key: &K,
    rest: &[Step],
    slot: usize,
) -> bool {
    if let Some((_, tree)) = children.iter_mut().find(|(known, _)| known == key) {
        return tree.add(rest, slot);
    }
    let mut tree = Tree::default();
    let added = tree.add(rest, slot);
    children.push((key.clone(), tree));
    added
}

/// Walks one value along one tree.
pub(crate) struct Walk<'t, 's, L> {
    pub(crate) tree: &'t Tree,
    pub(crate) slots: &'s mut Slots<L>,
}

impl<'de, L: Deserialize<'de>> DeserializeSeed<'de> for Walk<'_, '_, L> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.tree {
            Tree::Empty => IgnoredAny::deserialize(from).map(|_| ()),
            Tree::Leaf(slot) => {
                self.slots[*slot] = Some(L::deserialize(from)?);
                Ok(())
            }
            Tree::Branch { fields, items } => {
                // What an earlier duplicate of this value held no longer counts.
                self.tree.clear(self.slots);
                from.deserialize_any(Parts {
                    fields,
                    items,
                    slots: self.slots,
                })
            }
        }
    }
}

struct Parts<'t, 's, L> {
    fields: &'t [(String, Tree)],
    items: &'t [(usize, Tree)],
    slots: &'s mut Slots<L>,
}

/// A value that is not an object or a list has no parts: nothing is found.
macro_rules! no_parts {
    ($($visit:ident: $type:ty),+ $(,)?) => {$(
        fn $visit<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        }
    )+};
}

impl<'de, L: Deserialize<'de>> Visitor<'de> for Parts<'_, '_, L> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    no_parts! {
        visit_bool: bool,
        visit_i64: i64,
        visit_i128: i128,
        visit_u64: u64,
        visit_u128: u128,
        visit_f64: f64,
        visit_str: &str,
        visit_bytes: &[u8],
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let names = Names(self.fields);
        while let Some(found) = map.next_key_seed(&names)? {
            match found {
                Some(tree) => map.next_value_seed(Walk {
                    tree,
                    slots: &mut *self.slots,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for at in 0.. {
            let found = self.items.iter().find(|(wanted, _)| *wanted == at);
            let read = match found {
                Some((_, tree)) => list.next_element_seed(Walk {
                    tree,
                    slots: &mut *self.slots,
                })?,
                None => list.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if read.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// Finds the tree of a name.
struct Names<'t>(&'t [(String, Tree)]);

impl<'de, 't> DeserializeSeed<'de> for &Names<'t> {
    type Value = Option<&'t Tree>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'t> Visitor<'_> for &Names<'t> {
    type Value = Option<&'t Tree>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let found = self.0.iter().find(|(known, _)| known == name);
        Ok(found.map(|(_, tree)| tree))
    }
}
