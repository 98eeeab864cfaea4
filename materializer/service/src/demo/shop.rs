//! The demo's shop: an endless, deterministic stream of events from a seed.
//!
//! Products are created, changed, hidden, discontinued (a tombstone) and made again. What a product looks
//! like at one of its revisions is a pure function of seed, key and revision, so that any document
//! that a reader is shown can be checked field by field.

use serde_json::json;

/// How many events a product has on average in the beginning.
const EVENTS_PER_KEY: u64 = 20;

const QUALITIES: [&str; 8] = [
    "red", "light", "warm", "narrow", "soft", "late", "plain", "new",
];
const STUFFS: [&str; 6] = ["canvas", "leather", "felt", "cork", "linen", "rubber"];
const THINGS: [&str; 5] = ["shoe", "boot", "sandal", "slipper", "sneaker"];
const BRANDS: [&str; 5] = ["Acme", "Borealis", "Cobbler & Co", "Delta", "Ünique"];

/// Where a product stands after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Everybody sees it.
    Listed,
    /// Its last record says `hidden`.
    Hidden,
    /// Its last record is a tombstone.
    Gone,
}

/// One event of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The product, from 0.
    pub(super) product: usize,
    /// Which event of this product it is, from 1.
    pub(super) revision: u64,
    /// Where the product stands after it.
    pub(super) standing: Standing,
}

/// What a product looks like at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) title: String,
    pub(super) price: u64,
    pub(super) shelf: String,
    pub(super) brand: &'static str,
}

/// A small generator of random numbers (splitmix64): the same seed, the same shop.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `sides`, which is not 0.
    pub(super) fn below(&mut self, sides: usize) -> usize {
        let sides = u64::try_from(sides).unwrap_or(u64::MAX);
        usize::try_from(self.roll() % sides).expect("it is below a usize")
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// The shop.
pub(super) struct Shop {
    seed: u64,
    dice: Dice,
    /// Each product's last revision and where it stands.
    products: Vec<(u64, Standing)>,
    /// The next product that was never created.
    unborn: usize,
}

impl Shop {
    /// Opens a shop with as many products as `events` events need.
    pub(super) fn open(seed: u64, events: u64) -> Self {
        let products = (events / EVENTS_PER_KEY).clamp(100, 1_000_000);
        let products = usize::try_from(products).expect("clamped to a million");
        Self {
            seed,
            dice: Dice::new(seed),
            products: vec![(0, Standing::Gone); products],
            unborn: 0,
        }
    }

    /// Returns how many products there ever are.
    pub(super) fn products(&self) -> usize {
        self.products.len()
    }

    /// Makes the next event happen.
    pub(super) fn next(&mut self) -> Event {
        let product = if self.unborn < self.products.len() {
            self.unborn += 1;
            self.unborn - 1
        } else {
            self.dice.below(self.products.len())
        };
        let roll = self.dice.below(100);
        let (revision, standing) = &mut self.products[product];
        *revision += 1;
        *standing = match *standing {
            Standing::Gone => Standing::Listed,
            Standing::Hidden if roll < 70 => Standing::Listed,
            Standing::Listed if roll < 85 => Standing::Listed,
            Standing::Listed if roll < 93 => Standing::Hidden,
            Standing::Hidden | Standing::Listed => Standing::Gone,
        };
        Event {
            product,
            revision: *revision,
            standing: *standing,
        }
    }

    /// Returns the record's value; `None` is a tombstone.
    pub(super) fn value(&self, event: Event) -> Option<Vec<u8>> {
        let Look {
            title,
            price,
            shelf,
            brand,
        } = look(self.seed, event.product, event.revision);
        let hidden = match event.standing {
            Standing::Listed => false,
            Standing::Hidden => true,
            Standing::Gone => return None,
        };
        let value = json!({
            "kind": "product", "title": title, "price": price, "shelf": shelf,
            "brand": {"name": brand, "country": "SE"}, "hidden": hidden, "revision": event.revision,
        });
        Some(value.to_string().into_bytes())
    }
}

/// Returns a product's key.
pub(super) fn key(product: usize) -> String {
    format!("p{product:06}")
}

/// Returns the product of a key, `None` where no product has it.
pub(super) fn product(key: &str) -> Option<usize> {
    key.strip_prefix('p')?.parse().ok()
}

/// Returns what a product looks like at a revision.
pub(super) fn look(seed: u64, product: usize, revision: u64) -> Look {
    let product = u64::try_from(product).unwrap_or(u64::MAX);
    let mut dice = Dice::new(seed ^ product.rotate_left(40) ^ revision.rotate_left(20));
    let title = format!(
        "{} {} {} no {revision}",
        dice.pick(&QUALITIES),
        dice.pick(&STUFFS),
        dice.pick(&THINGS)
    );
    Look {
        title,
        price: 500 + dice.roll() % 20_000,
        shelf: format!("{}-{}", dice.below(40), dice.below(1000)),
        brand: dice.pick(&BRANDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_shop_and_every_kind_of_event() {
        let events = |seed| {
            let mut shop = Shop::open(seed, 4_000);
            (0..4_000).map(|_| shop.next()).collect::<Vec<_>>()
        };
        let all = events(7);
        assert_eq!(all, events(7));
        assert_ne!(all, events(8));
        for standing in [Standing::Listed, Standing::Hidden, Standing::Gone] {
            assert!(
                all.iter().any(|event| event.standing == standing),
                "{standing:?}"
            );
        }
        let made_again = all.iter().any(|event| {
            let gone = Event {
                revision: event.revision - 1,
                standing: Standing::Gone,
                ..*event
            };
            event.standing == Standing::Listed && all.contains(&gone)
        });
        assert!(made_again);
    }

    #[test]
    fn a_key_names_its_product() {
        for at in [0, 42, 1_234_567] {
            assert_eq!(product(&key(at)), Some(at));
        }
        assert_eq!(product("x1"), None);
    }
}
