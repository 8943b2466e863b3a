//! Finds processes with a mapped library of a user-space network stack. Such a stack can send past the
//! kernel, and so past the hook. See `proc_pid_maps(5)`, `proc_pid_fd(5)`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Beginnings of file names of libraries, and the stack that each belongs to. `libibverbs` is missing:
/// libpcap links it on Debian.
const LIBRARIES: [(&str, &str); 11] = [
    ("libonload", "OpenOnload"),
    ("libciul", "ef_vi"),
    ("libvma", "VMA"),
    ("libxlio", "XLIO"),
    ("libexasock", "ExaSock"),
    ("librte_", "DPDK"),
    ("librdmacm", "RDMA"),
    ("libxdp", "AF_XDP"),
    ("libvcl_ldpreload", "VPP"),
    ("libvppcom", "VPP"),
    ("libdbl", "DBL"),
];

/// A process with a mapped library of a user-space network stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BypassProcess {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub name: String,
    /// Path of the library.
    pub library: String,
    /// The network stack.
    pub stack: &'static str,
    /// Inodes of its sockets.
    pub sockets: Vec<u32>,
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The processes with such a library.
    pub found: Vec<BypassProcess>,
    /// Number of processes that this process may not inspect.
    pub closed: usize,
}

/// Searches all processes.
pub fn search() -> Search {
    let mut search = Search::default();
    let entries = fs::read_dir("/proc").map(|entries| entries.flatten().collect::<Vec<_>>());
    for entry in entries.unwrap_or_default() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let path = entry.path();
        match fs::read_to_string(path.join("maps")) {
            Ok(maps) => {
                if let Some((library, stack)) = library(&maps) {
                    search.found.push(BypassProcess {
                        pid,
                        name: read_name(&path),
                        library,
                        stack,
                        sockets: sockets(&path),
                    });
                }
            }
            // A process that ended in between has no file.
            Err(error) => search.closed += usize::from(error.kind() == ErrorKind::PermissionDenied),
        }
    }
    search
}

/// Returns the first library of a user-space network stack in the lines of `/proc/PID/maps`.
fn library(maps: &str) -> Option<(String, &'static str)> {
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        let file = path.rsplit('/').next()?;
        let (_, stack) = LIBRARIES.iter().find(|(start, _)| file.starts_with(start))?;
        file.contains(".so").then(|| (path.to_owned(), *stack))
    })
}

fn read_name(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).map(|name| name.trim_end().to_owned()).unwrap_or_default()
}

/// Returns the inodes of the sockets of a process.
fn sockets(process: &Path) -> Vec<u32> {
    let entries = fs::read_dir(process.join("fd")).map(|entries| entries.flatten().collect::<Vec<_>>());
    let inode = |link: &Path| {
        let target = fs::read_link(link).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    entries.unwrap_or_default().iter().filter_map(|entry| inode(&entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_known_by_its_file_name() {
        let line = |path: &str| format!("7f00-7f01 r-xp 00000000 08:01 42     {path}\n");
        let found = |path: &str| library(&line(path)).map(|(_, stack)| stack);
        assert_eq!(found("/usr/lib64/libonload.so"), Some("OpenOnload"));
        assert_eq!(found("/opt/dpdk/librte_ethdev.so.24 (deleted)"), Some("DPDK"));
        assert_eq!(found("/usr/lib/libvma.so.9.8"), Some("VMA"));
        assert_eq!(found("/var/lib/libonload.txt"), None);
        assert_eq!(found("/opt/librte_x.so/libc.so.6"), None);
        assert_eq!(library("7f00-7f01 rw-p 00000000 00:00 0 \n"), None);
    }
}
