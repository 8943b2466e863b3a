//! Writes an initramfs archive, in the cpio format "newc".
//!
//! The kernel's `Documentation/driver-api/early-userspace/buffer-format.rst` specifies the format.

/// An archive under construction.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

/// File types and permissions of entries, as in `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const DATA: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;
const SYMLINK: u32 = 0o120_777;

impl Cpio {
    /// Adds a directory. The parent directories must have been added before.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), b"");
    }

    /// Adds an executable file.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, EXECUTABLE, (0, 0), content);
    }

    /// Adds a file that is no program.
    pub fn data(&mut self, path: &str, content: &[u8]) {
        self.entry(path, DATA, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK, (0, 0), target.as_bytes());
    }

    /// Adds a character device with its major and minor number.
    pub fn device(&mut self, path: &str, numbers: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE, numbers, b"");
    }

    /// Adds the trailer and returns the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (size, name_size) = (content.len() as u32, path.len() as u32 + 1);
        // Inode, mode, user, group, links, time, size, two numbers of the device that holds the file, two
        // numbers of this device node, size of the name, checksum.
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
        // The content follows the header of 110 bytes and the name of 5 bytes.
        assert_eq!((at % 4, &text[at + 6..at + 14]), (2, "12345\0\0\0"));
        let device = text.find("dev/console\0").expect("the name");
        assert_eq!(&text[device - 32..device], "00000005000000010000000c00000000");
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}
