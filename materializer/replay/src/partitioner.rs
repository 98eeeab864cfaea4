//! The order of a key's records, proved: each record stands in the partition that a known
//! partitioner gives its key, so all records of one key stand in one partition.

use materializer_model::Partition;
use materializer_model::definition::Partitioner;

/// Every known partitioner.
const ALL: [Partitioner; 3] = [Partitioner::Murmur2, Partitioner::Crc32, Partitioner::Fnv1a];

/// Of which era a record of a growing topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It stands where the old count puts its key, which may not have moved.
    Old,
    /// Its key moved here.
    New,
}

/// Why a record of a growing topic has no place in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// No partitioner that is left puts it where it stands.
    Misplaced,
    /// It is old by one that is left, and new by another.
    Undecided,
}

/// The partitioners that fit every record so far. Two that fit all of them agree on every key that
/// was seen, so no key of these can have moved.
///
/// Which of [`ALL`] are left: copied for each record while more than one is, so without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fitting([bool; ALL.len()]);

impl Fitting {
    /// Begins with the declared one; else with those that are left, or with all where none was ruled out.
    pub(crate) fn new(declared: Option<Partitioner>, left: &[Partitioner]) -> Self {
        Self(ALL.map(|one| match (declared, left) {
            (Some(declared), _) => one == declared,
            (None, []) => true,
            (None, left) => left.contains(&one),
        }))
    }

    /// Iterates over those that are left.
    fn iter(self) -> impl Iterator<Item = Partitioner> {
        let all = ALL.into_iter().zip(self.0);
        all.filter_map(|(one, is_left)| is_left.then_some(one))
    }

    /// Rules out those that do not fit.
    fn retain(&mut self, fits: impl Fn(Partitioner) -> bool) {
        for (one, is_left) in ALL.into_iter().zip(&mut self.0) {
            *is_left = *is_left && fits(one);
        }
    }

    /// Takes a record in if a partitioner that is left fits it, and says so. A record that none fits
    /// changes nothing: what was proved is stored, and the record judged by it again.
    pub(crate) fn fits(&mut self, key: &[u8], partition: Partition, partitions: i32) -> bool {
        let fits = |one: Partitioner| partitions == 1 || one.place(key, partitions) == partition;
        let any = self.iter().any(fits);
        if any {
            self.retain(fits);
        }
        any
    }

    /// Takes a record of a growing topic in and says of which era it is. One that has no place changes
    /// nothing.
    pub(crate) fn side(
        &mut self,
        key: &[u8],
        partition: Partition,
        (old, new): (i32, i32),
    ) -> Result<Side, Misfit> {
        let side = |one: Partitioner| {
            let stands = |count| one.place(key, count) == partition;
            let new = stands(new).then_some(Side::New);
            stands(old).then_some(Side::Old).or(new)
        };
        let mut sides = self.iter().filter_map(side);
        let first = sides.next().ok_or(Misfit::Misplaced)?;
        if sides.any(|other| other != first) {
            return Err(Misfit::Undecided);
        }
        self.retain(|one| side(one).is_some());
        Ok(first)
    }

    /// Says whether more than one is left.
    pub(crate) fn is_open(self) -> bool {
        self.iter().count() > 1
    }

    /// Returns the partitioner, once only one is left.
    pub(crate) fn only(self) -> Option<Partitioner> {
        let mut left = self.iter();
        let one = left.next()?;
        left.next().is_none().then_some(one)
    }

    /// Returns those that are left; none where none was ruled out.
    pub(crate) fn left(self) -> Vec<Partitioner> {
        if self.iter().count() == ALL.len() {
            return Vec::new();
        }
        self.iter().collect()
    }
}

/// Where a partitioner puts a key.
pub(crate) trait Place {
    /// Returns the partition of a key.
    fn place(self, key: &[u8], partitions: i32) -> Partition;
}

impl Place for Partitioner {
    fn place(self, key: &[u8], partitions: i32) -> Partition {
        let at = match self {
            // Java masks the sign away.
            Self::Murmur2 => i64::from(murmur2(key) & 0x7fff_ffff) % i64::from(partitions),
            Self::Crc32 => i64::from(crc32(key)) % i64::from(partitions),
            // sarama takes the hash as an `int32` and the remainder's absolute value.
            Self::Fnv1a => (i64::from(fnv1a(key).cast_signed()) % i64::from(partitions)).abs(),
        };
        Partition(i32::try_from(at).expect("a remainder of an i32"))
    }
}

/// Kafka's murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(key.len()).expect("Kafka's keys are below 2 GiB");
    let mut hash = 0x9747_b28c ^ length;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The CRC-32 of zlib, as librdkafka's `consistent` partitioners use it.
fn crc32(key: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32_table();
    !key.iter().fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ TABLE[usize::from(low ^ byte)]
    })
}

const fn crc32_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut value: u32 = 0;
    let mut at = 0;
    while at < 256 {
        let mut crc = value;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
        value += 1;
    }
    table
}

/// FNV-1a of 32 bits.
fn fnv1a(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_those_of_the_clients() {
        // From Kafka's UtilsTest, zlib's and FNV's published vectors.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn only_the_partitioner_of_all_records_is_left() {
        let mut fitting = Fitting::new(None, &[]);
        for n in 0..1_000 {
            let key = format!("key-{n}");
            let at = Partitioner::Crc32.place(key.as_bytes(), 12);
            assert!(fitting.fits(key.as_bytes(), at, 12), "{key}");
        }
        assert_eq!(fitting.left(), [Partitioner::Crc32]);
        let moved = (0..1_000).any(|n| {
            let key = format!("key-{n}");
            let at = Partitioner::Murmur2.place(key.as_bytes(), 12);
            !fitting.fits(key.as_bytes(), at, 12)
        });
        assert!(moved, "another producer's records do not fit");
    }

    #[test]
    fn one_partition_is_always_in_order() {
        let mut fitting = Fitting::new(None, &[]);
        assert!(fitting.fits(b"any", Partition(0), 1));
        assert_eq!(fitting.left(), []);
    }
}
