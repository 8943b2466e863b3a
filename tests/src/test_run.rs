//! Runs of a BPF program over a crafted packet: BPF_PROG_TEST_RUN.

use std::path::Path;

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult};

/// Result of a test run.
pub struct TestRunOutput {
    /// The verdict of the program.
    pub verdict: i32,
    /// The packet after the run.
    pub packet: Vec<u8>,
    /// Mean time of one run, ns.
    pub ns: u64,
}

/// Runs a pinned program over a frame, in the namespace of this thread.
pub fn run_pinned(pin: &Path, frame: &[u8], repeat: u32) -> TestRunOutput {
    let program = SchedClassifier::from_pin(pin).expect("opening the program");
    run(&program, frame, repeat)
}

/// A program of tc or XDP: the kernel can run both over a frame.
pub trait TestRunnable: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult> {}
impl<P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>> TestRunnable for P {}

/// Runs a program over a frame; the kernel must accept the frame.
pub fn run(program: &impl TestRunnable, frame: &[u8], repeat: u32) -> TestRunOutput {
    try_run(program, frame, repeat).expect("running the program")
}

/// Runs a program over a frame.
///
/// # Errors
/// If the kernel refuses the frame: newer kernels require a whole IP header.
pub fn try_run(
    program: &impl TestRunnable,
    frame: &[u8],
    repeat: u32,
) -> Result<TestRunOutput, ProgramError> {
    let mut packet = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut packet),
        repeat,
        ..TestRunOptions::default()
    };
    let result = program.test_run(options)?;
    let (verdict, ns) = (result.return_value as i32, result.duration.as_nanos() as u64);
    packet.truncate(result.data_size_out as usize);
    Ok(TestRunOutput { verdict, packet, ns })
}
