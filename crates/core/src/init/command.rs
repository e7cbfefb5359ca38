//! The exec: the command is looked up in the container, by trying, as execvp(3) does.

use super::Init;
use crate::channel::Report;
use crate::clock;
use crate::error::{Code, Error, Stage};
use caisson_sys::fd::{self, Number};
use caisson_sys::file::{self, Words};
use caisson_sys::process::{self, Fork};
use caisson_sys::{Errno, Fd};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::ffi::{CStr, CString};
use std::sync::atomic::Ordering;

/// Where a command without a slash is looked for when the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Init {
    /// Replaces this process by the command. Comes back only with an error.
    pub(super) fn execute(&mut self) -> Error {
        if self.plan.supervise
            && let Err(error) = self.supervise()
        {
            return error;
        }
        let mut env = std::mem::take(&mut self.plan.env);
        if !env.iter().any(|entry| entry.to_bytes().starts_with(b"HOME=")) {
            env.push(CString::new([b"HOME=", self.found.home.as_bytes()].concat()).unwrap_or_default());
        }
        if self.plan.host_variable && !env.iter().any(|entry| entry.to_bytes().starts_with(b"HOSTNAME=")) {
            env.push(CString::new(format!("HOSTNAME={}", self.given.hostname)).unwrap_or_default());
        }
        let args: Vec<Option<&CStr>> =
            self.plan.args.iter().map(|word| Some(word.as_c_str())).chain([None]).collect();
        let envp: Vec<Option<&CStr>> = env.iter().map(|word| Some(word.as_c_str())).chain([None]).collect();
        let name = self.plan.args.first().cloned().unwrap_or_default();
        let mut room = vec![0usize; args.len() + envp.len()];
        match &self.given.house {
            Some(house) => house.executing.store(clock::now(), Ordering::Relaxed),
            None => {
                let told = Report::Executing { at: clock::now() };
                let _ = file::write_all(&self.given.report, &crate::wire::Wire::to_bytes(&told));
            }
        }
        let (Some(argv), Some(envp)) = (Words::new(&args), Words::new(&envp)) else {
            return failed(&name, Errno::EINVAL);
        };
        if name.to_bytes().contains(&b'/') {
            return failed(&name, file::execve(&name, &argv, &envp, &mut room));
        }
        let path =
            env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
        let mut seen = Errno::ENOENT;
        // An empty name is in no directory: with a slash before it, it would be the directory itself.
        let dirs = path.split(|byte| *byte == b':').filter(|dir| !dir.is_empty() && !name.is_empty());
        for dir in dirs {
            let Ok(candidate) = CString::new([dir, b"/", name.to_bytes()].concat()) else { continue };
            match file::execve(&candidate, &argv, &envp, &mut room) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                // Found but not to be executed: another may be, further on.
                Errno::EACCES => seen = Errno::EACCES,
                errno => return failed(&name, errno),
            }
        }
        if seen == Errno::EACCES {
            return failed(&name, seen);
        }
        let message = format!("exec: \"{}\": executable file not found in $PATH", name.to_string_lossy());
        Error {
            errno: Some(seen.raw()),
            ..Error::new(Code::CommandNotFound, Stage::EXEC, name.to_string_lossy(), message)
        }
    }

    /// Forks: the child goes on to be the command, this process stays as pid 1. The report socket closes with the
    /// child's exec, since this side closes its own.
    fn supervise(&mut self) -> Result<(), Error> {
        let blocked = SigSet::all();
        let internal = |errno: i32| failed(c"--init", Errno::from_raw(errno));
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None).map_err(|errno| internal(errno as i32))?;
        match process::fork(0, None).map_err(|errno| internal(errno.raw()))? {
            Fork::Child => {
                process::reset_signals().map_err(|errno| internal(errno.raw()))?;
                // A session of its own, so that a terminal's signals reach it; the terminal goes with it.
                process::setsid().map_err(|errno| internal(errno.raw()))?;
                if let Some((_, peer)) = &self.terminal {
                    caisson_sys::ioctl::take_terminal(peer).map_err(|errno| internal(errno.raw()))?;
                }
                Ok(())
            }
            Fork::Parent { pid, pidfd } => {
                // Nothing of the launch stays open in pid 1: its copy of the report socket would hide the exec.
                fd::place(&pidfd, HANDLE).map_err(|errno| internal(errno.raw()))?;
                if let Some(executable) = self.given.house.as_mut().and_then(|house| house.executable.take())
                {
                    become_init(&executable, pid);
                }
                // A filter may forbid that: then it stays as it is.
                fd::close_from(HANDLE.unsigned_abs() + 1).map_err(|errno| internal(errno.raw()))?;
                reap_until(pid, Number(HANDLE), &blocked)
            }
        }
    }
}

/// Where pid 1 has the handle of the command.
const HANDLE: i32 = 3;

/// Executes the sealed executable anew as pid 1: what stays in the container has no copy of the shim's memory, and is of
/// the container's user namespace, so that others can enter by it. Comes back if that is not to be had.
fn become_init(executable: &Fd, main: u32) {
    let main = CString::new(main.to_string()).unwrap_or_default();
    let argv = [Some(c"caisson-runtime"), Some(c"init"), Some(main.as_c_str()), None];
    let switched = crate::off::variable();
    let envp: Vec<_> = switched.iter().map(|entry| Some(entry.as_c_str())).chain([None]).collect();
    let mut room = vec![0; argv.len() + envp.len()];
    if let (Some(argv), Some(envp)) = (Words::new(&argv), Words::new(&envp)) {
        let _ = file::execveat(executable, &argv, &envp, &mut room);
    }
}

/// The init of a container whose command is the process `main`: what [`become_init`] executes. All signals are blocked
/// since before.
pub fn stay(main: u32) -> ! {
    let _ = caisson_sys::identity::set_dumpable(false);
    let _ = caisson_sys::identity::set_name(c"caisson-init");
    reap_until(main, Number(HANDLE), &SigSet::all())
}

/// Pid 1: passes every signal on to the command, takes the end of every orphan, ends as the command ended.
fn reap_until(main: u32, handle: Number, signals: &SigSet) -> ! {
    loop {
        let Ok(signal) = signals.wait() else { continue };
        if signal != Signal::SIGCHLD {
            let _ = process::send_signal(handle, signal as i32);
            continue;
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::Exited(pid, code) if pid.as_raw().unsigned_abs() == main => {
                    caisson_sys::exit(code)
                }
                WaitStatus::Signaled(pid, signal, _) if pid.as_raw().unsigned_abs() == main => {
                    caisson_sys::exit(128 + signal as i32)
                }
                WaitStatus::StillAlive => break,
                _ => {}
            }
        }
    }
}

fn failed(name: &CStr, errno: Errno) -> Error {
    let name = name.to_string_lossy();
    let code = match errno {
        Errno::ENOENT | Errno::ENOTDIR => Code::CommandNotFound,
        _ => Code::CommandNotExecutable,
    };
    let reason = match errno {
        Errno::ENOENT => "no such file or directory".to_owned(),
        Errno::EACCES => "permission denied".to_owned(),
        Errno::EISDIR => "is a directory".to_owned(),
        other => nix::errno::Errno::from_raw(other.raw()).desc().to_lowercase(),
    };
    let error = Error::new(code, Stage::EXEC, name.as_ref(), format!("exec: \"{name}\": {reason}"));
    Error { errno: Some(errno.raw()), ..error }
}
