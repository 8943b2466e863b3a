//! Checks the length of lines and files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The longest line, in characters: `max_width` in rustfmt.toml, which rustfmt does not apply to comments and
/// strings.
const MAX_WIDTH: usize = 110;
/// The longest file, in lines.
const MAX_LINES: usize = 400;

/// Describes the lines and files below a directory that are too long.
pub fn too_long(directory: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in rust_files(directory)? {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        problems.extend(too_long_in(&file.display().to_string(), &text));
    }
    Ok(problems)
}

fn too_long_in(file: &str, text: &str) -> Vec<String> {
    let long = |(at, line): (usize, &str)| {
        let width = line.chars().count();
        (width > MAX_WIDTH).then(|| format!("{file}:{}: {width} characters, more than {MAX_WIDTH}", at + 1))
    };
    let lines = text.lines().count();
    let file = (lines > MAX_LINES).then(|| format!("{file}: {lines} lines, more than {MAX_LINES}"));
    text.lines().enumerate().filter_map(long).chain(file).collect()
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_and_files_are_reported() {
        let line = "ä".repeat(MAX_WIDTH);
        assert!(too_long_in("a.rs", &line).is_empty());
        assert_eq!(too_long_in("a.rs", &format!("\n{line}b")), ["a.rs:2: 111 characters, more than 110"]);
        assert!(too_long_in("a.rs", &"\n".repeat(MAX_LINES)).is_empty());
        assert_eq!(too_long_in("a.rs", &"\n".repeat(MAX_LINES + 1)), ["a.rs: 401 lines, more than 400"]);
    }
}
