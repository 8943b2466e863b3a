//! A real terminal of a program: tmux with a shell in it.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::command::{PIN_ENVIRONMENT, binary};
use crate::network::Network;
use crate::testbed::{Testbed, wait_for};

/// The text that the shell shows when it waits for a command.
pub const PROMPT: &str = "ready>";

/// A tmux server with one window of 80 by 24 cells. It ends with the value.
pub struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// Starts a shell on the host, with `breaker` on its path.
    pub fn start<N: Network>(testbed: &Testbed<N>) -> Self {
        let tmux = Self { directory: TempDir::new().expect("making a directory") };
        let programs = binary().parent().expect("a directory").display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        let mut command = tmux.command();
        command.args(["-f", "/dev/null", "-u", "new-session", "-d", "-x", "80", "-y", "24", "sh", "-i"]);
        command.envs(PIN_ENVIRONMENT).env("PATH", path).env("PS1", format!("{PROMPT} "));
        command
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .env_remove("ENV");
        let status = testbed.on_host(|| command.status()).expect("starting tmux");
        assert!(status.success(), "tmux: {status}");
        tmux.wait_for(PROMPT);
        tmux
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.socket()).env_remove("TMUX");
        command
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("tmux")
    }

    /// Runs a tmux command, and returns its output.
    fn run(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().expect("running tmux");
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Presses keys by their tmux names, such as `Enter`.
    pub fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Types text.
    pub fn write(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
    }

    /// Types a line of text and Enter.
    pub fn line(&self, text: &str) {
        self.write(text);
        self.keys(&["Enter"]);
    }

    /// The screen as text.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// True while a program shows the alternate screen.
    pub fn is_alternate(&self) -> bool {
        self.run(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// Waits until the screen contains a text, and returns the screen.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let mut last = String::new();
        wait_for(text, || {
            last = self.screen();
            last.contains(text).then(|| last.clone())
        })
    }

    /// Asserts that the shell has its terminal back: no alternate screen, lines and echo as before.
    #[track_caller]
    pub fn expect_restored(&self) {
        wait_for("the end of the alternate screen", || (!self.is_alternate()).then_some(()));
        // The shell's echo of the line does not contain the word that ends its output.
        let modes = "stty -a | tr ' ;' '\\n\\n' | grep -xE -- '-?(icanon|echo|isig|opost)' | tr '\\n' ' '";
        self.line(&format!("clear; {modes}; echo do''ne"));
        let screen = self.wait_for("done");
        let line = screen.lines().find(|line| line.contains("done")).unwrap_or_default();
        for mode in ["icanon", "echo", "isig", "opost"] {
            assert!(line.split_whitespace().any(|word| word == mode), "{mode}: {screen}");
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // After a failed start there is no server.
        let _ = self.command().arg("kill-server").output();
    }
}
