//! Waits for requests at the control socket, and starts `breaker control` for each request.
//!
//! systemd starts this apart from the agent. Without systemd the agent listens. The listener reads no request
//! and decides nothing: the process that it starts does.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, bind, listen};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::notice;
use crate::kernel::PinRoot;
use crate::seqpacket::{connect_to, peer, socket};

/// How long a connection may wait with its request.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Most connections that wait with their request. One more ends the oldest of them: a user who presses the
/// button sends the request at once.
const MAX_WAITING: usize = 256;
/// Most requests of one user that are served at a time, so that no user can delay another.
const SERVED_PER_USER: usize = 2;
/// Most connections in the kernel's queue.
const QUEUE: i32 = 1024;

/// The control socket of an agent.
pub struct Control {
    listener: AsyncFd<OwnedFd>,
    root: PinRoot,
    config: PathBuf,
    /// Path and inode of the socket that this process made.
    own: Option<(PathBuf, u64)>,
    waiting: VecDeque<AbortHandle>,
    turns: HashMap<u32, Arc<Semaphore>>,
}

/// A connection with a request that nobody has read, and the uid at its other end.
type Ready = (OwnedFd, u32);

impl Control {
    /// Listens at a path; `None` if another process does. The requests are about the load under `root`.
    pub fn listen(path: &Path, root: &PinRoot, config: &Path) -> Result<Option<Self>> {
        let listening = || format!("listening on the control socket {}", path.display());
        let Some(listener) = bind_to(path).with_context(listening)? else { return Ok(None) };
        let own = inode(path).map(|inode| (path.to_owned(), inode));
        let control = Self::new(listener, root, config).with_context(listening)?;
        Ok(Some(Self { own, ..control }))
    }

    /// Serves a listening socket.
    pub fn new(listener: OwnedFd, root: &PinRoot, config: &Path) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let listener = watched(listener)?;
        let (waiting, turns) = (VecDeque::new(), HashMap::new());
        Ok(Self { listener, root: root.clone(), config: config.to_owned(), own: None, waiting, turns })
    }

    /// Serves until the end of the agent.
    pub async fn run(mut self, ended: impl Future<Output = ()>) {
        let mut waits = JoinSet::<Option<Ready>>::new();
        let mut served = JoinSet::<Result<()>>::new();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => return self.remove(),
                Some(ready) = waits.join_next() => {
                    if let Ok(Some(ready)) = ready {
                        self.serve(ready, &mut served);
                    }
                }
                Some(result) = served.join_next() => {
                    if let Ok(Err(error)) = result {
                        notice(&format!("a request at the control socket was not served: {error:#}"));
                    }
                }
                accepted = self.accept() => match accepted {
                    Ok(connection) => self.wait(connection, &mut waits),
                    // No descriptor is left. A pause keeps this loop from taking a whole CPU.
                    Err(_) => sleep(Duration::from_millis(20)).await,
                },
            }
        }
    }

    /// Removes the socket that this process made, unless another process has replaced it.
    fn remove(&self) {
        if let Some((path, own)) = &self.own
            && inode(path) == Some(*own)
        {
            // The result is ignored: the next listener replaces a socket that stays.
            let _ = fs::remove_file(path);
        }
    }

    async fn accept(&self) -> io::Result<OwnedFd> {
        let accept = |listener: &OwnedFd| Ok(accept_with(listener, SocketFlags::CLOEXEC)?);
        self.listener.async_io(Interest::READABLE, accept).await
    }

    /// Waits for the request of a connection.
    fn wait(&mut self, connection: OwnedFd, waits: &mut JoinSet<Option<Ready>>) {
        self.waiting.retain(|wait| !wait.is_finished());
        if self.waiting.len() >= MAX_WAITING
            && let Some(oldest) = self.waiting.pop_front()
        {
            oldest.abort();
        }
        self.waiting.push_back(waits.spawn(async move {
            let uid = peer(&connection).ok()?.uid;
            let connection = watched(connection).ok()?;
            timeout(TIMEOUT, connection.readable()).await.ok()?.ok()?.retain_ready();
            Some((connection.into_inner(), uid))
        }));
    }

    /// Starts a process for a request when it is the user's turn.
    fn serve(&mut self, (connection, uid): Ready, served: &mut JoinSet<Result<()>>) {
        let turns = self.turns.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(SERVED_PER_USER)));
        let turns = Arc::clone(turns);
        // The program of this process, also if a newer one has its path by now.
        let mut command = Command::new("/proc/self/exe");
        command.arg("control").arg("--config").arg(&self.config);
        command.arg("--pin-root").arg(self.root.path());
        if self.root.is_private() {
            command.arg("--private-pins");
        }
        command
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::from(connection))
            .stdout(Stdio::null());
        served.spawn(async move {
            let _turn = turns.acquire().await?;
            let status = command.status().await.context("starting `breaker control`")?;
            ensure!(status.success(), "`breaker control` ended with {status}");
            Ok(())
        });
    }
}

/// The inode of a path.
fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// A socket whose readability can be awaited.
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd has one descriptor, which stays open as long as its owner.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Makes a listening socket that every user may connect to; `None` if another process listens at the path.
fn bind_to(path: &Path) -> Result<Option<OwnedFd>> {
    match connect_to(path, Duration::from_millis(200)) {
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
        // Its queue is full: somebody listens.
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let found = fs::symlink_metadata(path).ok();
    if found.is_some_and(|found| !found.file_type().is_socket()) {
        bail!("something else than a socket is there: remove it, or correct [agent].control");
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let listener = socket()?;
    // The name appears once the socket listens. A socket that a dead agent left is replaced.
    let next = directory.join(format!(".control.{}", std::process::id()));
    let _ = fs::remove_file(&next);
    bind(&listener, &SocketAddrUnix::new(&next)?)?;
    let listens = listen(&listener, QUEUE)
        .map_err(io::Error::from)
        .and_then(|()| fs::set_permissions(&next, Permissions::from_mode(0o666)))
        .and_then(|()| fs::rename(&next, path));
    if listens.is_err() {
        let _ = fs::remove_file(&next);
    }
    listens?;
    Ok(Some(listener))
}
