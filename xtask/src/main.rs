//! `cargo xtask`: builds, tests, measures and demonstrates breaker in a checkout. This crate has no logic of
//! the product.

mod deny;
mod fuzz;
mod kernels;
mod leftovers;
mod linker;
mod lint;
mod object;
mod package;
mod packages;
mod process;
mod program;
mod sources;
mod test;
mod test_counts;
mod toolchain;
mod tools;
mod workspace;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Build, test and demonstrate breaker from its repository.
///
/// Run as root on a system with apt-get, a command installs missing packages first. Elsewhere an error names
/// the packages to install.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install the packages and tools for building, testing and the demo, and print their versions
    Setup,
    /// Build the kernel program and target/release/breaker, one file with the kernel program inside
    Build {
        /// Build only the kernel program, target/bpf/breaker.o, which cargo check, clippy and an editor need
        #[arg(long)]
        object_only: bool,
    },
    /// Set up, build and run every test; the last line is `N passed, N failed, N skipped`
    Test {
        /// Arguments for cargo test, such as a filter or `-- --nocapture`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Set up, build and rehearse the kill in temporary network namespaces on the kernel of this machine
    Demo {
        /// Arguments for `breaker drill`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Measure the cost and the effect of breaker and of alternatives; write bench/results.json and the
    /// tables and pictures in docs/performance.md and the README
    Bench {
        /// Run every measurement with very few repetitions and write no file, to check that the bench works
        #[arg(long)]
        smoke: bool,
        /// Measure nothing; write the tables and pictures again from bench/results.json
        #[arg(long, conflicts_with_all = ["smoke", "sections"])]
        draw: bool,
        /// Sections to run: hook, inline, gateway, latency, throughput, count, limit, kill, growth, size,
        /// people; default all
        sections: Vec<String>,
    },
    /// Run tests on other kernels (Debian cloud kernels in QEMU) and count the instructions per packet on one
    /// of them
    Kernels {
        /// Kernel series to run, such as 6.1 or `newest`
        #[arg(long, value_delimiter = ',', value_parser = kernels::series)]
        kernel: Vec<String>,
        /// Run no tests; only count instructions and compare them with bench/instructions.json
        #[arg(long)]
        counts: bool,
        /// Write the results to bench/, docs/kernels.md and docs/instructions.md; with --counts only the
        /// counts
        #[arg(long, conflicts_with = "kernel")]
        renew: bool,
    },
    /// Build the .deb and the .rpm into target/packages
    Package {
        /// Profile of cargo for the binary; `dev` is for tests
        #[arg(long, default_value = "release")]
        profile: String,
        /// Revision of the packages
        #[arg(long, default_value_t = 1)]
        revision: u32,
        /// Directory for the packages
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Build the kernel program a second time in another directory first; fails if the two objects differ
        #[arg(long)]
        reproducible: bool,
    },
    /// Check the licences, sources and versions of all dependencies
    Deny {
        /// Also fetch the database of advisories and check for known vulnerabilities
        #[arg(long)]
        advisories: bool,
    },
    /// Check the formatting of every crate, and run clippy on all crates but the kernel program
    Lint {
        /// Check only imports, lines and files, and list every problem of every crate
        #[arg(long)]
        shape: bool,
    },
    /// Boot a machine with systemd twice in QEMU: no order passes before the hook is attached, and a trip
    /// outlives a reboot
    Boot,
    /// Run every fuzz target from its seeds; fails on the first crash
    Fuzz {
        /// The total time for all targets, in seconds
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
            tools::ensure(&tools::PACKAGING)?;
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
        Verb::Boot => return kernels::boot::run(),
        Verb::Package { profile, revision, output, reproducible } => {
            package::run(&package::Options { profile, revision, output, reproducible })?;
        }
        Verb::Deny { advisories } => deny::run(advisories)?,
        Verb::Lint { shape: true } => lint::check_shape()?,
        Verb::Lint { shape: false } => lint::run()?,
        Verb::Fuzz { seconds } => fuzz::run(seconds)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn setup() -> Result<()> {
    packages::ensure(packages::USER_SPACE)?;
    packages::ensure(packages::TESTS)?;
    let rust = toolchain::find_or_install(linker::newest_llvm())?;
    println!("kernel program: {rust}");
    println!("linker: {}", linker::find_or_build()?.display());
    Ok(())
}

fn build() -> Result<PathBuf> {
    object::build()?;
    program::build()
}
