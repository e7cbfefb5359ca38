//! What an owner and its shim say to each other, and init to its shim. Both ends are here.
//!
//! Requests and reports are messages with descriptors, one a packet, over a SEQPACKET socket. Events go back over a stream,
//! each behind its length, so that Node's own loop can read them: a native thread that listens would cost a wake-up more
//! a run. The one descriptor that goes back, a terminal, has a socket of its own, which comes with the launch.

use crate::cgroup::stats::Usage;
use crate::error::{At, Code, Error, Result, Stage};
use crate::idmap::IdMap;
use crate::wire::{Bytes, Wire, wire};
use caisson_sys::{Descriptor, Errno, Fd, socket};

/// The largest message. The kernel's default for one packet is above it (net.core.wmem_default, 208 KiB).
pub const MAX_MESSAGE: usize = 128 << 10;

wire! {
    /// The first message of an owner: how its shim is to work. No descriptors.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Hello {
        /// Where run state goes: journals and the engine's files, on a tmpfs.
        pub run_root: String,
        /// Where writable layers go.
        pub data_root: String,
        /// The group below which containers' groups are made; none: the default.
        pub cgroup_parent: Option<String>,
        /// The user namespace that the shim works in; none: its owner is root.
        pub ids: Option<IdMap>,
        /// It only undoes what dead shims left, by the rights that it has, and ends.
        pub recover: bool,
    }
}

wire! {
    /// The first message of another program of the same user. Descriptor: the stream that its events go to. The answer is
    /// [`Event::Welcome`]. All that an owner can ask it can, but to start containers and to unpack layers; the containers
    /// that it asks about are the owner's, its commands are its own and end with it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Attach {
        /// Of whom: so that nothing else is taken for it.
        pub version: String,
    }
}

/// The version of [`Attach`]: both ends are of one build, or do not talk.
pub const ATTACH: &str = concat!("caisson ", env!("CARGO_PKG_VERSION"), " 1");

/// How many numbers each program has for what it asks; those of the n-th begin at n times this. The owner is the first.
pub const TOKENS: u64 = 1 << 32;

wire! {
    /// A container, for other programs.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Listed {
        /// Its number.
        pub container: u64,
        /// Its id.
        pub id: String,
        /// Its first process.
        pub pid: u32,
        /// As in [`Launch`].
        pub about: String,
        /// What is in force.
        pub isolation: Isolation,
    }
}

wire! {
    /// One overlay of a root file system: at `/` first, then the machine's other file systems at their places.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Layered {
        /// Where it goes, inside the container.
        pub target: String,
        /// Its layers, the topmost first.
        pub lowers: Vec<String>,
    }
}

wire! {
    /// A start. Descriptors: the plan, then stdin, stdout and stderr, or for a plan with a terminal the socket to which
    /// its master is sent before [`Event::Started`].
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Launch {
        /// The owner's number for it, in every event about it.
        pub token: u64,
        /// The container's id: 64 hex digits.
        pub id: String,
        /// The host name, where the spec has none.
        pub hostname: String,
        /// The root file system.
        pub rootfs: Vec<Layered>,
        /// Files of the bundle directory: name and content.
        pub files: Vec<(String, Bytes)>,
        /// Which of stdin (1), stdout (2), stderr (4) are pipes that Caisson made, to be given to the payload's user.
        pub own_stdio: u8,
        /// The chain id of the image's topmost layer, which is held while the container lives; none: it is of no image.
        pub layer: Option<String>,
        /// Without a cgroup of its own it is not started.
        pub grouped: bool,
        /// What the owner says of it to other programs of the same user: text that the shim keeps and does not read.
        pub about: String,
        /// Milliseconds after which everything is killed; 0: never.
        pub timeout_ms: u64,
    }
}

wire! {
    /// Another command in a container that runs. Descriptors: as for [`Launch`].
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Exec {
        /// The owner's number for it, in every event about it.
        pub token: u64,
        /// The container's.
        pub container: u64,
        /// The container's host name, for the environment.
        pub hostname: String,
        /// Which of stdin (1), stdout (2), stderr (4) are pipes that Caisson made.
        pub own_stdio: u8,
        /// Milliseconds after which it is killed, with all its children; 0: never.
        pub timeout_ms: u64,
    }
}

