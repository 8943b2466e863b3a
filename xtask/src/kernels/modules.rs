//! Modules that the tests need where a kernel has them not built in, and the order in which they can be loaded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What the tests need.
const NEEDED: [&str; 5] = ["veth", "sch_ingress", "cls_bpf", "dummy", "tcp_diag"];
/// What those need, as far as we know: more is found missing when it is.
const BENEATH: [&str; 1] = ["inet_diag"];

/// True of the name of a module's file, compressed or not, that is to be kept.
pub fn may_be_needed(file: &str) -> bool {
    let known = |module: &&str| [".ko", ".ko.xz"].iter().any(|end| file.strip_suffix(end) == Some(module));
    NEEDED.iter().chain(&BENEATH).any(known)
}

/// Names of the files that are needed and not in a directory.
pub fn missing(directory: &Path) -> Result<Vec<String>> {
    let mut wanted: Vec<String> = NEEDED.map(str::to_owned).to_vec();
    let mut missing = Vec::new();
    let mut next = 0;
    while let Some(module) = wanted.get(next).cloned() {
        next += 1;
        let file = directory.join(&module).with_extension("ko");
        if !file.is_file() {
            missing.push(format!("{module}.ko"));
            continue;
        }
        for beneath in needs(&file)? {
            if !wanted.contains(&beneath) {
                wanted.push(beneath);
            }
        }
    }
    Ok(missing)
}

/// The modules of a directory, each after those that it needs.
pub fn in_order(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut order = Vec::new();
    for module in NEEDED {
        visit(directory, module, &mut order)?;
    }
    Ok(order)
}

fn visit(directory: &Path, module: &str, order: &mut Vec<PathBuf>) -> Result<()> {
    let file = directory.join(module).with_extension("ko");
    if order.contains(&file) {
        return Ok(());
    }
    // The kernel refuses modules that need each other, so this ends.
    for beneath in needs(&file)? {
        visit(directory, &beneath, order)?;
    }
    order.push(file);
    Ok(())
}

fn needs(file: &Path) -> Result<Vec<String>> {
    let content = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let Some(needs) = depends(&content) else { bail!("{} says nothing of what it needs", file.display()) };
    Ok(needs)
}

/// What a module says that it needs: `depends=` in its section `.modinfo`, which is strings that end with a zero.
fn depends(module: &[u8]) -> Option<Vec<String>> {
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
    fn a_module_says_what_it_needs() {
        let strings = b"ELF\0license=GPL\0depends=inet_diag,a-b\0name=tcp_diag\0";
        assert_eq!(depends(strings), Some(vec!["inet_diag".to_owned(), "a_b".to_owned()]));
        assert_eq!(depends(b"\0depends=\0"), Some(Vec::new()));
        assert_eq!(depends(b"license=GPL\0"), None);
    }

    #[test]
    fn compressed_modules_are_known_too() {
        assert!(may_be_needed("veth.ko") && may_be_needed("inet_diag.ko.xz"));
        assert!(!may_be_needed("vethx.ko") && !may_be_needed("modules.builtin"));
    }
}
