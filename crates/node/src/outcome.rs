//! Values of the core as plain objects.

use caisson_core::Error;
use caisson_core::cgroup::stats::Usage;
use caisson_core::channel::{Ended, Event, Isolation, Listed, Stamps};
use napi_derive::napi;
use std::fmt::Write;

/// Why something failed.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct Failure {
    /// The stable word, `ERR_…`.
    pub code: String,
    /// The step of the launch that failed.
    pub stage: String,
    /// The kernel's errno, where there was one.
    pub errno: Option<i32>,
    /// The field, path or name it is about; may be empty.
    pub subject: String,
    /// The sentence for people.
    pub message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: error.code.as_str().to_owned(),
            stage: error.stage.as_str().to_owned(),
            errno: error.errno,
            subject: error.subject,
            message: error.message,
        }
    }
}

/// Figures of a container's cgroup; absent where the kernel's file is absent. Numbers are exact to 2^53.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct NativeUsage {
    /// CPU time in user mode, microseconds.
    pub user_us: Option<f64>,
    /// CPU time in the kernel, microseconds.
    pub system_us: Option<f64>,
    /// Periods in which cpu.max held it back.
    pub throttled_periods: Option<f64>,
    /// Memory now, bytes.
    pub memory: Option<f64>,
    /// The most memory at one time, bytes.
    pub memory_peak: Option<f64>,
    /// Bytes read from block devices.
    pub io_read: Option<f64>,
    /// Bytes written to block devices.
    pub io_written: Option<f64>,
    /// Processes and threads now.
    pub pids: Option<f64>,
    /// The most processes and threads at one time.
    pub pids_peak: Option<f64>,
    /// Processes that the OOM killer took.
    pub oom_kills: Option<f64>,
}

impl From<Usage> for NativeUsage {
    fn from(usage: Usage) -> Self {
        let number = |value: Option<u64>| value.map(|value| value as f64);
        Self {
            user_us: number(usage.user_us),
            system_us: number(usage.system_us),
            throttled_periods: number(usage.throttled_periods),
            memory: number(usage.memory),
            memory_peak: number(usage.memory_peak),
            io_read: number(usage.io_read),
            io_written: number(usage.io_written),
            pids: number(usage.pids),
            pids_peak: number(usage.pids_peak),
            oom_kills: number(usage.oom_kills),
        }
    }
}

/// A name and a value, as the kernel gives them.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// What was in force, read from the kernel.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct NativeIsolation {
    /// Namespaces and their inode numbers, `name number` each, with spaces between them: objects would take ten times as
    /// long to make.
    pub namespaces: String,
    /// /proc/self/uid_map of the payload.
    pub uid_map: String,
    /// The payload's user id.
    pub uid: u32,
    /// The payload's group id.
    pub gid: u32,
    /// The bounding set, 16 hex digits as in /proc/self/status.
    pub capabilities: String,
    /// Instructions of the filter; 0 without one.
    pub seccomp: u32,
    /// Whether no exec can gain a privilege.
    pub no_new_privileges: bool,
    /// Files of limits and what they hold.
    pub limits: Vec<Pair>,
    /// The path of the container's cgroup.
    pub cgroup: String,
}

impl From<Isolation> for NativeIsolation {
    fn from(isolation: Isolation) -> Self {
        let pairs = |pairs: Vec<(String, String)>| {
            pairs.into_iter().map(|(name, value)| Pair { name, value }).collect()
        };
        Self {
            namespaces: isolation.namespaces.iter().fold(String::new(), |mut text, (name, inode)| {
                let _ = write!(text, "{}{name} {inode}", if text.is_empty() { "" } else { " " });
                text
            }),
            uid_map: isolation.uid_map,
            uid: isolation.user.0,
            gid: isolation.user.1,
            capabilities: format!("{:016x}", isolation.bounding),
            seccomp: isolation.seccomp,
            no_new_privileges: isolation.no_new_privileges,
            limits: pairs(isolation.limits),
            cgroup: isolation.cgroup,
        }
    }
}

/// Moments of a run, milliseconds of CLOCK_MONOTONIC, the clock of `process.hrtime`, in this order: the request taken up;
/// journal and engine files written; the cgroup made; the mount sources opened; init born; the root entered; all mounts in
/// place; the command executed; the main process ended; everything taken down.
fn moments(stamps: &Stamps) -> Vec<f64> {
    let Stamps { taken, journaled, grouped, sourced, born, rooted, ready, executed, ended, undone } = *stamps;
    let all = [taken, journaled, grouped, sourced, born, rooted, ready, executed, ended, undone];
    all.iter().map(|ns| *ns as f64 / 1e6).collect()
}

