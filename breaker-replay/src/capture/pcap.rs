//! The format pcap: a header, then a record for each packet.

use pcap_parser::nom::Err;
use pcap_parser::pcap::{parse_pcap_frame, parse_pcap_frame_be};
use pcap_parser::{PcapError, parse_pcap_header};

use super::packet::{Block, Direction, LinkType, Located};

/// A pcap capture behind its header.
pub(super) struct Pcap {
    link: LinkType,
    is_big_endian: bool,
    ns_per_unit: u64,
}

/// Bytes of a record before the packet.
const RECORD: usize = 16;

impl Pcap {
    /// Reads the header. Returns its length too; the error says what was found instead.
    pub(super) fn open(bytes: &[u8]) -> Result<(Self, usize), String> {
        match parse_pcap_header(bytes) {
            Ok((rest, header)) if !header.is_modified_format() => {
                let ns_per_unit = if header.is_nanosecond_precision() { 1 } else { 1_000 };
                // The upper bits say whether frames have checksums, and their length.
                let link = LinkType(header.network.0 & 0xffff);
                Ok((
                    Self { link, is_big_endian: header.is_bigendian(), ns_per_unit },
                    bytes.len() - rest.len(),
                ))
            }
            Ok(_) => Err("the modified pcap of an old libpcap (magic a1b2cd34)".to_owned()),
            Err(_) if bytes.is_empty() => Err("an empty file".to_owned()),
            Err(Err::Incomplete(_)) => Err(format!("only {} bytes", bytes.len())),
            Err(_) => {
                let start: Vec<_> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                Err(format!("a file that starts with the bytes {}", start.join(" ")))
            }
        }
    }

    /// Reads the next record.
    #[inline(always)]
    pub(super) fn block(&mut self, bytes: &[u8]) -> Block {
        let record = if self.is_big_endian { parse_pcap_frame_be(bytes) } else { parse_pcap_frame(bytes) };
        match record {
            Ok((_, record)) => {
                let time_ns = record.ts_sec as u64 * 1_000_000_000 + record.ts_usec as u64 * self.ns_per_unit;
                let end = RECORD + record.caplen as usize;
                let located = Located {
                    time_ns: Some(time_ns),
                    link: self.link,
                    data: RECORD..end,
                    length: record.origlen,
                    direction: Direction::Unknown,
                };
                Block::Packet(end, located)
            }
            Err(error) => self.incomplete(bytes, error),
        }
    }

    fn incomplete(&self, bytes: &[u8], error: Err<PcapError<&[u8]>>) -> Block {
        match (error, bytes.get(8..12).and_then(|length| length.first_chunk())) {
            (Err::Incomplete(_), Some(length)) => {
                let length = if self.is_big_endian {
                    u32::from_be_bytes(*length)
                } else {
                    u32::from_le_bytes(*length)
                };
                Block::Incomplete(RECORD + length as usize)
            }
            (Err::Incomplete(_), None) => Block::Incomplete(RECORD),
            (error, _) => Block::Damaged(format!("a damaged record ({error:?})")),
        }
    }
}
