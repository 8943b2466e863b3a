//! Lets the kernel program see whether a packet's pages are shared with whoever may still change them (`sendfile`, `splice`, MSG_ZEROCOPY):
//! the bytes that the program reads are then not those that leave.
//!
//! The kernel tells by a flag of `struct skb_shared_info`, which a program reaches by two functions of Linux 6.2
//! (`bpf_cast_to_kern_ctx`, `bpf_rdonly_cast`, kernel/bpf/helpers.c). Their numbers and the offsets of the fields are those of the running
//! kernel: they are written into the object's instructions, where the program has marks (`breaker-ebpf/src/pages.rs`). Where a kernel has
//! not got them, the program is told that nothing is known.

use breaker_common::abi::relocation;

/// Where the kernel describes its own types (kernel `Documentation/bpf/btf.rst`).
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the program must know of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    cast: u32,
    read: u32,
    info: u32,
    end: u16,
    head: u16,
    flags: u16,
}

/// The object for the running kernel, and whether it sees shared pages there.
pub fn fit(object: &[u8]) -> (Vec<u8>, bool) {
    let known = std::fs::read(BTF).ok().and_then(|types| known(&types));
    (fitted(object, known), known.is_some())
}

/// An instruction (kernel `uapi/linux/bpf.h`, `struct bpf_insn`).
fn instruction(code: u8, registers: u8, offset: u16, constant: u32) -> [u8; 8] {
    let ([o0, o1], [c0, c1, c2, c3]) = (offset.to_le_bytes(), constant.to_le_bytes());
    [code, registers, o0, o1, c0, c1, c2, c3]
}

fn fitted(object: &[u8], known: Option<Known>) -> Vec<u8> {
    const CALL: u8 = 0x85;
    /// `r = constant`.
    const SET: u8 = 0xb7;
    const WORD: u8 = 0x61;
    const POINTER: u8 = 0x79;
    const BYTE: u8 = 0x71;
    /// The source register of a call of a kernel function.
    const KERNEL_FUNCTION: u8 = 0x20;
    let nothing = instruction(SET, 0, 0, 0);
    let call = |number: fn(&Known) -> u32| {
        known.map_or(nothing, |known| instruction(CALL, KERNEL_FUNCTION, 0, number(&known)))
    };
    let load = |code, registers, offset: fn(&Known) -> u16| {
        known.map_or(nothing, |known| instruction(code, registers, offset(&known), 0))
    };
    let replacements = [
        (instruction(CALL, 0, 0, relocation::CAST), call(|known| known.cast)),
        (instruction(CALL, 0, 0, relocation::READ), call(|known| known.read)),
        (
            instruction(SET, 0x02, 0, relocation::INFO),
            known.map_or(nothing, |known| instruction(SET, 0x02, 0, known.info)),
        ),
        (instruction(WORD, 0x01, relocation::END, 0), load(WORD, 0x01, |known| known.end)),
        (instruction(POINTER, 0x02, relocation::HEAD, 0), load(POINTER, 0x02, |known| known.head)),
        (instruction(BYTE, 0x00, relocation::FLAGS, 0), load(BYTE, 0x00, |known| known.flags)),
    ];
    let mut fitted = object.to_vec();
    let mut at = 0;
    while let Some(here) = fitted.get_mut(at..at + 8) {
        match replacements.iter().find(|(mark, _)| here == mark) {
            Some((_, replacement)) => {
                here.copy_from_slice(replacement);
                at += 8;
            }
            None => at += 1,
        }
    }
    fitted
}

/// What the types of a kernel tell, where they have all of it.
fn known(types: &[u8]) -> Option<Known> {
    const STRUCT: u32 = 4;
    const FUNC: u32 = 12;
    let types = Types::of(types)?;
    let (mut cast, mut read, mut info, mut buffer) = (None, None, None, None);
    types.each(|number, kind, name, members| match (kind, name) {
        (FUNC, b"bpf_cast_to_kern_ctx") => cast = Some(number),
        (FUNC, b"bpf_rdonly_cast") => read = Some(number),
        (STRUCT, b"skb_shared_info") => info = types.offset(members, b"flags").map(|offset| (number, offset)),
        (STRUCT, b"sk_buff") => {
            buffer = types.offset(members, b"end").zip(types.offset(members, b"head")).or(buffer);
        }
        _ => {}
    })?;
    let ((info, flags), (end, head)) = (info?, buffer?);
    Some(Known { cast: cast?, read: read?, info, end, head, flags })
}

