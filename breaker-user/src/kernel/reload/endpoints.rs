//! Merges the endpoints and identities of two policies into one map each. Pure.
//!
//! In the kernel's trie the longest prefix wins, on whichever side it was declared. So each entry has a word
//! for both sides: the result of a lookup among that side's own entries. No entry of one policy hides an
//! entry of the other.

use std::collections::{BTreeSet, HashMap};

use breaker_common::abi::{Endpoint, IdentityKey, TargetWords};

use crate::kernel::endpoint_lookup;

/// An endpoint: its key, the number of its bits that count, and the target on each side.
pub type Entry = (Endpoint, u32, TargetWords);

/// A key whose bits beyond its length are 0, and its length in bits.
pub type Masked = ([u8; size_of::<Endpoint>()], u32);

/// Returns the key as the map compares it.
pub fn masked(endpoint: &Endpoint, bits: u32) -> Masked {
    let mut bytes: [u8; size_of::<Endpoint>()] = bytemuck::cast(*endpoint);
    for (i, byte) in bytes.iter_mut().enumerate() {
        let kept = bits.saturating_sub(i as u32 * 8).min(8);
        *byte &= !0xffu8.checked_shr(kept).unwrap_or(0);
    }
    (bytes, bits)
}

/// A longest-prefix match in memory.
#[derive(Default)]
pub struct Trie<T> {
    entries: HashMap<Masked, T>,
    lengths: BTreeSet<u32>,
}

impl<T: Copy> Trie<T> {
    /// A trie of these entries: key, length of the prefix in bits, value.
    pub fn new(entries: impl IntoIterator<Item = (Endpoint, u32, T)>) -> Self {
        let mut made = Self { entries: HashMap::new(), lengths: BTreeSet::new() };
        entries.into_iter().for_each(|(endpoint, bits, value)| made.insert(&endpoint, bits, value));
        made
    }

    fn insert(&mut self, endpoint: &Endpoint, bits: u32, value: T) {
        self.entries.insert(masked(endpoint, bits), value);
        self.lengths.insert(bits);
    }

    /// Returns the value of the longest prefix of the first `bits` of an endpoint.
    pub fn get(&self, endpoint: &Endpoint, bits: u32) -> Option<T> {
        self.lengths
            .range(..=bits)
            .rev()
            .find_map(|&length| self.entries.get(&masked(endpoint, length)).copied())
    }

    /// Looks an endpoint up as the kernel program does: with its local address, then with any local address.
    /// Returns 0 for no entry.
    pub fn lookup(&self, endpoint: &Endpoint, bits: u32, word: impl Fn(T) -> u32) -> u32 {
        endpoint_lookup::lookup(endpoint, |endpoint| self.get(endpoint, bits).map_or(0, &word))
    }
}

/// Returns the entries of a map in which `side` is the new policy and the other side is unchanged. Leaves out
/// entries that equal the next shorter one.
pub fn merged(known: &[Entry], new: &[(Endpoint, u32, u32)], side: usize) -> Vec<Entry> {
    let before = Trie::new(known.iter().map(|(endpoint, bits, words)| (*endpoint, *bits, words[1 - side])));
    let after = Trie::new(new.iter().copied());
    let keys = known
        .iter()
        .map(|(endpoint, bits, _)| (*endpoint, *bits))
        .chain(new.iter().map(|(endpoint, bits, _)| (*endpoint, *bits)));
    let mut keys: Vec<_> = keys.collect();
    keys.sort_by_key(|(endpoint, bits)| (*bits, masked(endpoint, *bits).0));
    keys.dedup_by_key(|(endpoint, bits)| masked(endpoint, *bits));
    let mut made = Trie::default();
    let mut merged = Vec::new();
    for (endpoint, bits) in keys {
        let mut words = TargetWords::default();
        words[side] = after.get(&endpoint, bits).unwrap_or(0);
        words[1 - side] = before.get(&endpoint, bits).unwrap_or(0);
        if made.get(&endpoint, bits).unwrap_or_default() != words {
            made.insert(&endpoint, bits, words);
            merged.push((endpoint, bits, words));
        }
    }
    merged
}

/// Returns the entries to put and the keys to remove, so that a map with `before` becomes one with `after`.
pub fn changes(before: &[Entry], after: &[Entry]) -> (Vec<Entry>, Vec<(Endpoint, u32)>) {
    let index = |entries: &[Entry]| -> HashMap<Masked, TargetWords> {
        entries.iter().map(|(endpoint, bits, words)| (masked(endpoint, *bits), *words)).collect()
    };
    let (old, new) = (index(before), index(after));
    let put = after.iter().filter(|(endpoint, bits, words)| old.get(&masked(endpoint, *bits)) != Some(words));
    let removed = before.iter().filter(|(endpoint, bits, _)| !new.contains_key(&masked(endpoint, *bits)));
    (put.copied().collect(), removed.map(|(endpoint, bits, _)| (*endpoint, *bits)).collect())
}

