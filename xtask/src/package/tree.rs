//! The tree of files that both packages install.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// The directory of the documents in the tree.
pub const DOCUMENTS: &str = "usr/share/doc/breaker";

/// Directories of the repository, and where their files are installed.
const DIRECTORIES: [(&str, &str); 9] = [
    ("packaging/etc", "etc/breaker"),
    ("packaging/systemd", "usr/lib/systemd/system"),
    ("packaging/sysusers.d", "usr/lib/sysusers.d"),
    ("packaging/tmpfiles.d", "usr/lib/tmpfiles.d"),
    ("packaging/examples", "usr/share/doc/breaker/examples"),
    ("packaging/prometheus", "usr/share/breaker/prometheus"),
    ("packaging/alertmanager", "usr/share/breaker/alertmanager"),
    ("packaging/grafana", "usr/share/breaker/grafana"),
    ("docs", DOCUMENTS),
];

/// Files of the repository that are installed beside the documents.
const FILES: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// A shell, and the files with its completions: Debian and Fedora have different directories for zsh.
const COMPLETIONS: [(&str, &[&str]); 3] = [
    ("bash", &["usr/share/bash-completion/completions/breaker"]),
    ("zsh", &["usr/share/zsh/vendor-completions/_breaker", "usr/share/zsh/site-functions/_breaker"]),
    ("fish", &["usr/share/fish/vendor_completions.d/breaker.fish"]),
];

/// Makes the tree of a binary, in place of an older tree. Removes the debug information of the binary, or all
/// its symbols. The record of the dependencies stays.
pub fn make(binary: &Path, strip_all: bool, tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("removing {}", tree.display()))?;
    }
    let installed = tree.join("usr/bin/breaker");
    create_parent(&installed)?;
    let mut strip = Command::new("strip");
    strip.arg(if strip_all { "--strip-all" } else { "--strip-debug" });
    process::run(strip.arg("-o").arg(&installed).arg(binary))?;
    for (from, to) in DIRECTORIES {
        copy_files(&workspace::root().join(from), &tree.join(to))?;
    }
    for name in FILES {
        copy(&workspace::root().join(name), &tree.join(DOCUMENTS).join(name))?;
    }
    completions(&installed, tree)?;
    manual(&installed, tree)
}

/// Copies the files of a directory, but not those of its subdirectories.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", from.display()))?.path();
        if path.is_file() {
            copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    create_parent(to)?;
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn create_parent(file: &Path) -> Result<()> {
    let directory = file.parent().unwrap_or(file);
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))
}

fn completions(breaker: &Path, tree: &Path) -> Result<()> {
    for (shell, files) in COMPLETIONS {
        let text = process::stdout_of(Command::new(breaker).args(["completions", shell]))
            .with_context(|| format!("{} printed no completions for {shell}", breaker.display()))?;
        for file in files {
            let file = tree.join(file);
            create_parent(&file)?;
            fs::write(&file, format!("{text}\n")).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(())
}

/// Writes the manual pages into the directories of their sections.
fn manual(breaker: &Path, tree: &Path) -> Result<()> {
    let pages = tree.join("usr/share/man");
    let all = pages.join("all");
    let mut man = Command::new(breaker);
    process::stdout_of(man.arg("man").arg(&all))
        .with_context(|| format!("{} wrote no manual pages", breaker.display()))?;
    for entry in fs::read_dir(&all).with_context(|| format!("reading {}", all.display()))? {
        let page = entry.with_context(|| format!("reading {}", all.display()))?.path();
        let section = page.extension().unwrap_or_default().to_string_lossy();
        copy(&page, &pages.join(format!("man{section}")).join(page.file_name().unwrap_or_default()))?;
    }
    fs::remove_dir_all(&all).with_context(|| format!("removing {}", all.display()))
}
