//! The programs that do nothing: a zero to measure against, and a far end of a veth that takes frames as a network card does.

use std::path::Path;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

/// Where `cargo xtask build` leaves the programs that are only for tests and benchmarks, unless BREAKER_TESTS_OBJECTS says otherwise.
const BUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/bpfel-unknown-none/bpf");

/// Loads one of the objects that are only for tests and benchmarks.
pub fn object(name: &str) -> Ebpf {
    let place = std::env::var_os("BREAKER_TESTS_OBJECTS").unwrap_or_else(|| BUILT.into());
    let object = std::fs::read(Path::new(&place).join(name));
    let object =
        object.unwrap_or_else(|error| panic!("the programs of {name:?}: {error}: `cargo xtask build`"));
    EbpfLoader::new().load(&object).expect("loading them")
}

/// The programs. What they are attached to they leave when this goes.
pub struct EmptyProgram(Ebpf);

impl EmptyProgram {
    /// Opens them.
    pub fn open() -> Self {
        Self(object("empty"))
    }

    /// The one at tc, loaded.
    pub fn classifier(&mut self) -> &mut SchedClassifier {
        let program: &mut SchedClassifier =
            self.0.program_mut("egress").expect("there is one").try_into().expect("of tc");
        program.load().expect("loading it");
        program
    }

    /// Attaches the one at tc to what leaves an interface of this thread's namespace, behind what is there already.
    pub fn attach_behind(mut self, interface: &str) -> Self {
        self.classifier().attach(interface, TcAttachType::Egress).expect("attaching it");
        self
    }

    /// What the kernel says of the one at tc.
    pub fn info(&self) -> ProgramInfo {
        let program: &SchedClassifier =
            self.0.program("egress").expect("there is one").try_into().expect("of tc");
        program.info().expect("asking after it")
    }

    /// The one at XDP, loaded.
    pub fn xdp(&mut self) -> &mut Xdp {
        let program: &mut Xdp =
            self.0.program_mut("inline").expect("there is one").try_into().expect("of XDP");
        program.load().expect("loading it");
        program
    }

    /// Attaches the one at XDP to an interface of this thread's namespace.
    pub fn attach(mut self, interface: &str) -> Self {
        self.xdp().attach(interface, XdpMode::Driver).expect("attaching it");
        self
    }
}