/// Returns the sessions of shared endpoints to put and the keys to remove, so that `side` is the new policy.
pub fn identity_changes(
    known: &[(IdentityKey, TargetWords)],
    new: &[(IdentityKey, u32)],
    side: usize,
) -> (Vec<(IdentityKey, TargetWords)>, Vec<IdentityKey>) {
    let key = |key: &IdentityKey| (key.endpoint, key.comp_ids);
    let wanted: HashMap<_, _> = new.iter().map(|(found, session)| (key(found), *session)).collect();
    let before: HashMap<_, _> = known.iter().map(|(found, words)| (key(found), *words)).collect();
    let (mut put, mut removed) = (Vec::new(), Vec::new());
    for (found, words) in known {
        let mut now = *words;
        now[side] = wanted.get(&key(found)).copied().unwrap_or(0);
        if now == TargetWords::default() {
            removed.push(*found);
        } else if now != *words {
            put.push((*found, now));
        }
    }
    for (found, session) in new.iter().filter(|(found, _)| !before.contains_key(&key(found))) {
        let mut now = TargetWords::default();
        now[side] = *session;
        put.push((*found, now));
    }
    (put, removed)
}

#[cfg(test)]
mod tests {
    use breaker_common::abi::mapped;

    use super::*;

    fn at(remote: [u8; 4], length: u32, local: u32) -> (Endpoint, u32) {
        let remote = mapped(u32::from_ne_bytes(remote));
        let local = if local == 0 { [0; 4] } else { mapped(local) };
        (Endpoint { port: 9001u16.to_be(), pad: 0, local, remote }, Endpoint::FIXED_BITS + 96 + length)
    }

    fn entry((endpoint, bits): (Endpoint, u32), word: u32) -> (Endpoint, u32, u32) {
        (endpoint, bits, word)
    }

    /// The target that a lookup finds for a side, whatever prefixes the other side has.
    fn found(entries: &[Entry], remote: [u8; 4], local: u32, side: usize) -> u32 {
        Trie::new(entries.iter().copied())
            .lookup(&at(remote, 32, local).0, Endpoint::BITS, |words| words[side])
    }

    #[test]
    fn no_prefix_of_one_policy_hides_one_of_the_other() {
        let policies = [
            vec![entry(at([10, 9, 0, 0], 16, 0), 1), entry(at([10, 9, 3, 7], 32, 0), 2)],
            vec![
                entry(at([10, 9, 0, 0], 24, 0), 3),
                entry(at([10, 9, 3, 0], 24, 0), 1),
                entry(at([10, 9, 0, 1], 32, 5), 4),
            ],
            vec![],
            vec![entry(at([0, 0, 0, 0], 0, 0), 9)],
            vec![entry(at([10, 9, 3, 7], 32, 0), 7), entry(at([10, 9, 0, 0], 16, 5), 8)],
        ];
        let remotes =
            [[10, 9, 0, 1], [10, 9, 0, 2], [10, 9, 3, 7], [10, 9, 3, 8], [10, 9, 200, 1], [10, 8, 0, 1]];
        let mut known: Vec<Entry> =
            policies[0].iter().map(|(e, bits, word)| (*e, *bits, [*word, 0])).collect();
        let (mut in_force, mut side) = (&policies[0], 0);
        for round in 1..40 {
            let next = &policies[(round * 7 + round / 5) % policies.len()];
            let merged = merged(&known, next, 1 - side);
            for remote in remotes {
                for local in [0, 5, 6] {
                    let alone = |policy: &[(Endpoint, u32, u32)]| {
                        Trie::new(policy.iter().copied()).lookup(
                            &at(remote, 32, local).0,
                            Endpoint::BITS,
                            |word| word,
                        )
                    };
                    assert_eq!(
                        found(&merged, remote, local, side),
                        alone(in_force),
                        "{remote:?} {local} in force"
                    );
                    assert_eq!(
                        found(&merged, remote, local, 1 - side),
                        alone(next),
                        "{remote:?} {local} next"
                    );
                }
            }
            assert!(merged.len() <= in_force.len() + next.len(), "{}", merged.len());
            // In every state in between, the side in force is unchanged.
            let (put, removed) = changes(&known, &merged);
            let mut between = known.clone();
            for (endpoint, bits, words) in put {
                between.retain(|(e, b, _)| masked(e, *b) != masked(&endpoint, bits));
                between.push((endpoint, bits, words));
                remotes.iter().for_each(|remote| {
                    assert_eq!(found(&between, *remote, 5, side), found(&known, *remote, 5, side))
                });
            }
            for (endpoint, bits) in removed {
                between.retain(|(e, b, _)| masked(e, *b) != masked(&endpoint, bits));
                remotes.iter().for_each(|remote| {
                    assert_eq!(found(&between, *remote, 5, side), found(&known, *remote, 5, side))
                });
            }
            assert_eq!(between.len(), merged.len());
            (known, in_force, side) = (merged, next, 1 - side);
        }
    }

    #[test]
    fn identities_keep_the_side_in_force_and_lose_what_neither_side_has() {
        let key = |endpoint| IdentityKey { endpoint, comp_ids: [2, 0, 0, 0] };
        let known = [(key(0), [1, 0]), (key(1), [2, 2]), (key(2), [0, 3])];
        let (put, removed) = identity_changes(&known, &[(key(1), 7), (key(5), 8)], 1);
        assert_eq!(put, [(key(1), [2, 7]), (key(5), [0, 8])]);
        assert_eq!(removed, [key(2)]);
    }
}
