//! Captures: pcap and pcapng, also compressed by gzip, as a stream of packets.

mod buffer;
mod packet;
mod pcap;
mod pcapng;

use std::fmt;
use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;

use buffer::{Buffer, Fill};
use packet::{Block, Located};
use pcap::Pcap;
use pcapng::PcapNg;

pub use packet::{Direction, LinkType, Packet};

/// Where and why a capture broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Offset of the first byte that could not be read, in the uncompressed capture.
    pub offset: u64,
    /// Number of packets before.
    pub packets: u64,
    /// What was found there.
    pub found: String,
}

/// An error at the start of a capture.
#[derive(Debug)]
pub enum OpenError {
    /// The first bytes cannot be read.
    Read(io::Error),
    /// The file is neither pcap nor pcapng. The text says what was found.
    UnknownType(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::UnknownType(found) => f.write_str(found),
        }
    }
}

impl std::error::Error for OpenError {}

enum Format {
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// A capture, read from its start to its end.
pub struct Capture<R> {
    buffer: Buffer<Input<R>>,
    format: Format,
    /// Bytes of the last packet, which are still in the buffer.
    pending: usize,
    located: Option<Located>,
    packets: u64,
    broken: Option<Broken>,
}

/// Largest block, in bytes: 64 times the largest packet of common capture programs.
const MAX_BLOCK: usize = 16 << 20;

/// A file with its first bytes, which were read already.
type Whole<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// The bytes of a capture, decompressed if necessary.
enum Input<R> {
    Plain(Whole<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Whole<R>>>>),
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(from) => from.read(into),
            Self::Gzip(from) => from.read(into),
        }
    }
}

impl<R: Read> Capture<R> {
    /// Opens a capture of any supported type.
    ///
    /// # Errors
    /// The start cannot be read, or is that of another type.
    pub fn open(mut from: R) -> Result<Self, OpenError> {
        const GZIP: [u8; 2] = [0x1f, 0x8b];
        let mut magic = Vec::new();
        from.by_ref().take(2).read_to_end(&mut magic).map_err(OpenError::Read)?;
        let is_gzip = magic == GZIP;
        let whole = io::Cursor::new(magic).chain(from);
        let input = match is_gzip {
            true => Input::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 18, whole)))),
            false => Input::Plain(whole),
        };
        let mut buffer = Buffer::new(input);
        while buffer.bytes().len() < 24 {
            match buffer.fill().map_err(OpenError::Read)? {
                Fill::More => {}
                Fill::End => break,
            }
        }
        let format = if pcapng::starts(buffer.bytes()) {
            Format::PcapNg(PcapNg::default())
        } else {
            let (format, header) = Pcap::open(buffer.bytes()).map_err(OpenError::UnknownType)?;
            buffer.consume(header);
            Format::Pcap(format)
        };
        Ok(Self { buffer, format, pending: 0, located: None, packets: 0, broken: None })
    }

    /// Goes to the next packet. Returns false at the end, also where the capture breaks off.
    pub fn advance(&mut self) -> bool {
        self.buffer.consume(self.pending);
        (self.pending, self.located) = (0, None);
        while self.broken.is_none() {
            let bytes = self.buffer.bytes();
            let block = match &mut self.format {
                Format::Pcap(pcap) => pcap.block(bytes),
                Format::PcapNg(pcapng) => pcapng.block(bytes),
            };
            match block {
                Block::Packet(length, located) => {
                    (self.pending, self.located) = (length, Some(located));
                    self.packets += 1;
                    return true;
                }
                Block::Other(length) => self.buffer.consume(length),
                Block::Incomplete(needed) if needed > MAX_BLOCK => {
                    self.break_off(format!("a record of {needed} bytes"));
                }
                Block::Incomplete(needed) => {
                    if !self.fill(needed) {
                        return false;
                    }
                }
                Block::Damaged(found) => self.break_off(found),
            }
        }
        false
    }

    /// Reads more bytes of a block. Returns false at the end of the capture.
    fn fill(&mut self, needed: usize) -> bool {
        self.buffer.reserve(needed);
        let held = self.buffer.bytes().len();
        match self.buffer.fill() {
            Ok(Fill::More) => return true,
            Ok(Fill::End) if held == 0 => {}
            Ok(Fill::End) => {
                self.break_off(format!("the file ends inside a record, after {held} bytes of it"))
            }
            Err(error) => self.break_off(format!("cannot be read: {error}")),
        }
        false
    }

    fn break_off(&mut self, found: String) {
        self.broken = Some(Broken { offset: self.buffer.offset(), packets: self.packets, found });
    }

    /// Returns the packet that [`Self::advance`] has found.
    #[inline(always)]
    pub fn packet(&self) -> Option<Packet<'_>> {
        let Located { time_ns, link, data, length, direction } = self.located.as_ref()?;
        let data = self.buffer.bytes().get(data.clone())?;
        let length = (*length).max(data.len() as u32);
        Some(Packet { time_ns: *time_ns, link: *link, data, length, direction: *direction })
    }

    /// Returns where the capture broke off, once [`Self::advance`] has returned false.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Returns the number of packets read so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Returns the bytes read so far, uncompressed.
    pub fn offset(&self) -> u64 {
        self.buffer.offset() + self.pending as u64
    }

    /// Returns the name of the format.
    pub fn format(&self) -> &'static str {
        match self.format {
            Format::Pcap(_) => "pcap",
            Format::PcapNg(_) => "pcapng",
        }
    }
}
