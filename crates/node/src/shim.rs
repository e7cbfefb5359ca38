//! A shim of this environment: started from the sealed executable, asked over one socket, heard over another, which is a
//! stream that Node's own loop reads.
//!
//! One an environment (the main thread, each worker), not one a process: when a worker ends, its sockets close, and what
//! it started ends by the same rule as when the process does.

use crate::held::hold;
use crate::outbox::Outbox;
use crate::outcome::{Failure, ShimEvent};
use crate::plan::Plan;
use crate::request::{ExecOptions, LaunchOptions, UnpackOptions};
use crate::start::{STACK, ShimOptions, Started, pair, start};
use crate::stdio;
use caisson_core::channel::{self, ATTACH, Attach, Exec, Request};
use caisson_core::{At, Code, Error, Result, Stage, journal, trust};
use caisson_sys::fd::{Number, duplicate};
use caisson_sys::{Cwd, Descriptor, Errno, Fd, file, socket};
use napi::bindgen_prelude::{AsyncTask, Buffer};
use napi::{Env, Task};
use napi_derive::napi;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket as new_socket};
use std::os::fd::AsRawFd;
use std::path::Path;

/// A shim and its sockets.
#[napi]
pub struct Shim {
    requests: Outbox,
    events: i32,
    started: Started,
    /// Where it works; none: it is another program's.
    place: Option<ShimOptions>,
}

