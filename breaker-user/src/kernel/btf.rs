//! Reads the types of the running kernel in BTF (kernel `Documentation/bpf/btf.rst`).

/// File with the types of the running kernel.
pub const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Kinds of types (kernel `uapi/linux/btf.h`).
pub const STRUCT: u32 = 4;
pub const FUNC: u32 = 12;

/// The types of a kernel and their names.
pub struct Types<'a> {
    types: &'a [u8],
    names: &'a [u8],
}

impl<'a> Types<'a> {
    /// Bytes of `struct btf_type`, and of `struct btf_member`.
    const TYPE: usize = 12;
    const MEMBER: usize = 12;

    /// Reads the header. Returns `None` if the bytes are no BTF.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let [header, types, types_length, names, names_length] =
            [4, 8, 12, 16, 20].map(|offset| word(bytes, offset).map(|word| word as usize));
        let part = |offset: usize, length: usize| bytes.get(header? + offset..)?.get(..length);
        Some(Self { types: part(types?, types_length?)?, names: part(names?, names_length?)? })
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        self.names
            .get(offset as usize..)
            .and_then(|rest| rest.split(|byte| *byte == 0).next())
            .unwrap_or_default()
    }

    /// Calls `visit` for each type: its id, its kind, its name, and the bytes after its `struct btf_type`.
    /// Returns `None` at a kind that is not known.
    pub fn for_each(&self, mut visit: impl FnMut(u32, u32, &[u8], &'a [u8])) -> Option<()> {
        let (mut offset, mut id) = (0, 1);
        while offset < self.types.len() {
            let [name, info] = [word(self.types, offset)?, word(self.types, offset + 4)?];
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let length = match kind {
                1 | 14 | 17 => 4,
                2 | 7..=12 | 16 | 18 => 0,
                3 => 12,
                4 | 5 | 15 | 19 => Self::MEMBER * count,
                6 | 13 => 8 * count,
                _ => return None,
            };
            let rest = self.types.get(offset + Self::TYPE..)?.get(..length)?;
            visit(id, kind, self.name(name), rest);
            offset += Self::TYPE + length;
            id += 1;
        }
        Some(())
    }

    /// Returns the offset of a member of a struct, in bytes.
    pub fn member_offset(&self, members: &[u8], name: &[u8]) -> Option<u16> {
        let member = members
            .chunks_exact(Self::MEMBER)
            .find(|member| word(member, 0).is_some_and(|offset| self.name(offset) == name))?;
        // The lower 24 bits hold the offset in bits; the upper 8 hold the size of a bit field (kernel
        // `BTF_MEMBER_BIT_OFFSET`).
        u16::try_from((word(member, 8)? & 0xff_ffff) / 8).ok()
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}