/// A kernel's types and their names.
struct Types<'a> {
    types: &'a [u8],
    names: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl<'a> Types<'a> {
    /// Bytes of what every type begins with, and of a member of a struct.
    const TYPE: usize = 12;
    const MEMBER: usize = 12;

    fn of(bytes: &'a [u8]) -> Option<Self> {
        let [header, types, types_length, names, names_length] =
            [4, 8, 12, 16, 20].map(|at| word(bytes, at).map(|word| word as usize));
        let part = |offset: usize, length: usize| bytes.get(header? + offset..)?.get(..length);
        Some(Self { types: part(types?, types_length?)?, names: part(names?, names_length?)? })
    }

    fn name(&self, at: u32) -> &'a [u8] {
        self.names
            .get(at as usize..)
            .and_then(|rest| rest.split(|byte| *byte == 0).next())
            .unwrap_or_default()
    }

    /// Shows each type: its number, kind, name, and what follows on its beginning. `None` where one is not known.
    fn each(&self, mut show: impl FnMut(u32, u32, &[u8], &'a [u8])) -> Option<()> {
        let (mut at, mut number) = (0, 1);
        while at < self.types.len() {
            let [name, facts] = [word(self.types, at)?, word(self.types, at + 4)?];
            let (kind, count) = (facts >> 24 & 0x1f, (facts & 0xffff) as usize);
            let more = match kind {
                1 | 14 | 17 => 4,
                2 | 7..=12 | 16 | 18 => 0,
                3 => 12,
                4 | 5 | 15 | 19 => Self::MEMBER * count,
                6 | 13 => 8 * count,
                _ => return None,
            };
            let rest = self.types.get(at + Self::TYPE..)?.get(..more)?;
            show(number, kind, self.name(name), rest);
            at += Self::TYPE + more;
            number += 1;
        }
        Some(())
    }

    /// Offset of a member of a struct, bytes.
    fn offset(&self, members: &[u8], name: &[u8]) -> Option<u16> {
        let member = members
            .chunks_exact(Self::MEMBER)
            .find(|member| word(member, 0).is_some_and(|at| self.name(at) == name))?;
        // The lower 24 bits, where the struct has bit fields (`BTF_MEMBER_BIT_OFFSET`).
        u16::try_from((word(member, 8)? & 0xff_ffff) / 8).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_what_the_program_must_know() {
        // Without BTF there is nothing to test: such a kernel cannot load the program's maps either.
        let Ok(types) = std::fs::read(BTF) else { return };
        let found = known(&types).expect("Linux 6.2 and newer has it");
        assert!(found.cast != found.read && found.head != found.end && found.end > 64, "{found:?}");
        assert_eq!(known(&types[..types.len() / 2]), None, "what is cut off tells nothing");
        assert_eq!(known(b""), None);
    }

    #[test]
    fn each_mark_of_the_object_is_replaced_once() {
        let object = crate::kernel::load::OBJECT;
        let marked = |bytes: &[u8]| {
            let mark = relocation::CAST.to_le_bytes();
            bytes.windows(4).filter(|window| *window == mark).count()
        };
        let known = Known { cast: 1, read: 2, info: 3, end: 4, head: 5, flags: 6 };
        assert!(marked(object) > 0, "the program has the mark");
        for found in [None, Some(known)] {
            let fitted = fitted(object, found);
            assert_eq!((fitted.len(), marked(&fitted)), (object.len(), 0), "{found:?}");
            let changed = object.chunks(8).zip(fitted.chunks(8)).filter(|(old, new)| old != new).count();
            assert_eq!(changed, 6 * marked(object), "{found:?}");
        }
    }
}
