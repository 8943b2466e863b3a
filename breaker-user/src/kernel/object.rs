//! The object with the kernel programs, patched for the running kernel.
//!
//! The program must know whether a packet's pages are shared with their owner, who may still change them
//! (`sendfile`, `splice`, MSG_ZEROCOPY). Then the bytes that leave may differ from the bytes that the program
//! reads.
//!
//! A flag of `struct skb_shared_info` shows this. A program reads the flag by two functions of Linux 6.2
//! (`bpf_cast_to_kern_ctx` and `bpf_rdonly_cast`, kernel/bpf/helpers.c). The ids of these functions and the
//! offsets of the fields depend on the running kernel. The object has placeholders for them
//! (`breaker-ebpf/src/shared_pages.rs`), which are replaced here. On a kernel without these functions the
//! program treats the state of the pages as unknown.

use breaker_common::abi::relocation;
use sha2::{Digest, Sha256};

use super::btf::{FUNC, KERNEL_TYPES, STRUCT, Types};

/// The kernel programs, as `cargo xtask build` compiled them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BREAKER_OBJECT"));

/// SHA-256 of the object as it is compiled into this binary.
pub fn sha256() -> [u8; 32] {
    Sha256::digest(OBJECT).into()
}

/// The object for the running kernel.
pub struct KernelObject {
    /// The ELF file.
    pub bytes: Vec<u8>,
    /// The program sees whether a packet's pages are shared.
    pub sees_shared_pages: bool,
}

/// Returns the object for the running kernel.
pub fn for_running_kernel() -> KernelObject {
    let symbols = std::fs::read(KERNEL_TYPES).ok().and_then(|types| KernelSymbols::find(&types));
    KernelObject { bytes: patch(OBJECT, symbols), sees_shared_pages: symbols.is_some() }
}

/// The ids of types and functions, and the offsets of fields, of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KernelSymbols {
    /// Id of `bpf_cast_to_kern_ctx`.
    cast: u32,
    /// Id of `bpf_rdonly_cast`.
    read: u32,
    /// Id of `struct skb_shared_info`.
    info: u32,
    /// Offset of `sk_buff::end`.
    end: u16,
    /// Offset of `sk_buff::head`.
    head: u16,
    /// Offset of `skb_shared_info::flags`.
    flags: u16,
}

impl KernelSymbols {
    /// Finds all of them in the types of a kernel.
    fn find(types: &[u8]) -> Option<Self> {
        let types = Types::parse(types)?;
        let (mut cast, mut read, mut info, mut buffer) = (None, None, None, None);
        types.for_each(|id, kind, name, members| match (kind, name) {
            (FUNC, b"bpf_cast_to_kern_ctx") => cast = Some(id),
            (FUNC, b"bpf_rdonly_cast") => read = Some(id),
            (STRUCT, b"skb_shared_info") => {
                info = types.member_offset(members, b"flags").map(|offset| (id, offset));
            }
            (STRUCT, b"sk_buff") => {
                let ends = types.member_offset(members, b"end").zip(types.member_offset(members, b"head"));
                buffer = ends.or(buffer);
            }
            _ => {}
        })?;
        let ((info, flags), (end, head)) = (info?, buffer?);
        Some(Self { cast: cast?, read: read?, info, end, head, flags })
    }
}

/// Encodes an instruction (kernel `uapi/linux/bpf.h`, `struct bpf_insn`).
pub(super) fn instruction(code: u8, registers: u8, offset: u16, constant: u32) -> [u8; 8] {
    let ([o0, o1], [c0, c1, c2, c3]) = (offset.to_le_bytes(), constant.to_le_bytes());
    [code, registers, o0, o1, c0, c1, c2, c3]
}

/// Replaces the placeholders of an object. Without symbols each one becomes `r0 = 0`.
fn patch(object: &[u8], symbols: Option<KernelSymbols>) -> Vec<u8> {
    let replacements = replacements(symbols);
    let mut patched = object.to_vec();
    let mut offset = 0;
    while let Some(found) = patched.get_mut(offset..offset + 8) {
        match replacements.iter().find(|(placeholder, _)| found == placeholder) {
            Some((_, replacement)) => {
                found.copy_from_slice(replacement);
                offset += 8;
            }
            None => offset += 1,
        }
    }
    patched
}

/// The placeholders and the instructions that replace them.
fn replacements(symbols: Option<KernelSymbols>) -> [([u8; 8], [u8; 8]); 6] {
    const CALL: u8 = 0x85;
    /// `r = constant`.
    const SET: u8 = 0xb7;
    const LOAD_U32: u8 = 0x61;
    const LOAD_U64: u8 = 0x79;
    const LOAD_U8: u8 = 0x71;
    /// Source register of a call of a kernel function (BPF_PSEUDO_KFUNC_CALL).
    const KERNEL_FUNCTION: u8 = 0x20;
    let zero = instruction(SET, 0, 0, 0);
    let call = |id: fn(&KernelSymbols) -> u32| {
        symbols.map_or(zero, |symbols| instruction(CALL, KERNEL_FUNCTION, 0, id(&symbols)))
    };
    let load = |code, registers, offset: fn(&KernelSymbols) -> u16| {
        symbols.map_or(zero, |symbols| instruction(code, registers, offset(&symbols), 0))
    };
    [
        (instruction(CALL, 0, 0, relocation::CAST), call(|symbols| symbols.cast)),
        (instruction(CALL, 0, 0, relocation::READ), call(|symbols| symbols.read)),
        (
            instruction(SET, 0x02, 0, relocation::INFO),
            symbols.map_or(zero, |symbols| instruction(SET, 0x02, 0, symbols.info)),
        ),
        (instruction(LOAD_U32, 0x01, relocation::END, 0), load(LOAD_U32, 0x01, |symbols| symbols.end)),
        (instruction(LOAD_U64, 0x02, relocation::HEAD, 0), load(LOAD_U64, 0x02, |symbols| symbols.head)),
        (instruction(LOAD_U8, 0x00, relocation::FLAGS, 0), load(LOAD_U8, 0x00, |symbols| symbols.flags)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_symbol() {
        // A kernel without BTF cannot load the maps of the program either.
        let Ok(types) = std::fs::read(KERNEL_TYPES) else { return };
        let found = KernelSymbols::find(&types).expect("Linux 6.2 and newer has every symbol");
        assert!(found.cast != found.read && found.head != found.end && found.end > 64, "{found:?}");
        assert_eq!(KernelSymbols::find(&types[..types.len() / 2]), None, "truncated types have no symbols");
        assert_eq!(KernelSymbols::find(b""), None);
    }

    #[test]
    fn each_placeholder_of_the_object_is_replaced_once() {
        let placeholders = |bytes: &[u8]| {
            let placeholder = relocation::CAST.to_le_bytes();
            bytes.windows(4).filter(|window| *window == placeholder).count()
        };
        let symbols = KernelSymbols { cast: 1, read: 2, info: 3, end: 4, head: 5, flags: 6 };
        assert!(placeholders(OBJECT) > 0, "the program has the placeholder");
        for found in [None, Some(symbols)] {
            let patched = patch(OBJECT, found);
            assert_eq!((patched.len(), placeholders(&patched)), (OBJECT.len(), 0), "{found:?}");
            let changed = OBJECT.chunks(8).zip(patched.chunks(8)).filter(|(old, new)| old != new).count();
            assert_eq!(changed, 6 * placeholders(OBJECT), "{found:?}");
        }
    }
}
