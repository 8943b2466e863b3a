//! META: the facts of a load and the number of its layout, which is compared before any other map is opened.
//! Also reads the names of scopes.

use anyhow::{Context, Result, anyhow};
use aya::maps::{MapData, MapType};
use breaker_common::abi::{ABI_VERSION, Label, MAGIC, Meta, SIDES, label};

use super::memory::Mapped;
use super::pins::PinRoot;
use super::text::trim_padding;
use crate::cli_error::{self, CliError, Code};
use crate::config::{Name, ScopeLabel, Scopes};

/// Reads the facts of a load. Refuses another layout.
pub fn read(root: &PinRoot) -> Result<Meta> {
    let path = root.map("META");
    let data = MapData::from_pin(&path).map_err(|error| {
        let error = anyhow!(error).context(format!("opening {}", path.display()));
        if cli_error::is_denied(&error) {
            return error;
        }
        // An unload may have removed it meanwhile.
        if let Err(not_loaded) = root.require() {
            return not_loaded;
        }
        let text = format!(
            "adopting {}: {error:#}: what is pinned there is not breaker's: choose another --pin-root",
            root.path().display()
        );
        CliError::new(Code::Mismatch, text).into()
    })?;
    // A META of this shape is mapped once, because a trip waits for it. Of another shape only the first words
    // are known.
    let (head, meta) = if has_own_shape(&data) {
        let meta = Mapped::<Meta>::from_map(data).ok().and_then(|map| map.get(0));
        (meta.map(|meta| (meta.magic, meta.abi)), meta)
    } else {
        (head(data), None)
    };
    match (head, meta) {
        (Some((MAGIC, ABI_VERSION)), Some(meta)) => Ok(meta),
        (Some((MAGIC, ABI_VERSION)), None) => Err(mismatch(root, "a META of another shape".to_owned())),
        (Some((MAGIC, found)), _) => Err(mismatch(root, format!("layout {found}"))),
        _ => Err(mismatch(root, "no layout of breaker".to_owned())),
    }
}

/// Returns true if a map has the shape of this program's META.
fn has_own_shape(data: &MapData) -> bool {
    data.info().is_ok_and(|info| {
        let shape = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
        matches!(info.map_type(), Ok(MapType::Array)) && shape == (4, size_of::<Meta>(), 1)
    })
}

/// Reads the magic and the number of the layout, which are at the same offsets in every version.
fn head(meta: MapData) -> Option<(u64, u32)> {
    let info = meta.info().ok()?;
    let fits = info.value_size() >= 16 && info.value_size().is_multiple_of(8) && info.max_entries() == 1;
    let words = fits.then(|| Mapped::<[u64; 2]>::from_map(meta).ok()?.get(0)).flatten()?;
    Some((words[0], words[1] as u32))
}

/// The error for pins of another layout.
pub fn mismatch(root: &PinRoot, found: String) -> anyhow::Error {
    let text = format!(
        "adopting {}: it has {found}, where breaker {} has layout {ABI_VERSION}: unload it with the version \
         that loaded it",
        root.path().display(),
        crate::VERSION
    );
    CliError::new(Code::Mismatch, text).into()
}

/// The error for pins of this layout with values that no load writes.
pub fn damaged(root: &PinRoot, found: &str) -> anyhow::Error {
    let path = root.path().display();
    let text = format!(
        "adopting {path}: its maps are damaged: {found}: `rm -r {path}` detaches it, then load again"
    );
    CliError::new(Code::Mismatch, text).into()
}

/// Reads the names of the wanted scopes, and of their sessions.
pub fn names(
    root: &PinRoot,
    meta: &Meta,
    labels: &Mapped<Label>,
    wanted: impl Fn(u32) -> bool,
) -> Result<Scopes> {
    let side = meta.side as usize & (SIDES - 1);
    let read = |number: u32| -> Result<Option<ScopeLabel>> {
        let found = labels.get(number).with_context(|| format!("scope {number} has no name"))?;
        if !wanted(number) {
            return Ok(None);
        }
        let text = trim_padding(&found.name);
        let name = || text.parse().map_err(|_| mismatch(root, format!("a scope named {text:?}")));
        Ok(match found.kind {
            label::HOST => Some(ScopeLabel::Host),
            label::GROUP => Some(ScopeLabel::Group(name()?)),
            // The map has room for no more sessions than scopes.
            label::SESSION if found.session >= labels.len() => {
                return Err(damaged(
                    root,
                    &format!("session number {} where there is room for {}", found.session, labels.len()),
                ));
            }
            label::SESSION if found.session == 0 => Some(ScopeLabel::Session(0, Name::undeclared())),
            label::SESSION => Some(ScopeLabel::Session(found.session, name()?)),
            _ => None,
        })
    };
    let labels = (0..meta.policies[side].scopes).map(read).collect::<Result<Vec<_>>>()?;
    Ok(Scopes::labelled(labels.into_iter()))
}
