//! One error for the whole library: what callers need is a code, the stage, the errno and the subject.

use std::fmt;

/// What went wrong, as a stable word. The same list stands in `src/errors.ts`; a test holds the two together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The spec or an option asks for something that is malformed.
    InvalidSpec,
    /// The spec asks for something that Caisson does not build yet. The message names the field.
    Unsupported,
    /// A command was not found in the container.
    CommandNotFound,
    /// A command exists in the container but cannot be executed.
    CommandNotExecutable,
    /// A user or group name has no entry in the container's files.
    UserNotFound,
    /// A source path on the host does not exist or cannot be opened.
    MountSource,
    /// A cgroup controller that a limit needs is not there.
    NoController,
    /// No connection to a port of a container.
    Dial,
    /// The container has ended.
    NotRunning,
    /// Less is in force here than was asked for.
    Isolation,
    /// No user namespace can be had, which every user but root needs.
    NoUserNamespace,
    /// An archive is malformed, hostile, or not supported.
    Archive,
    /// An archive or a document is larger than its limit.
    ImageLimit,
    /// Bytes do not have the digest they should have.
    Digest,
    /// The rest of a blob did not arrive.
    Cut,
    /// An image, or a layer of it, is not in the store.
    ImageNotFound,
    /// The shim ended while it held containers.
    ShimLost,
    /// Somebody else may write the executable.
    UnsafeInstall,
    /// Plan and executable were not built together.
    RuntimeMismatch,
    /// A step of the launch failed in the kernel.
    Launch,
    /// A bug of Caisson's.
    Internal,
}

impl Code {
    /// Every code, for the table that both languages share.
    pub const ALL: [Self; 21] = [
        Self::InvalidSpec,
        Self::Unsupported,
        Self::CommandNotFound,
        Self::CommandNotExecutable,
        Self::UserNotFound,
        Self::MountSource,
        Self::NoController,
        Self::Dial,
        Self::NotRunning,
        Self::Isolation,
        Self::NoUserNamespace,
        Self::Archive,
        Self::ImageLimit,
        Self::Digest,
        Self::Cut,
        Self::ImageNotFound,
        Self::ShimLost,
        Self::UnsafeInstall,
        Self::RuntimeMismatch,
        Self::Launch,
        Self::Internal,
    ];

    /// The word that crosses every border.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "ERR_INVALID_SPEC",
            Self::Unsupported => "ERR_UNSUPPORTED",
            Self::CommandNotFound => "ERR_COMMAND_NOT_FOUND",
            Self::CommandNotExecutable => "ERR_COMMAND_NOT_EXECUTABLE",
            Self::UserNotFound => "ERR_USER_NOT_FOUND",
            Self::MountSource => "ERR_MOUNT_SOURCE",
            Self::NoController => "ERR_NO_CONTROLLER",
            Self::Dial => "ERR_DIAL",
            Self::NotRunning => "ERR_NOT_RUNNING",
            Self::Isolation => "ERR_ISOLATION",
            Self::NoUserNamespace => "ERR_NO_USER_NAMESPACE",
            Self::Archive => "ERR_ARCHIVE",
            Self::ImageLimit => "ERR_IMAGE_LIMIT",
            Self::Digest => "ERR_DIGEST",
            Self::Cut => "ERR_CUT",
            Self::ImageNotFound => "ERR_IMAGE_NOT_FOUND",
            Self::ShimLost => "ERR_SHIM_LOST",
            Self::UnsafeInstall => "ERR_UNSAFE_INSTALL",
            Self::RuntimeMismatch => "ERR_RUNTIME_MISMATCH",
            Self::Launch => "ERR_LAUNCH",
            Self::Internal => "ERR_INTERNAL",
        }
    }

    /// The code of a word, for errors that crossed a socket.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }
}

