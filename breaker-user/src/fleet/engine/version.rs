//! Versions of etcd.

use semver::Version;

/// The first versions of each series without the known faults of authorisation.
static FIXED: [Version; 4] =
    [Version::new(3, 4, 44), Version::new(3, 5, 33), Version::new(3, 6, 14), Version::new(3, 7, 1)];

/// Returns true for a version with known faults of authorisation, and for a text that is no version.
#[must_use]
pub fn is_old(version: &str) -> bool {
    let Ok(version) = Version::parse(version) else { return true };
    // A series without an entry is newer than the last one, or older than all of them.
    let fixed = FIXED.iter().find(|fixed| (fixed.major, fixed.minor) >= (version.major, version.minor));
    fixed.is_some_and(|fixed| version < *fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_has_its_first_fixed_version() {
        for old in ["3.3.27", "3.4.23", "3.4.43", "3.5.32", "3.6.13", "3.7.0", "2.3.8", "", "unknown"] {
            assert!(is_old(old), "{old}");
        }
        for fixed in ["3.4.44", "3.5.33", "3.6.14", "3.7.1", "3.8.0", "4.0.0"] {
            assert!(!is_old(fixed), "{fixed}");
        }
    }
}
