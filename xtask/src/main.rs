//! `cargo xtask`: everything one does with a checkout of breaker. No logic of the product is here.

mod fuzz;
mod kernels;
mod leftovers;
mod linker;
mod lint;
mod object;
mod packages;
mod process;
mod program;
mod sources;
mod tally;
mod test;
mod toolchain;
mod workspace;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Build, test and show breaker from its repository.
///
/// What a verb needs and the machine lacks is installed first, as root on a machine with apt-get; elsewhere one sentence
/// says what to install.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building, testing and the demo need, and say what was found
    Setup,
    /// Build the kernel program and target/release/breaker, one file with the kernel program inside
    Build {
        /// Only the kernel program, target/bpf/breaker.o: all that cargo check, clippy and an editor need
        #[arg(long)]
        object_only: bool,
    },
    /// Set up, build and run every test; the last line is `N passed, N failed, N skipped`
    Test {
        /// Given to cargo test as they are, e.g. a filter, or `-- --nocapture`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Set up, build and rehearse the kill in throw-away network namespaces on this machine's kernel
    Demo {
        /// Given to `breaker drill` as they are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Measure what breaker costs and does, beside what else one could use; write bench/results.json, and the tables and pictures of it
    /// in docs/performance.md and the README
    Bench {
        /// So few of everything that no figure means anything, and no file is written: only to see that it works
        #[arg(long)]
        smoke: bool,
        /// Measure nothing: write the documents anew from bench/results.json
        #[arg(long, conflicts_with_all = ["smoke", "sections"])]
        draw: bool,
        /// Only these: hook, inline, gateway, latency, throughput, count, limit, kill, growth, size; all where none is named
        sections: Vec<String>,
    },
    /// Run the tests on other kernels, Debian's cloud kernels emulated in QEMU, and count the instructions that packets take on one
    Kernels {
        /// Only these: series as in 6.1, or `newest`
        #[arg(long, value_delimiter = ',', value_parser = kernels::series)]
        kernel: Vec<String>,
        /// No tests: only count, and compare with bench/instructions.json
        #[arg(long)]
        counts: bool,
        /// Write the records in bench/, docs/kernels.md and docs/instructions.md anew with what is found; with --counts those of counting
        #[arg(long, conflicts_with = "kernel")]
        renew: bool,
    },
    /// Check the formatting of every crate, and clippy without a warning over all but the kernel program
    Lint,
    /// Run every fuzz target, from its seeds; fails on the first crash
    Fuzz {
        /// For how long, all targets together
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup => setup()?,
        Verb::Build { object_only: true } => object::build()?,
        Verb::Build { object_only: false } => {
            println!("{}", build()?.display());
        }
        Verb::Test { args } => {
            packages::ensure(packages::TESTS)?;
            build()?;
            return test::run(&args);
        }
        Verb::Demo { args } => {
            let breaker = build()?;
            let error = Command::new(&breaker).args(["drill", "--scenario", "knight"]).args(args).exec();
            return Err(error).with_context(|| format!("running {}", breaker.display()));
        }
        Verb::Bench { draw: true, .. } => program::draw()?,
        Verb::Bench { smoke, sections, .. } => {
            packages::ensure(packages::BENCH)?;
            build()?;
            program::bench(smoke, &sections)?;
        }
        Verb::Kernels { kernel, counts, renew } => return kernels::run(&kernel, counts, renew),
        Verb::Lint => lint::run()?,
        Verb::Fuzz { seconds } => fuzz::run(seconds)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn setup() -> Result<()> {
    packages::ensure(packages::TESTS)?;
    let rust = toolchain::find_or_install(linker::newest_llvm())?;
    println!("kernel program: {rust}");
    println!("linker: {}", linker::find_or_build()?.display());
    Ok(())
}

fn build() -> Result<std::path::PathBuf> {
    object::build()?;
    program::build()
}
