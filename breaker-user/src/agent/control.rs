//! Waits for requests at the control socket, and starts `breaker control` for each request.
//!
//! systemd runs this listener in a service apart from the agent. Without systemd the agent runs it. The
//! listener does not read requests: the process that it starts reads and checks the request.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, bind, listen};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::denials::{Denials, Logging};
use super::notice;
use crate::cli_error::Code;
use crate::kernel::PinRoot;
use crate::seqpacket::{connect_to, peer, socket};

/// Longest time from the connection to its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Most connections without a request. A further connection closes the oldest one: the command line sends its
/// request immediately.
const MAX_WAITING: usize = 256;
/// Most requests of one user that are served at the same time, so that no user can delay another.
const SERVED_PER_USER: usize = 2;
/// Most connections that wait in the kernel, see listen(2).
const BACKLOG: i32 = 1024;

/// The listener of the control socket.
pub struct Control {
    listener: AsyncFd<OwnedFd>,
    root: PinRoot,
    config: PathBuf,
    /// Path and inode of the socket, if this process created it.
    own_socket: Option<(PathBuf, u64)>,
    /// Connections without a request, oldest first.
    waiting: VecDeque<AbortHandle>,
    /// Limits the requests that are served, by uid.
    served_per_user: HashMap<u32, Arc<Semaphore>>,
    denials: Denials,
}

/// A request that was served.
struct Served {
    uid: u32,
    logging: Logging,
    /// Whether the request was denied.
    result: Result<bool>,
}

/// A connection with an unread request, and the uid of its peer.
type ReadyConnection = (OwnedFd, u32);

impl Control {
    /// Listens at a path. Returns `None` if another process already listens there. Requests apply to the load
    /// under `root`.
    pub fn listen(path: &Path, root: &PinRoot, config: &Path) -> Result<Option<Self>> {
        let listening = || format!("listening on the control socket {}", path.display());
        let Some(listener) = bind_to(path).with_context(listening)? else { return Ok(None) };
        let own_socket = inode(path).map(|inode| (path.to_owned(), inode));
        let control = Self::new(listener, root, config).with_context(listening)?;
        Ok(Some(Self { own_socket, ..control }))
    }

    /// Takes over a listening socket.
    pub fn new(listener: OwnedFd, root: &PinRoot, config: &Path) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(Self {
            listener: async_socket(listener)?,
            root: root.clone(),
            config: config.to_owned(),
            own_socket: None,
            waiting: VecDeque::new(),
            served_per_user: HashMap::new(),
            denials: Denials::default(),
        })
    }

    /// Serves requests until the shutdown.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut requests = JoinSet::<Option<ReadyConnection>>::new();
        let mut served = JoinSet::<Served>::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return self.remove_socket(),
                Some(ready) = requests.join_next() => {
                    if let Ok(Some(ready)) = ready {
                        self.serve(ready, &mut served);
                    }
                }
                Some(result) = served.join_next() => {
                    if let Ok(served) = result {
                        self.finish(served);
                    }
                }
                accepted = self.accept() => match accepted {
                    Ok(connection) => self.await_request(connection, &mut requests),
                    // The process has no free descriptor. The pause keeps this loop from taking a whole CPU.
                    Err(_) => sleep(Duration::from_millis(20)).await,
                },
            }
        }
    }

    /// Removes the socket that this process created, unless another process has replaced it.
    fn remove_socket(&self) {
        if let Some((path, own_inode)) = &self.own_socket
            && inode(path) == Some(*own_inode)
        {
            // The result is ignored: the next listener replaces the socket.
            let _ = fs::remove_file(path);
        }
    }

    async fn accept(&self) -> io::Result<OwnedFd> {
        let accept = |listener: &OwnedFd| Ok(accept_with(listener, SocketFlags::CLOEXEC)?);
        self.listener.async_io(Interest::READABLE, accept).await
    }

    /// Starts a task that waits for the request of a connection.
    fn await_request(&mut self, connection: OwnedFd, requests: &mut JoinSet<Option<ReadyConnection>>) {
        self.waiting.retain(|task| !task.is_finished());
        if self.waiting.len() >= MAX_WAITING
            && let Some(oldest) = self.waiting.pop_front()
        {
            oldest.abort();
        }
        self.waiting.push_back(requests.spawn(async move {
            let uid = peer(&connection).ok()?.uid;
            let connection = async_socket(connection).ok()?;
            timeout(REQUEST_TIMEOUT, connection.readable()).await.ok()?.ok()?.retain_ready();
            Some((connection.into_inner(), uid))
        }));
    }

    /// Starts a process for a request, once fewer than [`SERVED_PER_USER`] requests of the user are served.
    fn serve(&mut self, (connection, uid): ReadyConnection, served: &mut JoinSet<Served>) {
        let logging = self.denials.begin(uid, Instant::now());
        let limit = || Arc::new(Semaphore::new(SERVED_PER_USER));
        let limit = Arc::clone(self.served_per_user.entry(uid).or_insert_with(limit));
        // Runs the same program file as this process, even if an upgrade has replaced the file at its path.
        let mut command = Command::new("/proc/self/exe");
        command.arg("control").arg("--config").arg(&self.config);
        command.arg("--pin-root").arg(self.root.path());
        if self.root.is_private() {
            command.arg("--private-pins");
        }
        match logging {
            Logging::Omit => drop(command.arg("--omit-denied")),
            Logging::Log(omitted) => drop(command.arg("--omitted").arg(omitted.to_string())),
        }
        command
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::from(connection))
            .stdout(Stdio::null());
        served.spawn(async move { Served { uid, logging, result: run_process(&limit, command).await } });
    }

    /// Counts a request that was served.
    fn finish(&mut self, Served { uid, logging, result }: Served) {
        let is_denied = result.unwrap_or_else(|error| {
            notice(&format!("a request at the control socket was not served: {error:#}"));
            false
        });
        if self.denials.end(uid, logging, is_denied) {
            notice(&format!(
                "user {uid} sent more than 20 denied requests within a minute: the log counts further ones, \
                 and does not have a line for each"
            ));
        }
    }
}

/// Runs the process of a request once the limit allows. Returns whether the request was denied.
async fn run_process(limit: &Semaphore, mut command: Command) -> Result<bool> {
    let _permit = limit.acquire().await?;
    let status = command.status().await.context("starting `breaker control`")?;
    let is_denied = status.code() == Some(Code::Permission as i32);
    ensure!(status.success() || is_denied, "`breaker control` ended with {status}");
    Ok(is_denied)
}

/// Returns the inode of a path; `None` if it does not exist.
fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// Registers a socket with the event loop for reading.
fn async_socket(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns one descriptor, which stays open as long as the OwnedFd lives.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Creates a listening socket that every user may connect to. Returns `None` if another process listens at
/// the path.
fn bind_to(path: &Path) -> Result<Option<OwnedFd>> {
    match connect_to(path, Duration::from_millis(200)) {
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
        // The backlog of the socket is full, so a process listens there.
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
    // The path appears once the socket listens, and replaces the socket of an agent that died.
    let next = directory.join(format!(".control.{}", std::process::id()));
    let _ = fs::remove_file(&next);
    bind(&listener, &SocketAddrUnix::new(&next)?)?;
    let listens = listen(&listener, BACKLOG)
        .map_err(io::Error::from)
        .and_then(|()| fs::set_permissions(&next, Permissions::from_mode(0o666)))
        .and_then(|()| fs::rename(&next, path));
    if listens.is_err() {
        let _ = fs::remove_file(&next);
    }
    listens?;
    Ok(Some(listener))
}
