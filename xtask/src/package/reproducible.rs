//! Checks that the kernel object does not depend on the directory in which it is built.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::copy;
use crate::{object, sources, workspace};

/// Builds the kernel program of this checkout from nothing in another directory below `directory`, and
/// compares the object with that of the checkout bit by bit.
pub fn check(directory: &Path) -> Result<()> {
    let other = directory.join("built-in-another-directory");
    copy::checkout(&other)?;
    let second = object::build_at(&other)?;
    let path = sources::object(&workspace::root());
    let first = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    if let Some(place) = difference(&first, &second) {
        bail!(
            "building the kernel program again in {}: the object differs from byte {place} on ({} and {} \
             bytes): compare the two with `llvm-objdump -s`",
            other.display(),
            first.len(),
            second.len()
        );
    }
    fs::remove_dir_all(&other).with_context(|| format!("removing {}", other.display()))?;
    println!("the kernel object is the same from another directory: {} bytes", first.len());
    Ok(())
}

/// Returns the position of the first difference.
fn difference(first: &[u8], second: &[u8]) -> Option<usize> {
    let common = first.iter().zip(second).take_while(|(first, second)| first == second).count();
    (first != second).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_at_its_first_byte() {
        assert_eq!(difference(b"same", b"same"), None);
        assert_eq!(difference(b"same", b"sane"), Some(2));
        assert_eq!(difference(b"same", b"same and more"), Some(4));
    }
}
