//! Replaces the program at a hook. The kernel stores one pointer, so each packet runs exactly one of the two
//! programs.
//!
//! aya can also replace the program of a link, but its API needs a private type to open a pinned XDP
//! program.

use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aya::programs::SchedClassifier;
use aya::programs::tc::{NlOptions, SchedClassifierLink};

use super::attach::{attach_type, filter_options};
use super::attach_point::AttachPoint;
use super::detach_link::{bpf, open_pin};
use crate::cli_error::{CliError, Code};

/// Command of bpf(2) (kernel `uapi/linux/bpf.h`).
const BPF_LINK_UPDATE: libc::c_int = 29;

/// The part of `union bpf_attr` that BPF_LINK_UPDATE reads.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces the program at a hook by the program that is pinned for the hook. Must run in the network
/// namespace of the load.
///
/// # Errors
/// Exit code 8 if no program is attached: the interface was removed, or the program was detached.
pub fn swap(point: &AttachPoint) -> Result<()> {
    let done = if point.is_link() { update(&point.link, &point.program) } else { replace(point) };
    done.map_err(|error| {
        let text = format!(
            "replacing the program at {}: {error:#}: see `breaker status`, \
             and `breaker attach` where it is detached",
            point.describe()
        );
        CliError::new(Code::Interface, text).into()
    })
}

/// Replaces the program of a pinned link.
fn update(link: &Path, program: &Path) -> Result<()> {
    let opened = |pin: &Path| open_pin(pin).with_context(|| format!("opening {}", pin.display()));
    let (link, program) = (opened(link)?, opened(program)?);
    let mut update = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the structure holds no address.
    match unsafe { bpf(BPF_LINK_UPDATE, &mut update) } {
        // ENOLINK: the link was detached, or its interface was removed (kernel `tcx_link_update`,
        // `bpf_xdp_link_update`).
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            Err(anyhow!("its link is attached to no interface"))
        }
        done => Ok(done.map(drop)?),
    }
}

/// Replaces the program of breaker's filter of clsact. The kernel swaps filters of one handle under RCU
/// (kernel `cls_bpf_change`).
fn replace(point: &AttachPoint) -> Result<()> {
    // The program is opened before the link, because aya removes the filter when it drops the link. An error
    // after the link was made would therefore detach the filter.
    let mut program = SchedClassifier::from_pin(&point.program)?;
    program.fd()?;
    let NlOptions { priority, handle, classid } = filter_options();
    let link = SchedClassifierLink::attached(&point.name, attach_type(point), priority, handle, classid)?;
    let id = program.attach_to_link(link)?;
    // The filter outlives this process.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}