wire! {
    /// What a shim tells the joiner that is to become the command of an [`Exec`]. Descriptors: the plan, the container's
    /// first process, then stdio as for [`Launch`].
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Join {
        /// The shim's process id, without which it does not go on.
        pub shim: u32,
        /// Which namespaces of the container are its own, as clone's flags.
        pub namespaces: u64,
        /// The user namespace that shim and container are in.
        pub ids: Option<IdMap>,
        /// As in [`Exec`].
        pub hostname: String,
        /// As in [`Exec`].
        pub own_stdio: u8,
        /// Whether the command is in a cgroup of its own: else its orphans are kept together by itself.
        pub grouped: bool,
    }
}

wire! {
    /// A layer to be unpacked into the store. Descriptors: its blob, opened for reading, at its beginning; then, where the
    /// layers below it are still on their way, what ends once they are there.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Layer {
        /// The owner's number for it, in every event about it.
        pub token: u64,
        /// Its chain id, 64 hex digits: its name in the store.
        pub chain: String,
        /// The chain ids of the layers below it, the topmost first.
        pub lowers: Vec<String>,
        /// Whether the blob is kept in the content store. Then the descriptor is where it comes from, once
        /// [`Event::Wanted`] has said from which byte on; there is no such event where it is not needed.
        pub keep: bool,
        /// What the blob must hash to, `sha256:` and 64 hex digits.
        pub digest: String,
        /// How many bytes the blob must have.
        pub size: u64,
        /// What the inflated layer must hash to.
        pub diff_id: String,
        /// Nothing is put into the store: the layer that is there is held against its blob.
        pub check: bool,
    }
}

wire! {
    /// What an owner asks of a shim.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Request {
        /// Starts a container.
        0 Launch { launch: Launch },
        /// Sends a signal to the main process.
        1 Signal { token: u64, signal: i32 },
        /// Kills every process of the container. `cause` comes back with its end.
        2 Kill { token: u64, cause: u8 },
        /// The terminal's size.
        3 Resize { token: u64, columns: u16, rows: u16 },
        /// Asks for figures; the answer carries `request`.
        4 Stats { token: u64, request: u64 },
        /// Unpacks a layer into the store, if it is not there.
        5 Unpack { layer: Layer },
        /// Ends an unpacking, or a wait for a port; the answer is its failure, once nothing of it is left.
        6 Cancel { token: u64 },
        /// Connects to a port of a container, from inside its network. Descriptor: the socket to which the connection is
        /// sent before [`Event::Dialed`].
        7 Dial { token: u64, container: u64, port: u16 },
        /// Starts another command in a container; what comes of it are the events of a start and an end.
        8 Exec { exec: Exec },
        /// Asks for the containers that run; the answers are [`Event::Listed`], and [`Event::Done`].
        9 List { token: u64 },
        /// Waits for the end of a container; the answer is [`Event::Done`], at once if it is not there.
        10 Wait { token: u64, container: u64 },
        /// Waits until something in a container listens at a TCP port; the answer is [`Event::Done`], or a failure if it
        /// ends before.
        11 Listening { token: u64, container: u64, port: u16 },
        /// Removes what was thrown away of the store; the answer is [`Event::Done`].
        12 Sweep { token: u64 },
        /// Reads an archive of images into a directory, as [`crate::archive::spool`] does, or with `layer` what is one layer
        /// to be, as [`crate::archive::spool_layer`] does; the answer is [`Event::Unpacked`]. Descriptors: the archive, at
        /// its beginning, and the empty directory, which is the owner's to remove.
        13 Spool { token: u64, layer: bool },
        /// Writes the writable layer of a container that runs into a directory, as [`crate::archive::pack_layer`] does; the
        /// answer is [`Event::Unpacked`]. `pause` is one of [`PAUSE_NOT`], [`PAUSE_IF`], [`PAUSE_MUST`]. Descriptor: the
        /// empty directory, which is the asker's to remove.
        20 Commit { token: u64, container: u64, pause: u8 },
        /// Writes the root file system of a container that runs as an archive, without what is mounted in it; the answer is
        /// [`Event::Unpacked`]. Descriptor: where to.
        21 Export { token: u64, container: u64 },
    }
}

