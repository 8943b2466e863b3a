//! Endpoints and identities of two policies in one map. Pure.
//!
//! The longest prefix wins whichever side it was made for, so each entry has a word for both: what the longest prefix of that side's
//! own policy says of it. So nothing that one policy adds hides anything of the other.

use std::collections::{BTreeSet, HashMap};

use breaker_common::abi::{Endpoint, IdentityKey, TargetWords};

/// An endpoint: key, bits of it that count, and whose it is on each side.
pub type Entry = (Endpoint, u32, TargetWords);

/// A key whose bits beyond its length are 0.
pub type Masked = ([u8; size_of::<Endpoint>()], u32);

/// The key as the map compares it.
pub fn masked(endpoint: &Endpoint, bits: u32) -> Masked {
    let mut bytes: [u8; size_of::<Endpoint>()] = bytemuck::cast(*endpoint);
    for (at, byte) in bytes.iter_mut().enumerate() {
        let kept = bits.saturating_sub(at as u32 * 8).min(8);
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
    /// From entries.
    pub fn of(entries: impl IntoIterator<Item = (Endpoint, u32, T)>) -> Self {
        let mut made = Self { entries: HashMap::new(), lengths: BTreeSet::new() };
        entries.into_iter().for_each(|(endpoint, bits, value)| made.insert(&endpoint, bits, value));
        made
    }

    fn insert(&mut self, endpoint: &Endpoint, bits: u32, value: T) {
        self.entries.insert(masked(endpoint, bits), value);
        self.lengths.insert(bits);
    }

    /// The value of the longest prefix of so many bits of an endpoint, at most.
    pub fn get(&self, endpoint: &Endpoint, bits: u32) -> Option<T> {
        // Port and local address count whole: nothing shorter is a prefix.
        self.lengths
            .range(..=bits)
            .rev()
            .find_map(|&length| self.entries.get(&masked(endpoint, length)).copied())
    }

    /// What the kernel program finds: at the local address, and else at any.
    pub fn whose(&self, endpoint: &Endpoint, bits: u32, word: impl Fn(T) -> u32) -> u32 {
        let at = |endpoint: &Endpoint| self.get(endpoint, bits).map_or(0, &word);
        match at(endpoint) {
            0 => at(&Endpoint { local: [0; 4], ..*endpoint }),
            word => word,
        }
    }
}

/// What the map must hold so that `side` is the new policy and the other one stays what it is. Entries that say what a shorter one says
/// are left out.
pub fn merged(known: &[Entry], new: &[(Endpoint, u32, u32)], side: usize) -> Vec<Entry> {
    let before = Trie::of(known.iter().map(|(endpoint, bits, place)| (*endpoint, *bits, place[1 - side])));
    let after = Trie::of(new.iter().copied());
    let keys = known
        .iter()
        .map(|(endpoint, bits, _)| (*endpoint, *bits))
        .chain(new.iter().map(|(e, bits, _)| (*e, *bits)));
    let mut keys: Vec<_> = keys.collect();
    keys.sort_by_key(|(endpoint, bits)| (*bits, masked(endpoint, *bits).0));
    keys.dedup_by_key(|(endpoint, bits)| masked(endpoint, *bits));
    let mut made = Trie::default();
    let mut merged = Vec::new();
    for (endpoint, bits) in keys {
        let mut place = TargetWords::default();
        place[side] = after.get(&endpoint, bits).unwrap_or(0);
        place[1 - side] = before.get(&endpoint, bits).unwrap_or(0);
        if made.get(&endpoint, bits).unwrap_or_default() != place {
            made.insert(&endpoint, bits, place);
            merged.push((endpoint, bits, place));
        }
    }
    merged
}

/// Entries of `after` that `before` does not have so, and those of `before` that `after` does not have at all.
pub fn changes(before: &[Entry], after: &[Entry]) -> (Vec<Entry>, Vec<(Endpoint, u32)>) {
    let index = |entries: &[Entry]| -> HashMap<Masked, TargetWords> {
        entries.iter().map(|(endpoint, bits, place)| (masked(endpoint, *bits), *place)).collect()
    };
    let (old, new) = (index(before), index(after));
    let put = after.iter().filter(|(endpoint, bits, place)| old.get(&masked(endpoint, *bits)) != Some(place));
    let gone = before.iter().filter(|(endpoint, bits, _)| !new.contains_key(&masked(endpoint, *bits)));
    (put.copied().collect(), gone.map(|(endpoint, bits, _)| (*endpoint, *bits)).collect())
}

/// The same of the sessions at shared places: what to put, and what to remove.
pub fn identities(
    known: &[(IdentityKey, TargetWords)],
    new: &[(IdentityKey, u32)],
    side: usize,
) -> (Vec<(IdentityKey, TargetWords)>, Vec<IdentityKey>) {
    let key = |key: &IdentityKey| (key.endpoint, key.comp_ids);
    let wanted: HashMap<_, _> = new.iter().map(|(found, session)| (key(found), *session)).collect();
    let had: HashMap<_, _> = known.iter().map(|(found, place)| (key(found), *place)).collect();
    let (mut put, mut gone) = (Vec::new(), Vec::new());
    for (found, place) in known {
        let mut now = *place;
        now[side] = wanted.get(&key(found)).copied().unwrap_or(0);
        if now == TargetWords::default() {
            gone.push(*found);
        } else if now != *place {
            put.push((*found, now));
        }
    }
    for (found, session) in new.iter().filter(|(found, _)| !had.contains_key(&key(found))) {
        let mut now = TargetWords::default();
        now[side] = *session;
        put.push((*found, now));
    }
    (put, gone)
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

    /// What each side finds, however the other has cut the addresses.
    fn found(entries: &[Entry], remote: [u8; 4], local: u32, side: usize) -> u32 {
        Trie::of(entries.iter().copied()).whose(&at(remote, 32, local).0, Endpoint::BITS, |place| place[side])
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
                        Trie::of(policy.iter().copied()).whose(
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
            // Every state in between is one in which the side in force is whole.
            let (put, gone) = changes(&known, &merged);
            let mut between = known.clone();
            for (endpoint, bits, place) in put {
                between.retain(|(e, b, _)| masked(e, *b) != masked(&endpoint, bits));
                between.push((endpoint, bits, place));
                remotes.iter().for_each(|remote| {
                    assert_eq!(found(&between, *remote, 5, side), found(&known, *remote, 5, side))
                });
            }
            for (endpoint, bits) in gone {
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
    fn identities_keep_the_side_in_force_and_forget_what_nobody_has() {
        let key = |place| IdentityKey { endpoint: place, comp_ids: [2, 0, 0, 0] };
        let known = [(key(0), [1, 0]), (key(1), [2, 2]), (key(2), [0, 3])];
        let (put, gone) = identities(&known, &[(key(1), 7), (key(5), 8)], 1);
        assert_eq!(put, [(key(1), [2, 7]), (key(5), [0, 8])]);
        assert_eq!(gone, [key(2)]);
    }
}