/// How a container ended.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct NativeEnd {
    /// The exit code, or the signal's number.
    pub status: i32,
    /// Whether `status` is a signal.
    pub signaled: bool,
    /// Who killed it: 0 nobody, 1 the timeout, 2 an abort, 3 the API.
    pub killed: u32,
    /// Whether the OOM killer took the main process.
    pub oom: bool,
    /// Figures of its cgroup.
    pub usage: NativeUsage,
    /// CPU time in user mode of the main process, microseconds.
    pub rusage_user_us: f64,
    /// CPU time in the kernel of the main process, microseconds.
    pub rusage_system_us: f64,
    /// Its largest resident set, bytes.
    pub rusage_max_rss: f64,
    /// What was in force.
    pub isolation: NativeIsolation,
    /// When what happened, by [`moments`].
    #[napi(
        ts_type = "[taken: number, journaled: number, grouped: number, sourced: number, born: number, rooted: number, ready: number, executed: number, ended: number, undone: number]"
    )]
    pub stamps: Vec<f64>,
    /// What could not be taken down.
    pub left: Option<Failure>,
}

impl From<Ended> for NativeEnd {
    fn from(end: Ended) -> Self {
        let (user, (system, max_rss_kib)) = end.rusage;
        Self {
            status: end.status,
            signaled: end.signaled,
            killed: u32::from(end.killed),
            oom: end.oom,
            usage: end.usage.into(),
            rusage_user_us: user as f64,
            rusage_system_us: system as f64,
            rusage_max_rss: max_rss_kib as f64 * 1024.0,
            isolation: end.isolation.into(),
            stamps: moments(&end.stamps),
            left: end.left.map(Into::into),
        }
    }
}

/// What a shim says.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct ShimEvent {
    /// What it is.
    #[napi(
        ts_type = "'started' | 'failed' | 'ended' | 'stats' | 'unpacked' | 'dialed' | 'welcome' | 'listed' | 'done' | 'wanted'"
    )]
    pub kind: String,
    /// The run it is about; 0: the shim itself.
    pub token: f64,
    /// `started`: the main process's id.
    pub pid: Option<u32>,
    /// `started`: what is in force.
    pub isolation: Option<NativeIsolation>,
    /// `failed`: why.
    pub failure: Option<Failure>,
    /// `ended`: how.
    pub end: Option<NativeEnd>,
    /// `stats`: which question.
    pub request: Option<f64>,
    /// `stats`: the figures, if the container still runs.
    pub usage: Option<NativeUsage>,
    /// `listed`: a container; `pid` and `isolation` are its own, too.
    pub listed: Option<NativeListed>,
    /// `wanted`: from which byte on.
    pub offset: Option<f64>,
}

/// A container that runs.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct NativeListed {
    /// Its number at its shim.
    pub container: f64,
    /// Its id.
    pub id: String,
    /// What its owner says of it.
    pub about: String,
}

impl ShimEvent {
    fn new(kind: &str, token: u64) -> Self {
        let token = token as f64;
        Self {
            kind: kind.to_owned(),
            token,
            pid: None,
            isolation: None,
            failure: None,
            end: None,
            request: None,
            usage: None,
            listed: None,
            offset: None,
        }
    }

    pub(crate) fn of(event: Event) -> Self {
        match event {
            Event::Started { token, pid, isolation } => {
                Self { pid: Some(pid), isolation: Some(isolation.into()), ..Self::new("started", token) }
            }
            Event::Failed { token, error } => {
                Self { failure: Some(error.into()), ..Self::new("failed", token) }
            }
            Event::Unpacked { token } => Self::new("unpacked", token),
            Event::Dialed { token } => Self::new("dialed", token),
            Event::Welcome { token } => Self::new("welcome", token),
            Event::Done { token } => Self::new("done", token),
            Event::Wanted { token, offset } => {
                Self { offset: Some(offset as f64), ..Self::new("wanted", token) }
            }
            Event::Listed { token, listed } => {
                let Listed { container, id, pid, about, isolation } = listed;
                let listed = NativeListed { container: container as f64, id, about };
                Self {
                    listed: Some(listed),
                    pid: Some(pid),
                    isolation: Some(isolation.into()),
                    ..Self::new("listed", token)
                }
            }
            Event::Ended { token, end } => Self { end: Some(end.into()), ..Self::new("ended", token) },
            Event::Stats { token, request, usage } => Self {
                request: Some(request as f64),
                usage: usage.map(Into::into),
                ..Self::new("stats", token)
            },
        }
    }
}
