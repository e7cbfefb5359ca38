//! The start of a shim: its sockets at once, its process on a thread, since reading, sealing and executing what it is made
//! of takes some milliseconds that Node has other uses for.

use crate::executable::sealed;
use caisson_core::channel::{self, Hello};
use caisson_core::idmap::IdMap;
use caisson_core::off::off;
use caisson_core::{At, Code, Error, Result, Stage};
use caisson_sys::{Descriptor, Fd};
use napi_derive::napi;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes of stack of a thread that does one small thing.
pub(crate) const STACK: usize = 256 << 10;

/// Where a shim works.
#[napi(object)]
#[derive(Clone)]
pub struct ShimOptions {
    /// The executable.
    pub runtime: String,
    /// A file of the package's own JavaScript, whose owner may own the executable too.
    pub javascript: String,
    /// Run state: journals and engine files.
    pub run_root: String,
    /// Writable layers.
    pub data_root: String,
    /// The cgroup below which containers' groups are made.
    pub cgroup_parent: Option<String>,
    /// The user namespace that it works in; none for root.
    pub ids: Option<IdOptions>,
}

/// The ids of a user namespace. A range is three numbers: the first inside, the first outside, how many.
#[napi(object)]
#[derive(Clone)]
pub struct IdOptions {
    /// Users, range after range.
    pub uids: Vec<u32>,
    /// Groups, range after range.
    pub gids: Vec<u32>,
    /// The paths of newuidmap and newgidmap; none for one user and one group alone.
    pub helpers: Option<Vec<String>>,
}

impl From<IdOptions> for IdMap {
    fn from(options: IdOptions) -> Self {
        let ranges = |numbers: &[u32]| {
            let ranges = numbers.as_chunks::<3>().0.iter();
            ranges.map(|[inside, outside, count]| (*inside, (*outside, *count))).collect()
        };
        let helpers = options.helpers.and_then(|paths| <[String; 2]>::try_from(paths).ok());
        let (uids, gids) = (ranges(&options.uids), ranges(&options.gids));
        Self { uids, gids, helpers: helpers.map(|[uid, gid]| (uid, gid)) }
    }
}

enum Start {
    Under(JoinHandle<Result<Child>>),
    /// The process, until somebody took it to wait for its end; or why there is none.
    Over(Result<Option<Child>>),
}

/// A shim's process, as far as it is there.
#[derive(Clone)]
pub(crate) struct Started(Arc<Mutex<Start>>);

impl Started {
    /// One that could not even begin.
    pub(crate) fn failed(error: Error) -> Self {
        Self(Arc::new(Mutex::new(Start::Over(Err(error)))))
    }

    /// One that another program has.
    pub(crate) fn elsewhere() -> Self {
        Self(Arc::new(Mutex::new(Start::Over(Ok(None)))))
    }

    /// Why there is no process; waits until that is known.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.outcome(|outcome| outcome.as_ref().err().cloned())
    }

    /// The process, the first time; waits until it is there.
    pub(crate) fn take(&self) -> Option<Child> {
        self.outcome(|outcome| outcome.as_mut().ok().and_then(Option::take))
    }

    fn outcome<T>(&self, look: impl FnOnce(&mut Result<Option<Child>>) -> T) -> T {
        let lost = || Error::new(Code::Internal, Stage::SHIM, "thread", "it ended without an answer");
        let mut start = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = match std::mem::replace(&mut *start, Start::Over(Err(lost()))) {
            Start::Under(thread) => thread.join().unwrap_or_else(|_| Err(lost())).map(Some),
            Start::Over(outcome) => outcome,
        };
        let seen = look(&mut outcome);
        *start = Start::Over(outcome);
        seen
    }
}

/// Makes the sockets, says hello, and has the executable started on a thread. With `recover` it undoes what others left,
/// and ends.
pub(crate) fn start(options: ShimOptions, recover: bool) -> Result<(Fd, Fd, Started)> {
    let (requests, their_requests) = pair(SockType::SeqPacket)?;
    let (events, their_events) = pair(SockType::Stream)?;
    let hello = Hello {
        run_root: options.run_root,
        data_root: options.data_root,
        cgroup_parent: options.cgroup_parent,
        ids: options.ids.map(IdMap::from),
        recover,
    };
    channel::send(&requests, &hello, &[], false).at(Stage::SHIM, "hello")?;
    let (runtime, javascript) = (options.runtime, options.javascript);
    let spawn = move || spawn(&runtime, &javascript, their_requests, their_events);
    let thread = std::thread::Builder::new().name("caisson-start".into()).stack_size(STACK).spawn(spawn);
    let thread = thread.at(Stage::SHIM, "thread")?;
    Ok((requests, events, Started(Arc::new(Mutex::new(Start::Under(thread))))))
}

/// Starts the sealed executable with its sockets as standard input and output, and an empty environment.
fn spawn(runtime: &str, javascript: &str, requests: Fd, events: Fd) -> Result<Child> {
    let executable = sealed(runtime, javascript)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", executable.raw()));
    command.arg0("caisson-runtime").arg("shim");
    if !off("environment") {
        command.env_clear();
    }
    #[cfg(feature = "off")]
    command.envs(std::env::var_os("CAISSON_OFF").map(|list| ("CAISSON_OFF", list)));
    command
        .stdin(Stdio::from(OwnedFd::from(requests)))
        .stdout(Stdio::from(OwnedFd::from(events)))
        .stderr(Stdio::null())
        .spawn()
        .at(Stage::SHIM, runtime)
}

/// A pair of sockets.
pub(crate) fn pair(kind: SockType) -> Result<(Fd, Fd)> {
    let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
    let (left, right) = pair.at(Stage::SHIM, "socketpair")?;
    Ok((left.into(), right.into()))
}
