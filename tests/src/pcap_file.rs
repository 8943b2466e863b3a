//! Captures of crafted frames, written as pcap.

use std::net::SocketAddr;

use crate::frame::Frame;

/// A pcap file with times in nanoseconds.
pub struct PcapFile {
    bytes: Vec<u8>,
}

impl Default for PcapFile {
    fn default() -> Self {
        const NANOSECONDS: u32 = 0xa1b2_3c4d;
        const VERSION: u32 = 0x0004_0002;
        const ETHERNET: u32 = 1;
        let header = [NANOSECONDS, VERSION, 0, 0, 1 << 18, ETHERNET];
        Self { bytes: header.map(u32::to_le_bytes).concat() }
    }
}

impl PcapFile {
    /// Adds a frame at a time in ns since 1970.
    pub fn frame(&mut self, at_ns: u64, frame: &[u8]) {
        let length = frame.len() as u32;
        let (seconds, ns) = ((at_ns / 1_000_000_000) as u32, (at_ns % 1_000_000_000) as u32);
        self.bytes.extend([seconds, ns, length, length].map(u32::to_le_bytes).concat());
        self.bytes.extend(frame);
    }

    /// Removes what was added and the header, after the caller has written both.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Returns the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The sending end of a connection in a capture.
pub struct Sender {
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
}

impl Sender {
    /// Opens a connection.
    pub fn open(file: &mut PcapFile, at_ns: u64, from: SocketAddr, to: SocketAddr) -> Self {
        const SYN: u8 = 2;
        // The clock of RFC 9293, section 3.4.1.
        let isn = (at_ns / 4_000) as u32;
        file.frame(at_ns, &Frame::new(from, to, isn, &[]).with_flags(SYN).bytes());
        Self { from, to, seq: isn.wrapping_add(1) }
    }

    /// Sends a segment.
    pub fn send(&mut self, file: &mut PcapFile, at_ns: u64, payload: &[u8]) {
        file.frame(at_ns, &Frame::new(self.from, self.to, self.seq, payload).bytes());
        self.seq = self.seq.wrapping_add(payload.len() as u32);
    }
}