/// Where it went wrong: a step of the path of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage(&'static str);

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        impl Stage {
            $($(#[$doc])* pub const $name: Self = Self($word);)*
            const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}
stages! {
    /// Checking the spec, compiling the plan.
    PLAN = "plan",
    /// Reading or writing a message.
    CHANNEL = "channel",
    /// The executable's sealed copy, the start of a shim.
    SHIM = "shim",
    /// The record of intent.
    JOURNAL = "journal",
    /// Making, limiting or removing a cgroup.
    CGROUP = "cgroup",
    /// Opening a mount source before the clone.
    SOURCE = "source",
    /// The clone into new namespaces.
    CLONE = "clone",
    /// Session, keyring, descriptors.
    SESSION = "session",
    /// The container's network interfaces.
    NETWORK = "network",
    /// The new root.
    ROOT = "root",
    /// A mount of the container.
    MOUNT = "mount",
    /// Nodes and links below /dev.
    DEVICE = "device",
    /// Masked and read-only paths.
    MASK = "mask",
    /// The terminal.
    TERMINAL = "terminal",
    /// Host name and other kernel settings of the namespaces.
    SETTING = "setting",
    /// Ids, groups, capabilities, limits of the process.
    IDENTITY = "identity",
    /// The working directory.
    CWD = "cwd",
    /// The system call filter.
    SECCOMP = "seccomp",
    /// The command itself.
    EXEC = "exec",
    /// A connection into the container.
    DIAL = "dial",
    /// Waiting for the end.
    WATCH = "watch",
    /// Taking down what was made.
    UNDO = "undo",
    /// Reading and writing layers.
    UNPACK = "unpack",
    /// Writing a layer, or a root file system.
    PACK = "pack",
    /// Holding a layer against its blob.
    VERIFY = "verify",
}

impl Stage {
    /// The stage's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The stage of a word, for errors that crossed a socket.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|stage| stage.0 == word)
    }
}

/// The one error of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The stable word.
    pub code: Code,
    /// The step that failed.
    pub stage: Stage,
    /// The kernel's errno, where there was one.
    pub errno: Option<i32>,
    /// The field, path or name it is about. May be empty.
    pub subject: String,
    /// The sentence for people: what happened and, where it helps, what to do.
    pub message: String,
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without an errno.
    pub fn new(code: Code, stage: Stage, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, stage, errno: None, subject: subject.into(), message: message.into() }
    }

    /// A malformed field of the spec.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidSpec, Stage::PLAN, field, message)
    }

    /// A field of the spec that is not built yet: refused by name, never ignored.
    pub fn unsupported(field: impl Into<String>) -> Self {
        let field = field.into();
        let message = "not supported yet".to_owned();
        Self { code: Code::Unsupported, stage: Stage::PLAN, errno: None, subject: field, message }
    }

    /// The same error under another code.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.stage.0)?;
        if !self.subject.is_empty() {
            write!(f, " {}", self.subject)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Error {}

/// What carries an errno: the kernel's own, nix's, std's.
pub trait Failure {
    /// The errno, where there is one.
    fn errno(&self) -> Option<i32>;
}

impl Failure for caisson_sys::Errno {
    fn errno(&self) -> Option<i32> {
        Some(self.raw())
    }
}

impl Failure for nix::errno::Errno {
    fn errno(&self) -> Option<i32> {
        Some(*self as i32)
    }
}

impl Failure for std::io::Error {
    fn errno(&self) -> Option<i32> {
        self.raw_os_error()
    }
}

/// The only way to make an [`Error`] from an errno: `call().at(Stage::MOUNT, "/data")?`.
pub trait At<T> {
    /// Says where and about what the failure was.
    fn at(self, stage: Stage, subject: impl Into<String>) -> Result<T>;
}

impl<T, E: Failure + fmt::Display> At<T> for std::result::Result<T, E> {
    fn at(self, stage: Stage, subject: impl Into<String>) -> Result<T> {
        self.map_err(|failure| {
            let errno = failure.errno();
            let message = match errno {
                Some(number) => nix::errno::Errno::from_raw(number).to_string(),
                None => failure.to_string(),
            };
            Error { code: Code::Launch, stage, errno, subject: subject.into(), message }
        })
    }
}
