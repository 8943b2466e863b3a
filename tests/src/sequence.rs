//! Test runs of new segments. BPF_PROG_TEST_RUN repeats one buffer, which breaker sees as a retransmit. The
//! programs of the object `fresh` raise the sequence number in the buffer and tail-call the measured program.

use aya::Ebpf;
use aya::maps::ProgramArray;
use aya::programs::{ProgramFd, SchedClassifier, Xdp};

use crate::empty_program::object;

/// A program that raises the sequence number and tail-calls another program.
pub struct SequenceAdvancer(Ebpf);

impl SequenceAdvancer {
    /// Loads it in front of a program of XDP.
    pub fn before_xdp(program: &Xdp) -> Self {
        let mut loaded = object("fresh");
        let own: &mut Xdp =
            loaded.program_mut("fresh").expect("the program").try_into().expect("a program of XDP");
        own.load().expect("loading it");
        Self(loaded).into("NEXT", program.fd().expect("a loaded program"))
    }

    /// Loads it in front of a program of tc.
    pub fn before_classifier(program: &SchedClassifier) -> Self {
        let mut loaded = object("fresh");
        let own: &mut SchedClassifier =
            loaded.program_mut("fresh_classifier").expect("the program").try_into().expect("a program of tc");
        own.load().expect("loading it");
        Self(loaded).into("NEXT_CLASSIFIER", program.fd().expect("a loaded program"))
    }

    fn into(mut self, map: &str, program: &ProgramFd) -> Self {
        let map = self.0.map_mut(map).expect("the map");
        let mut next = ProgramArray::try_from(map).expect("a map of this type");
        next.set(0, program, 0).expect("setting the next program");
        self
    }

    /// The loaded program of XDP.
    pub fn xdp(&self) -> &Xdp {
        self.0.program("fresh").expect("the program").try_into().expect("a program of XDP")
    }

    /// The loaded program of tc.
    pub fn classifier(&self) -> &SchedClassifier {
        self.0.program("fresh_classifier").expect("the program").try_into().expect("a program of tc")
    }
}
