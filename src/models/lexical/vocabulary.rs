//! The features that a model knows, found by key.

/// Ascending keys with an index by their leading bits.
///
/// Keys are hashes, so a bucket holds one or two on average; inside a bucket the search halves, so that not even a hostile model file makes it slow.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    keys: Vec<u32>,
    /// `buckets[b]..buckets[b + 1]` are the places of keys whose leading bits are b.
    buckets: Vec<u32>,
    shift: u32,
}

impl Vocabulary {
    /// `keys` ascend strictly.
    pub(super) fn new(keys: Vec<u32>) -> Self {
        debug_assert!(keys.is_sorted_by(|a, b| a < b), "keys ascend");
        let bits = (keys.len().max(2).ilog2() + 1).min(24);
        let shift = 32 - bits;
        let mut buckets = vec![0u32; (1 << bits) + 1];
        for &key in &keys {
            buckets[(key >> shift) as usize + 1] += 1;
        }
        for bucket in 1..buckets.len() {
            buckets[bucket] += buckets[bucket - 1];
        }
        Self {
            keys,
            buckets,
            shift,
        }
    }

    pub(super) fn keys(&self) -> &[u32] {
        &self.keys
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The place of a key among the ascending keys.
    #[inline]
    pub(super) fn find(&self, key: u32) -> Option<u32> {
        let bucket = (key >> self.shift) as usize;
        let (begin, end) = (self.buckets[bucket], self.buckets[bucket + 1]);
        let keys = &self.keys[begin as usize..end as usize];
        if let [only] = keys {
            return (*only == key).then_some(begin);
        }
        keys.binary_search(&key)
            .ok()
            .map(|place| begin + place as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let cases: [&[u32]; 5] = [
            &[],
            &[7],
            &[0, u32::MAX],
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            &[1 << 31, (1 << 31) + 1, u32::MAX - 1],
        ];
        for keys in cases {
            let vocabulary = Vocabulary::new(keys.to_vec());
            for (place, &key) in (0..).zip(keys) {
                assert_eq!(vocabulary.find(key), Some(place));
            }
            for absent in [10, 1 << 30, (1 << 31) + 2, u32::MAX - 2] {
                assert_eq!(vocabulary.find(absent), None);
            }
        }
    }
}
