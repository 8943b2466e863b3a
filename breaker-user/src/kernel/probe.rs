//! Sends probe frames ([`breaker_common::abi::probe`]) and reads the stamps of the enforcing program.
//!
//! A packet socket needs CAP_NET_RAW, which the agent does not have. A program of four instructions sends the
//! frame instead, with `bpf_clone_redirect` to the interface. The frame takes the transmit path of every
//! packet of the host (kernel `dev_queue_xmit`). The enforcing program has seen the frame when the call
//! returns.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, MapType};
use breaker_common::abi::{ProbeStamp, probe};

use super::detach_link::bpf;
use super::object::instruction;
use super::pins::PinRoot;
use super::{clock, memory};

/// Commands and constants of bpf(2) (kernel `uapi/linux/bpf.h`).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_FUNC_CLONE_REDIRECT: u32 = 13;

/// Bytes of a frame: the minimum of Ethernet, without the checksum.
const FRAME_BYTES: usize = 60;
/// A multicast address that no bridge forwards (IEEE 802.1Q, nearest bridge). It stops a frame that the
/// program does not drop.
const DESTINATION: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
/// A locally administered address.
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The part of `union bpf_attr` that BPF_PROG_TEST_RUN reads and writes.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// The part of `struct __sk_buff` that a test run reads.
#[repr(C)]
#[derive(Default)]
struct Skb {
    before_mark: [u32; 2],
    mark: u32,
    before_cb: [u32; 9],
    cb: [u32; 5],
}

/// The stamps of a load, by interface number.
pub struct Stamps(HashMap<MapData, u32, ProbeStamp>);

impl Stamps {
    /// Opens the stamps of a load.
    pub fn open(root: &PinRoot) -> Result<Self> {
        let data = memory::open(&root.map("PROBES"), MapType::Hash, 4, size_of::<ProbeStamp>())?;
        Ok(Self(HashMap::try_from(Map::HashMap(data))?))
    }

    /// Writes a stamp that every health check reads: of a comparison under [`probe::POLICY_MAPS`], or of a
    /// failure.
    pub fn record(&mut self, number: u32, generation: u64) -> Result<()> {
        self.0.insert(number, [generation, clock::now_ns()], 0).context("writing map PROBES")
    }

    /// Returns the numbers under which the agent recorded a failure.
    pub fn failures(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in self.0.iter() {
            let (number, [generation, _]) = entry.context("reading map PROBES")?;
            if generation == probe::FAILED {
                found.push(number);
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// The sender of probe frames, and the stamps.
pub struct Prober {
    sender: OwnedFd,
    stamps: Stamps,
}

/// Result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The program stamped the frame with this generation.
    Stamped(u64),
    /// The frame got no stamp.
    NotStamped,
}

impl Prober {
    /// Loads the program that sends the frames, and opens the stamps of a load.
    pub fn open(root: &PinRoot) -> Result<Self> {
        let sender = load_sender().context("loading the sender of probe frames")?;
        Ok(Self { sender, stamps: Stamps::open(root)? })
    }

    /// Makes the map contain an entry for each of these interfaces, and for no other interface.
    pub fn set_interfaces(&mut self, interfaces: &[u32]) -> Result<()> {
        let map = &mut self.stamps.0;
        let known: Vec<u32> = map.keys().collect::<Result<_, _>>().context("reading map PROBES")?;
        for number in known.iter().filter(|number| **number != probe::POLICY_MAPS) {
            if !interfaces.contains(number) {
                map.remove(number).context("removing a key of map PROBES")?;
            }
        }
        for number in interfaces.iter().filter(|number| !known.contains(number)) {
            map.insert(number, [0, clock::now_ns()], 0).context("adding a key to map PROBES")?;
        }
        Ok(())
    }

    /// Sends a frame through an interface of this network namespace, and reads its stamp.
    pub fn probe(&self, interface: u32) -> Result<Probe> {
        let start = clock::now_ns();
        self.send(interface).with_context(|| format!("sending a probe frame by interface {interface}"))?;
        let [generation, at_ns] = self.stamps.0.get(&interface, 0).context("reading map PROBES")?;
        let is_stamped = at_ns >= start && generation != probe::FAILED;
        Ok(if is_stamped { Probe::Stamped(generation) } else { Probe::NotStamped })
    }

    /// Records that a probe of an interface failed. The next stamp replaces the record.
    pub fn record_failure(&mut self, interface: u32) -> Result<()> {
        self.stamps.record(interface, probe::FAILED)
    }

    fn send(&self, interface: u32) -> io::Result<()> {
        let mut frame = [0; FRAME_BYTES];
        frame[..6].copy_from_slice(&DESTINATION);
        frame[6..12].copy_from_slice(&SOURCE);
        frame[12..14].copy_from_slice(&probe::ETHERTYPE.to_be_bytes());
        let skb = Skb { mark: probe::MARK, cb: [interface, 0, 0, 0, 0], ..Skb::default() };
        let mut run = TestRun {
            prog_fd: self.sender.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: 1,
            ctx_size_in: size_of::<Skb>() as u32,
            ctx_in: &raw const skb as u64,
            ..TestRun::default()
        };
        // SAFETY: the frame and the context have these sizes, and outlive the call.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut run) }.map(drop)
    }
}

/// Loads the sending program: `return bpf_clone_redirect(skb, skb->cb[0], 0)`.
fn load_sender() -> io::Result<OwnedFd> {
    const LOAD_U32: u8 = 0x61;
    const SET: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const CB: u16 = std::mem::offset_of!(Skb, cb) as u16;
    let program = [
        instruction(LOAD_U32, 0x12, CB, 0),
        instruction(SET, 0x03, 0, 0),
        instruction(CALL, 0, 0, BPF_FUNC_CLONE_REDIRECT),
        instruction(EXIT, 0, 0, 0),
    ];
    let mut load = ProgLoad {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"breaker_probe\0\0\0",
    };
    // SAFETY: the instructions and the license outlive the call.
    let loaded = unsafe { bpf(BPF_PROG_LOAD, &mut load) }?;
    // SAFETY: the kernel has just opened this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(loaded) })
}
