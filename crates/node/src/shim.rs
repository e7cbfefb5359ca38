//! A shim of this environment: started from the sealed executable, spoken to over one socket, listened to by one thread.
//!
//! One an environment (the main thread, each worker), not one a process: when a worker ends, its socket closes, and what
//! it started ends by the same rule as when the process does.

use crate::executable::sealed;
use crate::outcome::{Failure, ShimEvent};
use crate::plan::Plan;
use crate::stdio;
use caisson_core::channel::{self, Event, Hello, Launch, Layered, Request};
use caisson_core::wire::Bytes;
use caisson_core::{At, Code, Error, Result, Stage, journal};
use caisson_sys::{Descriptor, Fd};
use napi::Env;
use napi::bindgen_prelude::{Function, Status};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

type Callback = ThreadsafeFunction<ShimEvent, (), ShimEvent, Status, false, true>;

/// Where a shim works.
#[napi(object)]
pub struct ShimOptions {
    /// The executable.
    pub runtime: String,
    /// Run state: journals and engine files.
    pub run_root: String,
    /// Writable layers.
    pub data_root: String,
    /// The cgroup below which containers' groups are made.
    pub cgroup_parent: Option<String>,
}

/// One overlay of a root file system.
#[napi(object)]
pub struct LayeredOptions {
    /// Its place in the container; `/` for the first.
    pub target: String,
    /// Its layers, the topmost first.
    pub lowers: Vec<String>,
}

/// A file of the bundle directory.
#[napi(object)]
pub struct BundleFile {
    /// Its name, a relative mount source of the spec.
    pub name: String,
    /// Its content.
    pub content: String,
}

/// One start.
#[napi(object)]
pub struct LaunchOptions {
    /// The caller's number for it, in every event about it.
    pub token: f64,
    /// The container's id.
    pub id: String,
    /// Its host name.
    pub hostname: String,
    /// Its root file system.
    pub rootfs: Vec<LayeredOptions>,
    /// Files that its spec mounts by relative sources.
    pub files: Vec<BundleFile>,
    /// stdin, stdout, stderr: a descriptor, or -1 for /dev/null. Not read with a terminal. None is closed.
    pub stdio: Vec<i32>,
    /// Which of them (1, 2, 4) are ends of pipes that Caisson made, to be given to the payload's user.
    pub own_stdio: u32,
    /// Milliseconds after which it is killed; 0: never.
    pub timeout_ms: f64,
}

/// A shim and its socket.
#[napi]
pub struct Shim {
    socket: Arc<Mutex<Option<Fd>>>,
    failure: Option<Failure>,
}

#[napi]
impl Shim {
    /// Starts a shim; its events go to `callback`, which must not throw. `failure` says whether that went well.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, options: ShimOptions, callback: Function<'_, ShimEvent, ()>) -> napi::Result<Self> {
        let callback: Callback =
            callback.build_threadsafe_function().callee_handled::<false>().weak::<true>().build()?;
        let started = start(&options);
        let (socket, failure) = match started {
            Ok((socket, child)) => {
                let socket = Arc::new(Mutex::new(Some(socket)));
                listen(Arc::clone(&socket), child, callback, options.run_root);
                (socket, None)
            }
            Err(error) => (Arc::new(Mutex::new(None)), Some(error.into())),
        };
        let at_exit = Arc::clone(&socket);
        env.add_env_cleanup_hook(at_exit, |socket| close(&socket))?;
        Ok(Self { socket, failure })
    }

    /// Why the shim could not be started.
    #[napi(getter, catch_unwind)]
    pub fn failure(&self) -> Option<Failure> {
        self.failure.clone()
    }

    /// Starts a container; what comes of it are events.
    #[napi(catch_unwind)]
    pub fn launch(&self, plan: &Plan, options: LaunchOptions) -> Option<Failure> {
        self.try_launch(plan, options).err().map(Into::into)
    }

    /// Sends a signal to a container's main process.
    #[napi(catch_unwind)]
    pub fn signal(&self, token: f64, signal: i32) -> Option<Failure> {
        self.ask(&Request::Signal { token: token as u64, signal })
    }

    /// Kills everything in a container. `cause`: 2 an abort, 3 the API.
    #[napi(catch_unwind)]
    pub fn kill(&self, token: f64, cause: u32) -> Option<Failure> {
        self.ask(&Request::Kill { token: token as u64, cause: cause as u8 })
    }

    /// Sets the size of a container's terminal.
    #[napi(catch_unwind)]
    pub fn resize(&self, token: f64, columns: u32, rows: u32) -> Option<Failure> {
        let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
        self.ask(&Request::Resize { token: token as u64, columns: side(columns), rows: side(rows) })
    }

    /// Asks for a container's figures; they come as an event with this `request`.
    #[napi(catch_unwind)]
    pub fn stats(&self, token: f64, request: f64) -> Option<Failure> {
        self.ask(&Request::Stats { token: token as u64, request: request as u64 })
    }

    /// Ends the shim and all it holds.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        close(&self.socket);
    }
}

