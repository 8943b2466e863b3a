//! The archive that a kernel unpacks into its first file system: cpio in the format "newc", as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` has it.

/// An archive that is being put together.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

/// Type and permissions of what an entry is.
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Cpio {
    /// Adds a directory. Those above it must have been added before.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), b"");
    }

    /// Adds a file that can be executed.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, EXECUTABLE, (0, 0), content);
    }

    /// Adds a character device by its numbers.
    pub fn device(&mut self, path: &str, numbers: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE, numbers, b"");
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (size, name_size) = (content.len() as u32, path.len() as u32 + 1);
        // Inode, mode, user, group, links, time, size, device's two numbers, this node's two numbers, name's size, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend(b"070701");
        self.bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_entry_begins_at_a_multiple_of_four() {
        let mut cpio = Cpio::default();
        cpio.directory("dev");
        cpio.device("dev/console", (5, 1));
        cpio.file("init", b"12345");
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("ASCII");
        assert!(text.starts_with("07070100000001000041ed"), "{text:?}");
        let at = text.find("init\0").expect("the name");
        // 110 bytes of header and 5 of name, then the content.
        assert_eq!((at % 4, &text[at + 6..at + 14]), (2, "12345\0\0\0"));
        let device = text.find("dev/console\0").expect("the name");
        assert_eq!(&text[device - 32..device], "00000005000000010000000c00000000");
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}