wire! {
    /// What init read of itself just before it gave up its rights.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Isolation {
        /// Each namespace's name and inode number, from /proc/self/ns.
        pub namespaces: Vec<(String, u64)>,
        /// /proc/self/uid_map.
        pub uid_map: String,
        /// The user and group that the payload gets.
        pub user: (u32, u32),
        /// The bounding set that it will keep.
        pub bounding: u64,
        /// Whether a filter will be loaded: its number of instructions.
        pub seccomp: u32,
        /// Whether no_new_privs will be set.
        pub no_new_privileges: bool,
        /// cgroup files of limits, and what the kernel holds in them.
        pub limits: Vec<(String, String)>,
        /// The path of the container's group.
        pub cgroup: String,
    }
}

wire! {
    /// Moments of a start, nanoseconds of CLOCK_MONOTONIC.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Stamps {
        /// The shim took up the request.
        pub taken: u64,
        /// Bundle, journal and layers' directories made.
        pub journaled: u64,
        /// The cgroup made.
        pub grouped: u64,
        /// The mount sources opened.
        pub sourced: u64,
        /// Init began.
        pub born: u64,
        /// The root entered.
        pub rooted: u64,
        /// All mounts in place, ready to give up rights.
        pub ready: u64,
        /// The command executed.
        pub executed: u64,
        /// The main process ended.
        pub ended: u64,
        /// Everything taken down.
        pub undone: u64,
    }
}

wire! {
    /// What a shim tells its owner.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Event {
        /// The command runs.
        0 Started { token: u64, pid: u32, isolation: Isolation },
        /// The start failed; nothing of it is left.
        1 Failed { token: u64, error: Error },
        /// The container ended and nothing of it is left.
        2 Ended { token: u64, end: Ended },
        /// Figures, as asked.
        3 Stats { token: u64, request: u64, usage: Option<Usage> },
        /// A layer is in the store, an archive in its directory, or what was to be written is written.
        4 Unpacked { token: u64 },
        /// A connection was sent.
        5 Dialed { token: u64 },
        /// Another program may ask: its numbers begin at this.
        6 Welcome { token: u64 },
        /// One container, as asked.
        7 Listed { token: u64, listed: Listed },
        /// That was all.
        8 Done { token: u64 },
        /// The bytes of a layer's blob are wanted, from this one on.
        9 Wanted { token: u64, offset: u64 },
    }
}

wire! {
    /// How a container ended.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Ended {
        /// The exit code, or the signal.
        pub status: i32,
        /// Whether `status` is a signal.
        pub signaled: bool,
        /// What [`Request::Kill`] gave, or [`CAUSE_TIMEOUT`].
        pub killed: u8,
        /// Whether the OOM killer took the main process.
        pub oom: bool,
        /// Figures of the container's group.
        pub usage: Usage,
        /// CPU times of the main process and the children it waited for, microseconds, and its largest resident set in
        /// KiB: for where the group has no figures.
        pub rusage: (u64, (u64, u64)),
        /// What was in force.
        pub isolation: Isolation,
        /// When what happened.
        pub stamps: Stamps,
        /// What could not be taken down; it stands in the journal, and the next command tries again.
        pub left: Option<Error>,
    }
}

/// The container goes on while it is read.
pub const PAUSE_NOT: u8 = 0;
/// It is stopped meanwhile, if it has a cgroup of its own.
pub const PAUSE_IF: u8 = 1;
/// It is stopped, or not read at all.
pub const PAUSE_MUST: u8 = 2;

/// Nobody killed it.
pub const CAUSE_NONE: u8 = 0;
/// Killed by [`Launch::timeout_ms`].
pub const CAUSE_TIMEOUT: u8 = 1;
/// Killed by an AbortSignal.
pub const CAUSE_ABORTED: u8 = 2;
/// Killed by the API's kill.
pub const CAUSE_KILLED: u8 = 3;