impl Shim {
    fn ask(&self, request: &Request) -> Option<Failure> {
        self.send(request, &[]).err().map(Into::into)
    }

    fn send(&self, request: &Request, descriptors: &[&dyn Descriptor]) -> Result<()> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = || {
            Error::new(
                Code::ShimLost,
                Stage::CHANNEL,
                "shim",
                "the process that holds the containers is gone",
            )
        };
        let socket = socket.as_ref().ok_or_else(lost)?;
        channel::send(socket, request, descriptors, false).map_err(|errno| match errno {
            caisson_sys::Errno::EAGAIN => {
                let message = "too many requests wait for the shim";
                Error {
                    errno: Some(errno.raw()),
                    ..Error::new(Code::Launch, Stage::CHANNEL, "shim", message)
                }
            }
            errno if errno.raw() == nix::errno::Errno::EMSGSIZE as i32 => Error::new(
                Code::InvalidSpec,
                Stage::CHANNEL,
                "launch",
                "its files and layers are larger than 128 KiB",
            ),
            _ => lost(),
        })
    }

    fn try_launch(&self, plan: &Plan, options: LaunchOptions) -> Result<()> {
        let plan_file = plan.outcome.as_ref().map_err(Clone::clone)?;
        let own_stdio = options.own_stdio as u8;
        let stdio = if plan.terminal { Vec::new() } else { stdio::open(&options.stdio, own_stdio)? };
        let launch = Launch {
            token: options.token as u64,
            id: options.id,
            hostname: options.hostname,
            rootfs: options
                .rootfs
                .into_iter()
                .map(|layered| Layered { target: layered.target, lowers: layered.lowers })
                .collect(),
            files: options
                .files
                .into_iter()
                .map(|file| (file.name, Bytes(file.content.into_bytes())))
                .collect(),
            own_stdio,
            timeout_ms: options.timeout_ms as u64,
        };
        let mut descriptors: Vec<&dyn Descriptor> = vec![plan_file];
        descriptors.extend(stdio.iter().map(|file| file as &dyn Descriptor));
        self.send(&Request::Launch { launch }, &descriptors)
    }
}

fn close(socket: &Mutex<Option<Fd>>) {
    let socket = socket.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(socket) = socket {
        // The listening thread holds a second descriptor: both see the end.
        let _ = shutdown(socket.as_fd().as_raw_fd(), Shutdown::Both);
    }
}

/// Starts the sealed executable with the socket as standard input, an empty environment, and says hello.
fn start(options: &ShimOptions) -> Result<(Fd, std::process::Child)> {
    let executable = sealed(&options.runtime)?;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.at(Stage::SHIM, "socketpair")?;
    let child = Command::new(format!("/proc/self/fd/{}", executable.raw()))
        .arg0("caisson-runtime")
        .arg("shim")
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .at(Stage::SHIM, options.runtime.as_str())?;
    let hello = Hello {
        run_root: options.run_root.clone(),
        data_root: options.data_root.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
    };
    let ours = Fd::from(ours);
    channel::send(&ours, &hello, &[], false).at(Stage::SHIM, "hello")?;
    Ok((ours, child))
}

/// Reads the shim's events on a thread of its own until the socket ends; then takes the shim's end, and undoes what it
/// left if it did not leave by itself.
fn listen(
    socket: Arc<Mutex<Option<Fd>>>,
    mut child: std::process::Child,
    callback: Callback,
    run_root: String,
) {
    let reader =
        socket.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|socket| socket.duplicate(3));
    let Some(Ok(reader)) = reader else { return };
    let work = move || {
        let mut room = vec![0u8; channel::MAX_MESSAGE];
        while let Ok(Some((event, descriptors))) = channel::receive::<Event>(&reader, &mut room, true) {
            let terminal = descriptors.into_iter().next().map(Fd::into_raw);
            callback.call(ShimEvent::of(event, terminal), ThreadsafeFunctionCallMode::NonBlocking);
        }
        // Whoever closed our side wanted no more; else the shim is gone by itself.
        let asked = socket.lock().unwrap_or_else(PoisonError::into_inner).take().is_none();
        let _ = child.wait();
        journal::recover(Path::new(&run_root));
        if !asked {
            let message = "the process that held the containers ended; they were killed and taken down";
            let failure = Error::new(Code::ShimLost, Stage::WATCH, "shim", message);
            let event = ShimEvent { failure: Some(failure.into()), ..ShimEvent::new("lost", 0) };
            callback.call(event, ThreadsafeFunctionCallMode::NonBlocking);
        }
    };
    // Without a thread nothing is heard: the socket closes, and the runs are told that their shim is lost.
    let _ = std::thread::Builder::new().name("caisson-shim".to_owned()).stack_size(256 << 10).spawn(work);
}
