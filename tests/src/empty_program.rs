//! Programs that do nothing: the zero of a measurement, and the far end of a veth that takes frames as a
//! network card does.

use std::path::Path;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

/// Directory of the test-only BPF objects, unless BREAKER_TESTS_OBJECTS names another. `cargo xtask build`
/// writes them.
const BUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/bpfel-unknown-none/bpf");

/// Loads a test-only BPF object.
pub fn object(name: &str) -> Ebpf {
    let place = std::env::var_os("BREAKER_TESTS_OBJECTS").unwrap_or_else(|| BUILT.into());
    let object = std::fs::read(Path::new(&place).join(name));
    let object =
        object.unwrap_or_else(|error| panic!("the programs of {name:?}: {error}: `cargo xtask build`"));
    EbpfLoader::new().load(&object).expect("loading them")
}

/// The programs of the object. They detach when the value is dropped.
pub struct EmptyProgram(Ebpf);

impl EmptyProgram {
    /// Loads the object.
    pub fn open() -> Self {
        Self(object("empty"))
    }

    /// Loads the program of tc.
    pub fn classifier(&mut self) -> &mut SchedClassifier {
        let program: &mut SchedClassifier =
            self.0.program_mut("egress").expect("the program").try_into().expect("a program of tc");
        program.load().expect("loading it");
        program
    }

    /// Attaches the program of tc to the egress of an interface in the namespace of this thread, behind the
    /// programs that are there.
    pub fn attach_behind(mut self, interface: &str) -> Self {
        self.classifier().attach(interface, TcAttachType::Egress).expect("attaching it");
        self
    }

    /// The kernel's information on the program of tc.
    pub fn info(&self) -> ProgramInfo {
        let program: &SchedClassifier =
            self.0.program("egress").expect("the program").try_into().expect("a program of tc");
        program.info().expect("reading the program information")
    }

    /// Loads the program of XDP.
    pub fn xdp(&mut self) -> &mut Xdp {
        let program: &mut Xdp =
            self.0.program_mut("inline").expect("the program").try_into().expect("a program of XDP");
        program.load().expect("loading it");
        program
    }

    /// Attaches the program of XDP to an interface in the namespace of this thread.
    pub fn attach(mut self, interface: &str) -> Self {
        self.xdp().attach(interface, XdpMode::Driver).expect("attaching it");
        self
    }
}