wire! {
    /// What a child tells its shim: init at most one of each, an unpacker its failure.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Report {
        /// All is in place. Descriptor: the terminal's master, if there is one. What follows is the end of the socket,
        /// when the exec closes it, or a failure.
        0 Ready { isolation: Isolation, stamps: Stamps },
        /// A step failed; init is gone after this.
        1 Failed { error: Error },
        /// A joiner became this process of the container, a child of the shim's, and ends.
        2 Born { pid: u32 },
        /// That process is about to execute the command, at this moment of CLOCK_MONOTONIC, nanoseconds.
        3 Executing { at: u64 },
        /// An unpacker wants its blob, from this byte on.
        4 Wanted { offset: u64 },
    }
}

impl Request {
    /// The number that the answer will have: one of who asks.
    #[must_use]
    pub const fn own(&self) -> Option<u64> {
        match self {
            Self::Launch { launch } => Some(launch.token),
            Self::Exec { exec } => Some(exec.token),
            Self::Unpack { layer } => Some(layer.token),
            Self::Stats { request: token, .. }
            | Self::Dial { token, .. }
            | Self::List { token }
            | Self::Wait { token, .. }
            | Self::Sweep { token }
            | Self::Spool { token, .. }
            | Self::Commit { token, .. }
            | Self::Export { token, .. }
            | Self::Listening { token, .. } => Some(*token),
            Self::Signal { .. } | Self::Kill { .. } | Self::Resize { .. } | Self::Cancel { .. } => None,
        }
    }
}

impl Event {
    /// The number of who hears it: its own question's, where it is an answer.
    #[must_use]
    pub const fn about(&self) -> u64 {
        match self {
            Self::Started { token, .. }
            | Self::Failed { token, .. }
            | Self::Ended { token, .. }
            | Self::Unpacked { token }
            | Self::Dialed { token }
            | Self::Welcome { token }
            | Self::Listed { token, .. }
            | Self::Wanted { token, .. }
            | Self::Done { token } => *token,
            Self::Stats { request, .. } => *request,
        }
    }
}

/// Sends one message. A packet is taken whole or refused.
///
/// # Errors
/// EPIPE after the other end is gone; EAGAIN if `wait` is false and the socket is full; EMSGSIZE above [`MAX_MESSAGE`].
pub fn send(
    socket: impl Descriptor,
    message: &impl Wire,
    descriptors: &[&dyn Descriptor],
    wait: bool,
) -> std::result::Result<(), Errno> {
    let bytes = message.to_bytes();
    if bytes.len() > MAX_MESSAGE {
        return Err(Errno::from_raw(nix::errno::Errno::EMSGSIZE as i32));
    }
    socket::send(socket, &bytes, descriptors, wait).map(drop)
}

/// Appends an event to what is to be written to the owner's stream: its length, then itself.
pub fn frame(event: &Event, out: &mut Vec<u8>) {
    Bytes(event.to_bytes()).put(out);
}

/// Takes the first whole event off the front of what was read, if there is one: the event, and how many bytes it took.
///
/// # Errors
/// [`Code::RuntimeMismatch`] for what no writer of this build sent.
pub fn unframe(read: &[u8]) -> Result<Option<(Event, usize)>> {
    let Some((length, rest)) = read.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_MESSAGE {
        return Err(Error::new(Code::RuntimeMismatch, Stage::CHANNEL, "event", "larger than its bound"));
    }
    match rest.get(..length) {
        None => Ok(None),
        Some(bytes) => Ok(Some((Event::from_bytes(bytes)?, length + 4))),
    }
}

/// Receives one message into `room`, with its descriptors. `None` at the end of the socket.
///
/// # Errors
/// EAGAIN where nothing waits and `wait` is false; [`Code::RuntimeMismatch`] for what no writer of this build sent.
pub fn receive<T: Wire>(
    socket: impl Descriptor,
    room: &mut [u8],
    wait: bool,
) -> Result<Option<(T, Vec<Fd>)>> {
    let received = socket::receive(socket, room, wait).at(Stage::CHANNEL, "socket")?;
    if received.length == 0 {
        return Ok(None);
    }
    if received.cut {
        return Err(Error::new(Code::RuntimeMismatch, Stage::CHANNEL, "message", "larger than its bound"));
    }
    let descriptors = received.descriptors.into_iter().flatten().collect();
    T::from_bytes(room.get(..received.length).unwrap_or_default()).map(|message| Some((message, descriptors)))
}
