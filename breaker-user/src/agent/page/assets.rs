//! The files of the page, included in the binary: the agent reads none from a disk.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::display::hex;

/// A file of the page.
pub struct Asset {
    /// Path of the request.
    pub path: &'static str,
    /// Media type.
    pub content_type: &'static str,
    /// Content.
    pub content: &'static [u8],
    /// Entity tag (RFC 9110, 8.8.3): the hash of the content, in quotes.
    pub etag: String,
}

macro_rules! assets {
    ($($path:literal $media:literal $file:literal,)*) => {
        [$(Asset::new($path, $media, include_bytes!(concat!("../../../", $file)))),*]
    };
}

static ASSETS: LazyLock<[Asset; 10]> = LazyLock::new(|| {
    assets! {
        "/" "text/html; charset=utf-8" "page/index.html",
        "/page.css" "text/css; charset=utf-8" "page/page.css",
        "/icon.svg" "image/svg+xml" "page/icon.svg",
        "/page.js" "text/javascript; charset=utf-8" "page/page.js",
        "/dom.js" "text/javascript; charset=utf-8" "page/dom.js",
        "/sections.js" "text/javascript; charset=utf-8" "page/sections.js",
        "/sessions.js" "text/javascript; charset=utf-8" "page/sessions.js",
        "/charts.js" "text/javascript; charset=utf-8" "page/charts.js",
        "/uplot.js" "text/javascript; charset=utf-8" "third-party/uplot/uPlot.iife.min.js",
        "/uplot.css" "text/css; charset=utf-8" "third-party/uplot/uPlot.min.css",
    }
});

impl Asset {
    fn new(path: &'static str, content_type: &'static str, content: &'static [u8]) -> Self {
        let hash = hex(&<[u8; 32]>::from(Sha256::digest(content)));
        Self { path, content_type, content, etag: format!("\"{}\"", &hash[..32]) }
    }

    /// Returns true if a copy with one of these tags is current (`If-None-Match`, RFC 9110, 13.1.2).
    pub fn matches(&self, tags: &str) -> bool {
        tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == self.etag)
    }
}

/// The file at a path.
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_path_alone() {
        let page = asset("/").expect("the page");
        assert!(page.content.starts_with(b"<!doctype html>"));
        for other in ["", "/index.html", "/page.css/", "//", "/../page.css", "/PAGE.CSS"] {
            assert!(asset(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_tag_of_the_content_says_that_a_copy_is_current() {
        let page = asset("/").expect("the page");
        let tag = &page.etag;
        for current in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            assert!(page.matches(&current), "{current}");
        }
        for other in ["", "\"x\"", tag.trim_matches('"'), &asset("/page.css").expect("the styles").etag] {
            assert!(!page.matches(other), "{other}");
        }
    }

    #[test]
    fn no_file_has_inline_code_or_names_another_place() {
        for asset in &*ASSETS {
            // The namespace of SVG and the home page of uPlot in a comment are names and not requests.
            let text = std::str::from_utf8(asset.content).expect("text");
            let text = text.replace("http://www.w3.org/2000/svg", "").replace("/*! https://github.com", "");
            for refused in ["http://", "https://", "style=\"", "<style", "<script>", "onclick", "<form"] {
                assert!(!text.contains(refused), "{}: {refused}", asset.path);
            }
        }
    }
}
