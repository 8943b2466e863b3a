//! A hash over the policy in force, as the kernel program reads it from the maps. Each load, reload, upgrade
//! and re-attachment raises the generation. A new hash under the same generation therefore shows a change
//! by another process.

use std::collections::HashSet;

use anyhow::{Context, Result};
use breaker_common::abi::{Label, Meta, SIDES, Scope, Session};
use bytemuck::{Zeroable, bytes_of};
use sha2::{Digest, Sha256};

use super::maps::{self, CompIds, Endpoints, Identities};
use super::memory::Mapped;
use super::pins::PinRoot;

/// The open maps of a policy. They stay readable after their pins are removed.
pub struct PolicyMaps {
    meta: Mapped<Meta>,
    labels: Mapped<Label>,
    scopes: Mapped<Scope>,
    sessions: Mapped<Session>,
    ports: Mapped<u64>,
    endpoints: Endpoints,
    identities: Identities,
    comp_ids: CompIds,
}

/// The generation of a load, and the hash of the policy in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyHash {
    /// [`Meta::generation`].
    pub generation: u64,
    /// SHA-256 over the policy in force.
    pub hash: [u8; 32],
}

impl PolicyMaps {
    /// Opens the maps of a load.
    pub fn open(root: &PinRoot) -> Result<Self> {
        Ok(Self {
            meta: Mapped::open(&root.map("META"))?,
            labels: Mapped::open(&root.map("LABELS"))?,
            scopes: Mapped::open(&root.map("SCOPES"))?,
            sessions: Mapped::open(&root.map("SESSIONS"))?,
            ports: Mapped::open(&root.map("PORTS"))?,
            endpoints: maps::endpoints(root)?,
            identities: maps::identities(root)?,
            comp_ids: maps::comp_ids(root)?,
        })
    }

    /// Hashes the policy in force. Returns `None` if the generation or side changed meanwhile.
    pub fn hash(&self) -> Result<Option<PolicyHash>> {
        let before = self.meta()?;
        let mut hash = Sha256::new();
        hash_meta(&before, &mut hash);
        self.hash_scopes(&before, &mut hash)?;
        let comp_ids = self.hash_sessions(&before, &mut hash)?;
        self.hash_lookup_maps(&before, comp_ids, &mut hash)?;
        let after = self.meta()?;
        let is_consistent = (before.generation, before.side) == (after.generation, after.side);
        let hash = hash.finalize().into();
        Ok(is_consistent.then_some(PolicyHash { generation: before.generation, hash }))
    }

    fn meta(&self) -> Result<Meta> {
        self.meta.get(0).context("META is empty")
    }

    fn hash_scopes(&self, meta: &Meta, hash: &mut Sha256) -> Result<()> {
        let side = side(meta);
        for number in 0..meta.policies[side].scopes {
            let scope = self.scopes.get(number).with_context(|| format!("reading scope {number}"))?;
            let label = self.labels.get(number).with_context(|| format!("reading the name of {number}"))?;
            hash.update(bytes_of(&label));
            hash.update(bytes_of(&scope.rules[side]));
            scope.limits[side].iter().for_each(|limit| hash.update(bytes_of(limit)));
        }
        Ok(())
    }

    /// Hashes the sessions. Returns the numbers of the CompIDs that the sessions require.
    fn hash_sessions(&self, meta: &Meta, hash: &mut Sha256) -> Result<HashSet<u32>> {
        let side = side(meta);
        let mut comp_ids = HashSet::new();
        for number in 0..meta.policies[side].sessions {
            let index = number * SIDES as u32 + side as u32;
            let session = self.sessions.get(index).with_context(|| format!("reading session {number}"))?;
            comp_ids.extend(session.comp_ids);
            // The agent writes this field each day.
            hash.update(bytes_of(&Session { day_epoch: 0, ..session }));
        }
        Ok(comp_ids)
    }

    /// Hashes the maps that assign a packet to its session. A reload adds entries of the next policy to these
    /// maps before it switches sides. The hash excludes these entries.
    fn hash_lookup_maps(&self, meta: &Meta, mut comp_ids: HashSet<u32>, hash: &mut Sha256) -> Result<()> {
        let side = side(meta);
        let mut entries = Vec::new();
        for found in self.endpoints.iter() {
            let (key, words) = found.context("reading map ENDPOINTS")?;
            if words[side] != 0 {
                let endpoint = key.data().0;
                let port = u32::from(u16::from_be(endpoint.port));
                // The kernel program adds ports, so only the ports of the policy are hashed.
                let is_watched = self.ports.get(port >> 6).unwrap_or_default() >> (port & 63) & 1;
                let entry = [key.prefix_len(), words[side], is_watched as u32];
                entries.push([bytes_of(&entry), bytes_of(&endpoint)].concat());
            }
        }
        for found in self.identities.iter() {
            let (key, words) = found.context("reading map IDENTITIES")?;
            if words[side] != 0 {
                comp_ids.extend(key.0.comp_ids);
                entries.push([bytes_of(&key.0), bytes_of(&words[side])].concat());
            }
        }
        for found in self.comp_ids.iter() {
            let (value, number) = found.context("reading map COMP_IDS")?;
            if comp_ids.contains(&number) {
                entries.push([bytes_of(&value), bytes_of(&number)].concat());
            }
        }
        // The kernel lists the entries of a hash map in no defined order.
        entries.sort_unstable();
        entries.iter().for_each(|entry| hash.update(entry));
        Ok(())
    }
}

/// Returns the side in force.
fn side(meta: &Meta) -> usize {
    meta.side as usize & (SIDES - 1)
}

/// Hashes META without the fields that may change within one generation.
fn hash_meta(meta: &Meta, hash: &mut Sha256) {
    let side = side(meta);
    let mut fixed = Meta { audit_seq: 0, audit_hash: [0; 32], hold: 0, unloading: 0, ..*meta };
    fixed.policies[1 - side] = Zeroable::zeroed();
    hash.update(bytes_of(&fixed));
}
