//! Text in the maps: UTF-8, padded with zeros.

use anyhow::{Result, ensure};

/// Returns a text as `N` bytes, padded with zeros.
///
/// # Errors
/// A text of more than `N` bytes.
pub fn pad_to<const N: usize>(text: &str) -> Result<[u8; N]> {
    ensure!(text.len() <= N, "storing {text:?}: it has {} bytes where {N} fit: shorten it", text.len());
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// Returns the text that [`pad_to`] stored.
pub fn trim_padding(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
