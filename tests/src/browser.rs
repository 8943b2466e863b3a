//! A headless Chromium, driven by the DevTools protocol over two pipes.
//!
//! The browser reads commands from file descriptor 3 and writes answers and events to 4, each a JSON object
//! that ends with a zero byte. This needs no port, no driver program and no library for WebSocket.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_user::testbed::Namespace;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest time for a command.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest time for the browser to end.
const END: Duration = Duration::from_secs(5);

/// A browser with one page. It is closed when the value is dropped.
pub struct Browser {
    child: Child,
    commands: Mutex<ChildStdin>,
    shared: Arc<Shared>,
    next: AtomicU64,
    session: String,
    _profile: TempDir,
}

/// What the thread that reads from the browser hands on.
#[derive(Default)]
struct Shared {
    waiting: Mutex<HashMap<u64, Sender<Value>>>,
    events: Mutex<Vec<Value>>,
}

impl Browser {
    /// Starts a browser in a network namespace, with an empty profile.
    pub fn start(namespace: &Namespace) -> Self {
        let profile = TempDir::new().expect("making a directory");
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null", "chromium"]).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).env("HOME", profile.path());
        command.env("TMPDIR", profile.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = namespace.run(|| command.spawn().expect("starting chromium"));
        let commands = Mutex::new(child.stdin.take().expect("its input"));
        let shared = Arc::new(Shared::default());
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || reader.read(answers));
        let (next, session) = (AtomicU64::new(1), String::new());
        let mut browser = Self { child, commands, shared, next, session, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        for domain in ["Page", "Runtime", "Network", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the DevTools protocol, and returns its result.
    #[track_caller]
    pub fn call(&self, method: &str, params: Value) -> Value {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let (answer, answered) = channel();
        lock(&self.shared.waiting).insert(id, answer);
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        lock(&self.commands).write_all(&bytes).expect("sending a command to chromium");
        let answer =
            answered.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: no answer: {error}"));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Opens a page and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        let loaded = self.events("Page.loadEventFired").len();
        let result = self.call("Page.navigate", json!({ "url": url }));
        assert!(result.get("errorText").is_none(), "{url}: {result}");
        self.wait("the page is loaded", || self.events("Page.loadEventFired").len() > loaded);
    }

    /// Evaluates an expression in the page, and waits for a promise. Returns its value.
    #[track_caller]
    pub fn evaluate(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression:.200}: {result}");
        result["result"]["value"].clone()
    }

    /// The text of the element with this id, as it is shown.
    #[track_caller]
    pub fn text(&self, id: &str) -> String {
        let text = self.evaluate(&format!("document.getElementById({id:?}).innerText"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait_for(&self, expression: &str) {
        self.wait(expression, || self.evaluate(expression) == true);
    }

    #[track_caller]
    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Sets the size of the window in CSS pixels, and the colour scheme `light` or `dark`.
    pub fn resize(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
        // Two frames later the page is laid out and its charts are drawn anew.
        self.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))",
        );
    }

    /// Presses a key: its name, such as `Tab`, and its code.
    pub fn press(&self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Types a text into the focused element.
    pub fn write(&self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Writes a picture of the window to a PNG file.
    pub fn picture(&self, path: &Path) {
        let result = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let text = result["data"].as_str().expect("a picture");
        std::fs::write(path, base64(text)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The parameters of all events of a kind so far.
    pub fn events(&self, method: &str) -> Vec<Value> {
        let events = lock(&self.shared.events);
        events.iter().filter(|event| event["method"] == method).map(|event| event["params"].clone()).collect()
    }

    /// The addresses of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        let events = self.events("Network.requestWillBeSent");
        events.iter().map(|event| event["request"]["url"].as_str().expect("an address").to_owned()).collect()
    }

    /// Errors and warnings in the console, and exceptions.
    pub fn complaints(&self) -> Vec<Value> {
        let calls = self.events("Runtime.consoleAPICalled");
        let calls = calls.into_iter().filter(|event| event["type"] != "log" && event["type"] != "info");
        calls.chain(self.events("Runtime.exceptionThrown")).chain(self.events("Log.entryAdded")).collect()
    }
}

impl Shared {
    fn read(&self, mut from: impl BufRead) {
        let mut message = Vec::new();
        while from.read_until(0, &mut message).is_ok_and(|length| length > 0) {
            message.pop();
            let value: Value = serde_json::from_slice(&message).expect("JSON from chromium");
            message.clear();
            match value["id"].as_u64() {
                // The caller may have given up.
                Some(id) => drop(lock(&self.waiting).remove(&id).map(|answer| answer.send(value))),
                None => lock(&self.events).push(value),
            }
        }
    }
}

impl Drop for Browser {
    /// Closes the browser: after a kill its other processes would still write to the profile.
    fn drop(&mut self) {
        // A failure is ignored here and below: the browser may have ended.
        let _ = lock(&self.commands).write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let deadline = Instant::now() + END;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked with the lock")
}

/// Decodes base64 (RFC 4648) with padding.
fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{byte} is no base64"),
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().fold(0u32, |all, byte| all << 6 | u32::from(value(*byte)));
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}
