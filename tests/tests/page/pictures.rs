//! Pictures of the page. Those in the documents are written to `docs/images` if `BREAKER_PICTURES=1` is set,
//! and all others to the target directory. `BREAKER_PICTURES_SECONDS` is the time of traffic before them.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::require_root;
use rustix::process::Signal;

use crate::traffic::Traffic;
use crate::{Page, desk};

/// Name, width, height and colour scheme of each picture.
const PICTURES: [(&str, u32, u32, &str); 3] =
    [("light", 1280, 900, "light"), ("dark", 1280, 900, "dark"), ("phone", 360, 900, "light")];
/// The pictures in the documents.
const DOCUMENTED: [&str; 4] = ["tripped-light", "well-dark", "old-light", "tripped-phone"];

/// The directory of a picture.
fn directory(picture: &str) -> PathBuf {
    if std::env::var_os("BREAKER_PICTURES").is_some_and(|value| value == "1") && DOCUMENTED.contains(&picture)
    {
        return PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    }
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&directory).expect("making a directory");
    directory
}

/// Takes all pictures of a state.
fn take(page: &Page, state: &str) {
    for (name, width, height, scheme) in PICTURES {
        page.browser.resize(width, height, scheme);
        let picture = format!("{state}-{name}");
        let path = directory(&picture).join(format!("page-{picture}.png"));
        page.browser.picture(&path);
        let bytes = std::fs::read(&path).expect("the picture");
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{}: too small", path.display());
    }
    page.browser.resize(1280, 900, "light");
}

#[test]
fn the_page_is_pictured_well_tripped_and_old() {
    require_root!();
    let page = Page::open(&desk());
    let seconds = std::env::var("BREAKER_PICTURES_SECONDS").map_or(5, |text| text.parse().expect("a number"));
    let rates = [(9001, 90), (9002, 40), (9003, 120), (9005, 15), (9007, 60), (9009, 30), (9011, 75)];
    let traffic = Traffic::start(&page.testbed, &rates);
    sleep(Duration::from_secs(seconds));
    take(&page, "well");
    let runaway = Traffic::start(&page.testbed, &[(9004, 900)]);
    page.browser.wait_for("document.getElementById('verdict-text').textContent === 'TRIPPED: 1 scope'");
    page.testbed.switch("disarm", "session/iexg-1").expect_exit(0);
    page.browser.wait_for("document.getElementById('problems').textContent.includes('DISARMED')");
    take(&page, "tripped");
    page.agent.signal(Signal::STOP);
    page.browser.wait_for("document.documentElement.classList.contains('stale')");
    take(&page, "old");
    page.agent.signal(Signal::CONT);
    drop((traffic, runaway));
}
