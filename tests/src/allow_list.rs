//! An allow-list at XDP, in the manner of xdp-filter: a gateway's filter that does not parse the
//! payload.

use std::net::SocketAddrV4;

use aya::Ebpf;
use aya::maps::PerCpuHashMap;
use aya::programs::{Xdp, XdpMode};

use crate::empty_program::object;

/// The loaded program. It detaches when the value is dropped.
pub struct AllowList(Ebpf);

impl AllowList {
    /// Loads the program with one allowed address and port.
    pub fn open(place: SocketAddrV4) -> Self {
        let mut loaded = object("allow");
        let zero = || {
            vec![0u64; aya::util::nr_cpus().expect("a number of processors")].try_into().expect("one each")
        };
        let map = loaded.map_mut("PORTS").expect("the map");
        let mut ports = PerCpuHashMap::<_, u16, u64>::try_from(map).expect("a map of this type");
        ports.insert(place.port().to_be(), zero(), 0).expect("listing a port");
        let map = loaded.map_mut("ADDRESSES").expect("the map");
        let mut addresses = PerCpuHashMap::<_, u32, u64>::try_from(map).expect("a map of this type");
        addresses.insert(u32::from_ne_bytes(place.ip().octets()), zero(), 0).expect("listing an address");
        let program: &mut Xdp =
            loaded.program_mut("allow").expect("the program").try_into().expect("a program of XDP");
        program.load().expect("loading it");
        Self(loaded)
    }

    /// The loaded program.
    pub fn xdp(&mut self) -> &mut Xdp {
        self.0.program_mut("allow").expect("the program").try_into().expect("a program of XDP")
    }

    /// Attaches the program to an interface in the namespace of this thread.
    pub fn attach(mut self, interface: &str) -> Self {
        self.xdp().attach(interface, XdpMode::Driver).expect("attaching it");
        self
    }
}