#[napi]
impl Shim {
    /// Starts a shim, on a thread of its own for the few milliseconds which that takes: requests may be sent at once. If
    /// it cannot be started its events end, or there are none, and `failure` says why.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, options: ShimOptions) -> napi::Result<Self> {
        let place = options.clone();
        let (requests, events, started) = match start(options, false) {
            Ok((requests, events, started)) => (Some(requests), hold(events), started),
            Err(error) => (None, -1, Started::failed(error)),
        };
        let requests = Outbox::new(requests);
        let place = Some(place);
        let left = (requests.clone(), Aftermath { started: started.clone(), place: place.clone() });
        env.add_env_cleanup_hook(left, |(requests, mut aftermath)| {
            requests.close();
            // A worker's end is not the process's: somebody must take the shim's end, and nobody here may wait for it.
            if nix::unistd::gettid() != nix::unistd::getpid() {
                let _ = std::thread::Builder::new().stack_size(STACK).spawn(move || aftermath.run());
            }
        })?;
        Ok(Self { requests, events, started, place })
    }

    /// Comes to the shim of another program of the same user, by the path that it listens at. The first event is
    /// `welcome`. Without `events` nobody is there, and `failure` says so.
    #[napi(factory, catch_unwind)]
    pub fn connect(path: String) -> Self {
        let (requests, events, started) = match attach(&path) {
            Ok((requests, events)) => (Some(requests), hold(events), Started::elsewhere()),
            Err(error) => (None, -1, Started::failed(error)),
        };
        Self { requests: Outbox::new(requests), events, started, place: None }
    }

    /// Asks for the containers that run; the events are `listed`, and `done`.
    #[napi(catch_unwind)]
    pub fn list(&self, token: f64) -> Option<Failure> {
        self.ask(&Request::List { token: token as u64 })
    }

    /// Waits for the end of a container; the event is `done`.
    #[napi(catch_unwind)]
    pub fn wait(&self, token: f64, container: f64) -> Option<Failure> {
        self.ask(&Request::Wait { token: token as u64, container: container as u64 })
    }

    /// Why the shim could not be started; waits until that is known.
    #[napi(getter, catch_unwind)]
    pub fn failure(&self) -> Option<Failure> {
        self.started.failure().map(Into::into)
    }

    /// The stream of its events: a descriptor that is held, or -1. Its end is the shim's.
    #[napi(getter, catch_unwind)]
    pub fn events(&self) -> i32 {
        self.events
    }

    /// After the end of its events: waits for the shim's end, and undoes what it left if it did not leave by itself.
    #[napi(catch_unwind)]
    pub fn ended(&self) -> AsyncTask<Aftermath> {
        self.requests.close();
        AsyncTask::new(Aftermath { started: self.started.clone(), place: self.place.clone() })
    }

    /// Starts a container; what comes of it are events.
    #[napi(catch_unwind)]
    pub fn launch(&self, plan: &Plan, options: LaunchOptions) -> Option<Failure> {
        self.try_launch(plan, options).err().map(Into::into)
    }

    /// Starts another command in a container, by a plan made for one; what comes of it are the events of a start.
    #[napi(catch_unwind)]
    pub fn exec(&self, plan: &Plan, options: ExecOptions) -> Option<Failure> {
        self.try_exec(plan, &options).err().map(Into::into)
    }

    /// Sends a signal to a container's main process, or to another command.
    #[napi(catch_unwind)]
    pub fn signal(&self, token: f64, signal: i32) -> Option<Failure> {
        self.ask(&Request::Signal { token: token as u64, signal })
    }

    /// Kills everything in a container, or another command and its children. `cause`: 2 an abort, 3 the API.
    #[napi(catch_unwind)]
    pub fn kill(&self, token: f64, cause: u32) -> Option<Failure> {
        self.ask(&Request::Kill { token: token as u64, cause: cause as u8 })
    }

    /// Sets the size of a terminal.
    #[napi(catch_unwind)]
    pub fn resize(&self, token: f64, columns: u32, rows: u32) -> Option<Failure> {
        let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
        self.ask(&Request::Resize { token: token as u64, columns: side(columns), rows: side(rows) })
    }

    /// Asks for a container's figures, or another command's; they come as an event with this `request`.
    #[napi(catch_unwind)]
    pub fn stats(&self, token: f64, request: f64) -> Option<Failure> {
        self.ask(&Request::Stats { token: token as u64, request: request as u64 })
    }

    /// Unpacks a layer into the store, if it is not there; the event is `unpacked` or `failed`.
    #[napi(catch_unwind)]
    pub fn unpack(&self, options: UnpackOptions) -> Option<Failure> {
        let (blob, gate) = (Number(options.blob), options.gate.map(Number));
        let mut descriptors: Vec<&dyn Descriptor> = vec![&blob];
        descriptors.extend(gate.as_ref().map(|gate| gate as &dyn Descriptor));
        self.send(&Request::Unpack { layer: options.into() }, &descriptors).err().map(Into::into)
    }

    /// Reads an archive of images, a descriptor at its beginning, into an empty directory, an open one: its files under
    /// numbers, and `table.json` with what they are called; or with `layer` what is one layer to be. Both stay the
    /// caller's; the event is `unpacked` or `failed`.
    #[napi(catch_unwind)]
    pub fn spool(&self, token: f64, source: i32, directory: i32, layer: bool) -> Option<Failure> {
        let request = Request::Spool { token: token as u64, layer };
        self.send(&request, &[&Number(source), &Number(directory)]).err().map(Into::into)
    }

    /// Writes the writable layer of a container that runs into an empty directory, an open one: its blob as `0`, and
    /// `table.json`. `pause`: 0 not, 1 if it can be, 2 or nothing. The event is `unpacked` or `failed`.
    #[napi(catch_unwind)]
    pub fn commit(&self, token: f64, container: f64, pause: u32, directory: i32) -> Option<Failure> {
        let (token, container, pause) = (token as u64, container as u64, pause as u8);
        self.send(&Request::Commit { token, container, pause }, &[&Number(directory)]).err().map(Into::into)
    }

    /// Writes the root file system of a container that runs to `target` as an archive, without what is mounted in it. It
    /// stays the caller's; the event is `unpacked` or `failed`.
    #[napi(catch_unwind)]
    pub fn export(&self, token: f64, container: f64, target: i32) -> Option<Failure> {
        let (token, container) = (token as u64, container as u64);
        self.send(&Request::Export { token, container }, &[&Number(target)]).err().map(Into::into)
    }

    /// Removes what was thrown away of the store; the event is `done`.
    #[napi(catch_unwind)]
    pub fn sweep(&self, token: f64) -> Option<Failure> {
        self.ask(&Request::Sweep { token: token as u64 })
    }

    /// Ends an unpacking; the event is its failure.
    #[napi(catch_unwind)]
    pub fn cancel(&self, token: f64) -> Option<Failure> {
        self.ask(&Request::Cancel { token: token as u64 })
    }

    /// Connects to a port of a container from inside its network; the event is `dialed`, with the connection in the socket
    /// that was given, or `failed`.
    #[napi(catch_unwind)]
    pub fn dial(&self, token: f64, container: f64, port: u32, back: i32) -> Option<Failure> {
        let port = u16::try_from(port).unwrap_or_default();
        let request = Request::Dial { token: token as u64, container: container as u64, port };
        self.send(&request, &[&Number(back)]).err().map(Into::into)
    }

    /// Waits until something in a container listens at a port; the event is `done`, or `failed`. `cancel` ends it.
    #[napi(catch_unwind)]
    pub fn listening(&self, token: f64, container: f64, port: u32) -> Option<Failure> {
        let port = u16::try_from(port).unwrap_or_default();
        self.ask(&Request::Listening { token: token as u64, container: container as u64, port })
    }

    /// Ends the shim and all it holds.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.requests.close();
    }
}

/// The two sockets of one who is no owner. By a short way: a socket's address has room for 107 bytes (unix(7)).
fn attach(path: &str) -> Result<(Fd, Fd)> {
    let stage = Stage::SHIM;
    let name = std::ffi::CString::new(path).map_err(|_| Error::invalid("path", "holds a NUL byte"))?;
    let place = file::openat2(Cwd, &name, file::open::PATH, 0, 0).at(stage, path)?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}", place.raw()).as_str()).at(stage, path)?;
    // Not to wait for one that is stopped.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let requests = new_socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).at(stage, path)?;
    connect(requests.as_raw_fd(), &address).at(stage, path)?;
    // What has no room waits on a thread (outbox.rs).
    fcntl(&requests, FcntlArg::F_SETFL(OFlag::empty())).at(stage, path)?;
    let (events, theirs) = pair(SockType::Stream)?;
    let requests = Fd::from(requests);
    let attach = Attach { version: ATTACH.to_owned() };
    channel::send(&requests, &attach, &[&theirs], false).at(stage, path)?;
    Ok((requests, events))
}

