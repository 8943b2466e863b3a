//! The kernel modules that the tests use, and their load order.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The modules that the tests use.
const REQUIRED: [&str; 5] = ["veth", "sch_ingress", "cls_bpf", "dummy", "tcp_diag"];
/// The known dependencies of these modules. [`missing`] reports unknown dependencies.
const DEPENDENCIES: [&str; 1] = ["inet_diag"];

/// Returns true for the file name of a required module or of a dependency, compressed or not.
pub fn is_used(file: &str) -> bool {
    let known = |module: &&str| [".ko", ".ko.xz"].iter().any(|end| file.strip_suffix(end) == Some(module));
    REQUIRED.iter().chain(&DEPENDENCIES).any(known)
}

/// Returns the names of required files that a directory lacks.
pub fn missing(directory: &Path) -> Result<Vec<String>> {
    let mut wanted: Vec<String> = REQUIRED.map(str::to_owned).to_vec();
    let mut missing = Vec::new();
    let mut next = 0;
    while let Some(module) = wanted.get(next).cloned() {
        next += 1;
        let file = directory.join(&module).with_extension("ko");
        if !file.is_file() {
            missing.push(format!("{module}.ko"));
            continue;
        }
        for dependency in dependencies(&file)? {
            if !wanted.contains(&dependency) {
                wanted.push(dependency);
            }
        }
    }
    Ok(missing)
}

/// Returns the modules of a directory, each after its dependencies.
pub fn load_order(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut order = Vec::new();
    for module in REQUIRED {
        visit(directory, module, &mut order)?;
    }
    Ok(order)
}

fn visit(directory: &Path, module: &str, order: &mut Vec<PathBuf>) -> Result<()> {
    let file = directory.join(module).with_extension("ko");
    if order.contains(&file) {
        return Ok(());
    }
    // The recursion ends because the kernel build refuses modules that depend on each other.
    for dependency in dependencies(&file)? {
        visit(directory, &dependency, order)?;
    }
    order.push(file);
    Ok(())
}

fn dependencies(file: &Path) -> Result<Vec<String>> {
    let content = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let Some(names) = parse_depends(&content) else { bail!("{} has no `depends=` entry", file.display()) };
    Ok(names)
}

/// Reads the entry `depends=` from the section `.modinfo`, a list of zero-terminated strings.
fn parse_depends(module: &[u8]) -> Option<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let from = module.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let length = module[from..].iter().position(|&byte| byte == 0)?;
    let names = String::from_utf8_lossy(&module[from..from + length]).into_owned();
    Some(names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dependencies_of_a_module_are_read() {
        let strings = b"ELF\0license=GPL\0depends=inet_diag,a-b\0name=tcp_diag\0";
        assert_eq!(parse_depends(strings), Some(vec!["inet_diag".to_owned(), "a_b".to_owned()]));
        assert_eq!(parse_depends(b"\0depends=\0"), Some(Vec::new()));
        assert_eq!(parse_depends(b"license=GPL\0"), None);
    }

    #[test]
    fn a_compressed_module_is_recognized() {
        assert!(is_used("veth.ko") && is_used("inet_diag.ko.xz"));
        assert!(!is_used("vethx.ko") && !is_used("modules.builtin"));
    }
}
