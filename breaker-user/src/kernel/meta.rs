//! What a load says of itself: its layout, compared before anything else of it is opened, its facts and its names.

use anyhow::{Context, Result, anyhow};
use aya::maps::MapData;
use breaker_common::abi::{ABI_VERSION, Label, MAGIC, Meta, Rules, SIDES, Scope, label};

use super::memory::Mapped;
use super::pins::PinRoot;
use super::tables::unpadded;
use crate::config::{Name, ScopeLabel, Scopes};
use crate::fault::{self, Code, Fault};

/// The facts of a load, once its layout is known to be ours.
pub fn read(root: &PinRoot) -> Result<Meta> {
    let path = root.map("META");
    let data = MapData::from_pin(&path).map_err(|error| {
        let error = anyhow!(error).context(format!("opening {}", path.display()));
        if fault::is_denied(&error) {
            return error;
        }
        // It may have been unloaded since.
        if let Err(gone) = root.require() {
            return gone;
        }
        let text = format!(
            "adopting {}: {error:#}: what is pinned there is not breaker's: choose another --pin-root",
            root.path().display()
        );
        Fault::new(Code::Mismatch, text).into()
    })?;
    match head(data) {
        Some((MAGIC, ABI_VERSION)) => {}
        Some((MAGIC, found)) => return Err(mismatch(root, format!("layout {found}"))),
        _ => return Err(mismatch(root, "no layout of breaker".to_owned())),
    }
    Mapped::<Meta>::open(&path)?.get(0).context("reading META")
}

/// The first words of a META, which stand where they stand in every version; the rest may not.
fn head(meta: MapData) -> Option<(u64, u32)> {
    let info = meta.info().ok()?;
    let fits = info.value_size() >= 16 && info.value_size().is_multiple_of(8) && info.max_entries() == 1;
    let words = fits.then(|| Mapped::<[u64; 2]>::of(meta).ok()?.get(0)).flatten()?;
    Some((words[0], words[1] as u32))
}

/// What is pinned is of another layout.
pub fn mismatch(root: &PinRoot, found: String) -> anyhow::Error {
    let text = format!(
        "adopting {}: it has {found}, where breaker {} has layout {ABI_VERSION}: unload it with the version that loaded it",
        root.path().display(),
        crate::VERSION
    );
    Fault::new(Code::Mismatch, text).into()
}

/// What the numbers of scopes and sessions stand for in the policy in force.
pub fn names(root: &PinRoot, meta: &Meta, scopes: &Mapped<Scope>) -> Result<Scopes> {
    let side = meta.side as usize & (SIDES - 1);
    let declared = |number| scopes.get(number).is_some_and(|scope| scope.rules[side].positions & Rules::DECLARED != 0);
    labelled(root, meta, declared)
}

/// What they stand for in any policy since the load: events may be older than the one in force.
pub fn all_names(root: &PinRoot, meta: &Meta) -> Result<Scopes> {
    labelled(root, meta, |_| true)
}

fn labelled(root: &PinRoot, meta: &Meta, wanted: impl Fn(u32) -> bool) -> Result<Scopes> {
    let labels = Mapped::<Label>::open(&root.map("LABELS"))?;
    let side = meta.side as usize & (SIDES - 1);
    let read = |number: u32| -> Result<Option<ScopeLabel>> {
        let found = labels.get(number).with_context(|| format!("scope {number} has no name"))?;
        if !wanted(number) {
            return Ok(None);
        }
        let text = unpadded(&found.name);
        let name = || text.parse().map_err(|_| mismatch(root, format!("a scope named {text:?}")));
        Ok(match found.kind {
            label::HOST => Some(ScopeLabel::Host),
            label::GROUP => Some(ScopeLabel::Group(name()?)),
            label::SESSION if found.session == 0 => Some(ScopeLabel::Session(0, Name::undeclared())),
            label::SESSION => Some(ScopeLabel::Session(found.session, name()?)),
            _ => None,
        })
    };
    let labels = (0..meta.policies[side].scopes).map(read).collect::<Result<Vec<_>>>()?;
    Ok(Scopes::labelled(labels.into_iter()))
}
