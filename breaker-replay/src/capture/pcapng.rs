//! The format pcapng: sections of blocks, with an own byte order, interfaces and units of time each.

use pcap_parser::nom::Err;
use pcap_parser::pcapng::{Block as Parsed, EnhancedPacketBlock, SimplePacketBlock};
use pcap_parser::{
    InterfaceDescriptionBlock, OptionCode, parse_block_be, parse_block_le, parse_sectionheaderblock,
};

use super::packet::{Block, Direction, LinkType, Located};

/// Type of a section header, the same in both byte orders.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Bytes of a block without content: its type, and its length twice.
const FRAME: u32 = 12;
/// Bytes of an enhanced packet block before the packet.
const ENHANCED: usize = 28;
/// Bytes of a simple packet block before the packet.
const SIMPLE: usize = 12;
/// Most interfaces of a section.
const MAX_INTERFACES: usize = 65_536;

/// Returns true if a file is pcapng.
pub(super) fn starts(bytes: &[u8]) -> bool {
    bytes.starts_with(&SECTION_HEADER)
}

/// A section of a pcapng capture.
#[derive(Default)]
pub(super) struct PcapNg {
    is_big_endian: bool,
    interfaces: Vec<Interface>,
}

/// A captured interface.
#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    snaplen: u32,
    units_per_second: u64,
    offset_seconds: i64,
}

impl PcapNg {
    /// Reads the next block.
    #[inline(always)]
    pub(super) fn block(&mut self, bytes: &[u8]) -> Block {
        // The parser subtracts this length from that of a block of an unknown type.
        if let Some(length) = self.length(bytes)
            && length < FRAME
        {
            return Block::Damaged(format!("a block of {length} bytes that contradicts itself"));
        }
        let parsed = match (starts(bytes), self.is_big_endian) {
            (true, _) => {
                parse_sectionheaderblock(bytes).map(|(rest, found)| (rest, Parsed::SectionHeader(found)))
            }
            (false, true) => parse_block_be(bytes),
            (false, false) => parse_block_le(bytes),
        };
        let (rest, parsed) = match parsed {
            Ok(found) => found,
            Err(Err::Incomplete(_)) => return self.incomplete(bytes),
            Err(_) => return Block::Damaged("a damaged block".to_owned()),
        };
        let length = bytes.len() - rest.len();
        match parsed {
            Parsed::EnhancedPacket(block) => self.enhanced(&block, length),
            Parsed::SimplePacket(block) => self.simple(&block, length),
            Parsed::InterfaceDescription(block) => self.interface(&block, length),
            Parsed::SectionHeader(section) => {
                (self.is_big_endian, self.interfaces) = (section.big_endian(), Vec::new());
                Block::Other(length)
            }
            _ => Block::Other(length),
        }
    }

    /// A block of which only the start is in memory.
    fn incomplete(&self, bytes: &[u8]) -> Block {
        match self.length(bytes) {
            None => Block::Incomplete(FRAME as usize),
            Some(length) if length as usize <= bytes.len() => {
                Block::Damaged(format!("a block of {length} bytes that contradicts itself"))
            }
            Some(length) => Block::Incomplete(length as usize),
        }
    }

    /// The length that a block states; `None` if more bytes are needed for it.
    fn length(&self, bytes: &[u8]) -> Option<u32> {
        let length = *bytes.get(4..8)?.first_chunk()?;
        // Only the magic behind its length says the byte order of a section.
        let is_big_endian = match starts(bytes) {
            true => bytes.get(8..12)? == [0x1a, 0x2b, 0x3c, 0x4d],
            false => self.is_big_endian,
        };
        Some(if is_big_endian { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) })
    }

    fn interface(&mut self, block: &InterfaceDescriptionBlock<'_>, length: usize) -> Block {
        const BINARY: u8 = 0x80;
        let resolution = block.if_tsresol;
        let units_per_second = match resolution & BINARY {
            0 => 10u64.checked_pow(resolution.into()),
            _ => 1u64.checked_shl((resolution & !BINARY).into()),
        };
        let Some(units_per_second) = units_per_second else {
            return Block::Damaged(format!("an interface with an impossible unit of time ({resolution})"));
        };
        if self.interfaces.len() == MAX_INTERFACES {
            return Block::Damaged(format!("more than {MAX_INTERFACES} interfaces"));
        }
        // The parser reads this option as little-endian always.
        let offset = block.if_tsoffset;
        let offset_seconds = if self.is_big_endian { offset.swap_bytes() } else { offset };
        self.interfaces.push(Interface {
            link: LinkType(block.linktype.0),
            snaplen: if block.snaplen == 0 { u32::MAX } else { block.snaplen },
            units_per_second,
            offset_seconds,
        });
        Block::Other(length)
    }

    #[inline(always)]
    fn enhanced(&self, block: &EnhancedPacketBlock<'_>, length: usize) -> Block {
        let Some(interface) = self.interfaces.get(block.if_id as usize) else {
            return Block::Damaged(format!("a packet of interface {}, which is not described", block.if_id));
        };
        let located = Located {
            time_ns: Some(interface.time_ns((block.ts_high as u64) << 32 | block.ts_low as u64)),
            link: interface.link,
            data: ENHANCED..ENHANCED + block.caplen as usize,
            length: block.origlen,
            direction: if block.options.is_empty() { Direction::Unknown } else { self.direction(block) },
        };
        Block::Packet(length, located)
    }

    /// The direction in the flags of a packet.
    fn direction(&self, block: &EnhancedPacketBlock<'_>) -> Direction {
        let flags = block.options.iter().find(|option| option.code == OptionCode(2));
        let Some(flags) = flags.and_then(|option| option.value.first_chunk::<4>()) else {
            return Direction::Unknown;
        };
        let flags = if self.is_big_endian { u32::from_be_bytes(*flags) } else { u32::from_le_bytes(*flags) };
        match flags & 3 {
            1 => Direction::Inbound,
            2 => Direction::Outbound,
            _ => Direction::Unknown,
        }
    }

    fn simple(&self, block: &SimplePacketBlock<'_>, length: usize) -> Block {
        let Some(interface) = self.interfaces.first() else {
            return Block::Damaged("a packet before the description of its interface".to_owned());
        };
        let captured = (block.origlen.min(interface.snaplen) as usize).min(block.data.len());
        let located = Located {
            time_ns: None,
            link: interface.link,
            data: SIMPLE..SIMPLE + captured,
            length: block.origlen,
            direction: Direction::Unknown,
        };
        Block::Packet(length, located)
    }
}

impl Interface {
    /// Returns a time in ns since 1970.
    #[inline(always)]
    fn time_ns(&self, units: u64) -> u64 {
        const NS: u64 = 1_000_000_000;
        if self.offset_seconds == 0 {
            match self.units_per_second {
                NS => return units,
                1_000_000 => return units.saturating_mul(1_000),
                _ => {}
            }
        }
        let ns = units as i128 * NS as i128 / self.units_per_second as i128;
        (ns + self.offset_seconds as i128 * NS as i128).clamp(0, u64::MAX as i128) as u64
    }
}
