//! The part of the layout that is equal in every version. Any version of breaker can show and set the
//! switches of any other.
//!
//! - META begins with its magic and the number of its layout.
//! - A value of SCOPES begins with the switch.
//! - A value of LABELS begins with the kind, the number of the session and the name.
//!
//! Sizes are not frozen: a map itself has the size of its values and their count.

use bytemuck::{Pod, Zeroable};

use super::{Label, Meta, Scope, Switch};

/// The beginning of META.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Head {
    /// [`super::MAGIC`].
    pub magic: u64,
    /// The number of the layout.
    pub abi: u32,
    /// Not frozen.
    pub rest: u32,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(offset_of!(Meta, magic) == 0 && offset_of!(Meta, abi) == 8);
    assert!(offset_of!(Scope, switch) == 0 && size_of::<Switch>() == 32);
    assert!(offset_of!(Switch, causes) == 0 && offset_of!(Switch, epoch) == 8);
    assert!(offset_of!(Switch, raised_ns) == 16 && offset_of!(Switch, resets) == 24);
    assert!(offset_of!(Label, kind) == 0 && offset_of!(Label, session) == 4);
    assert!(offset_of!(Label, name) == 8 && size_of::<Label>() == 72);
};