/// What is done on another thread once a shim has ended.
pub struct Aftermath {
    started: Started,
    place: Option<ShimOptions>,
}

impl Aftermath {
    fn run(&mut self) {
        // Its lock goes with it; before that its journals are its own.
        if let (Some(mut child), Some(place)) = (self.started.take(), &self.place) {
            let _ = child.wait();
            if trust::check_root("runRoot", &place.run_root).is_err() {
                return;
            }
            let left = journal::recover(Path::new(&place.run_root));
            // What a container's other users own, the user has rights over in a user namespace alone.
            if !left.is_empty()
                && place.ids.is_some()
                && let Ok((_requests, _events, started)) = start(place.clone(), true)
                && let Some(mut child) = started.take()
            {
                let _ = child.wait();
            }
        }
    }
}

impl Task for Aftermath {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        self.run();
        Ok(())
    }

    fn resolve(&mut self, _: Env, (): ()) -> napi::Result<()> {
        Ok(())
    }
}

/// The events at the front of what was read of a shim's stream.
#[napi(object)]
pub struct Heard {
    /// Whole events, in order.
    pub events: Vec<ShimEvent>,
    /// How many bytes they took; what is left is the beginning of the next.
    pub taken: u32,
    /// Why the rest cannot be read; the stream is of no use any more.
    pub failure: Option<Failure>,
}

/// Reads the whole events at the front of `bytes`.
#[napi(catch_unwind)]
#[must_use]
pub fn hear(bytes: Buffer) -> Heard {
    let mut heard = Heard { events: Vec::new(), taken: 0, failure: None };
    let mut rest: &[u8] = &bytes;
    loop {
        match channel::unframe(rest) {
            Ok(None) => return heard,
            Ok(Some((event, length))) => {
                heard.events.push(ShimEvent::of(event));
                heard.taken += u32::try_from(length).unwrap_or(u32::MAX);
                rest = rest.get(length..).unwrap_or_default();
            }
            Err(error) => {
                heard.failure = Some(error.into());
                return heard;
            }
        }
    }
}

/// Two ends of a descriptor's way back: the first for a request, the second for `receiveDescriptor`; both held.
///
/// # Errors
/// EMFILE.
#[napi(catch_unwind)]
pub fn way_back() -> napi::Result<Vec<i32>> {
    let (theirs, ours) =
        pair(SockType::SeqPacket).map_err(|error| napi::Error::from_reason(error.to_string()))?;
    Ok(vec![hold(theirs), hold(ours)])
}

/// The descriptor that a shim has sent, held; -1 if there is none. The socket stays the caller's.
#[napi(catch_unwind)]
#[must_use]
pub fn receive_descriptor(socket: i32) -> i32 {
    let received = socket::receive(Number(socket), &mut [0u8; 16], false);
    let sent = received.ok().and_then(|received| received.descriptors.into_iter().flatten().next());
    sent.map_or(-1, hold)
}

impl Shim {
    fn ask(&self, request: &Request) -> Option<Failure> {
        self.send(request, &[]).err().map(Into::into)
    }

    fn send(&self, request: &Request, descriptors: &[&dyn Descriptor]) -> Result<()> {
        let lost = || {
            let message = "the process that holds the containers is gone";
            let gone = || Error::new(Code::ShimLost, Stage::CHANNEL, "shim", message);
            self.started.failure().unwrap_or_else(gone)
        };
        self.requests.send(request, descriptors).map_err(|errno| match errno {
            errno if errno.raw() == nix::errno::Errno::EMFILE as i32 || errno == Errno::EAGAIN => {
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
        let (stdio, launch) = options.split();
        let own_stdio = launch.own_stdio;
        self.send_with(&Request::Launch { launch }, plan, &stdio, own_stdio)
    }

    fn try_exec(&self, plan: &Plan, options: &ExecOptions) -> Result<()> {
        let exec = Exec::from(options);
        let own_stdio = exec.own_stdio;
        self.send_with(&Request::Exec { exec }, plan, &options.stdio, own_stdio)
    }

    /// Sends what has a plan and stdio.
    fn send_with(&self, request: &Request, plan: &Plan, wanted: &[i32], own_stdio: u8) -> Result<()> {
        let plan_file = plan.outcome.as_ref().map_err(Clone::clone)?;
        let stdio = match wanted {
            [terminal] if plan.terminal => {
                vec![duplicate(Number(*terminal), 3).at(Stage::TERMINAL, "terminal")?]
            }
            wanted => stdio::open(wanted, own_stdio)?,
        };
        let mut descriptors: Vec<&dyn Descriptor> = vec![plan_file];
        descriptors.extend(stdio.iter().map(|file| file as &dyn Descriptor));
        self.send(request, &descriptors)
    }
}
