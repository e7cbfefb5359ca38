//! Another command in a container: a group for it, and a fresh exec of this executable that becomes it.

use super::{Launcher, socket_pair};
use crate::cgroup::{Cgroup, Member};
use crate::channel::{self, Exec, Join, Report, Stamps};
use crate::clock;
use crate::error::{At, Code, Error, Result, Stage};
use crate::wire::Wire;
use caisson_sys::file::{self, Words};
use caisson_sys::process::{self, Fork};
use caisson_sys::{Descriptor, Errno, Fd, fd};

/// A joiner on its way into a container.
#[derive(Debug)]
pub struct Joining {
    /// The joiner: it ends once the command's process is there.
    pub pidfd: Fd,
    /// Its id, and that of its process group once it has one.
    pub pid: u32,
    /// Where it reports; its end is the exec.
    pub report: Fd,
    /// The command's group; none where the container has none.
    pub group: Option<Member>,
    /// When what happened, so far.
    pub stamps: Stamps,
}

impl Launcher {
    /// Starts a joiner. `container` is the container's first process, `namespaces` those that are its own.
    ///
    /// # Errors
    /// As mkdir(2) of a cgroup, clone3(2). What comes later is in its reports.
    pub fn exec(
        &self,
        group: Option<&mut Cgroup>,
        (container, namespaces): (&Fd, u64),
        exec: &Exec,
        (plan, stdio): (&Fd, &[Fd]),
    ) -> Result<Joining> {
        let mut stamps = Stamps { taken: clock::now(), ..Stamps::default() };
        let group = group.map(Cgroup::add).transpose()?;
        stamps.grouped = clock::now();
        let started = self.join(group.as_ref(), (container, namespaces), exec, (plan, stdio));
        match started {
            Ok((pid, pidfd, report)) => Ok(Joining { pidfd, pid, report, group, stamps }),
            Err(error) => {
                let _ = group.map(|group| group.remove());
                Err(error)
            }
        }
    }

    fn join(
        &self,
        group: Option<&Member>,
        (container, namespaces): (&Fd, u64),
        exec: &Exec,
        (plan, stdio): (&Fd, &[Fd]),
    ) -> Result<(u32, Fd, Fd)> {
        let (report, theirs) = socket_pair()?;
        let join = Join {
            shim: std::process::id(),
            namespaces,
            ids: self.ids.clone(),
            hostname: exec.hostname.clone(),
            own_stdio: exec.own_stdio,
            grouped: group.is_some(),
        };
        let mut descriptors: Vec<&dyn Descriptor> = vec![plan, container];
        descriptors.extend(stdio.iter().map(|file| file as &dyn Descriptor));
        channel::send(&report, &join, &descriptors, false).at(Stage::CLONE, "join")?;
        match process::fork(0, group.map(|group| &group.fd)).at(Stage::CLONE, "clone3")? {
            Fork::Parent { pid, pidfd } => Ok((pid, pidfd, report)),
            Fork::Child => {
                let error = self.execute(&theirs);
                let _ = file::write_all(&theirs, &Report::Failed { error }.to_bytes());
                caisson_sys::exit(1)
            }
        }
    }

    /// Replaces this process by a joiner. Comes back only with an error.
    fn execute(&self, socket: &Fd) -> Error {
        let failed = |subject: &str, errno: Errno| {
            let message = nix::errno::Errno::from_raw(errno.raw()).to_string();
            Error { errno: Some(errno.raw()), ..Error::new(Code::Launch, Stage::CLONE, subject, message) }
        };
        if let Err(errno) = fd::place(socket, 0) {
            return failed("dup3", errno);
        }
        let argv = [Some(c"caisson-runtime"), Some(c"join"), None];
        let switched = crate::off::variable();
        let envp: Vec<_> = switched.iter().map(|entry| Some(entry.as_c_str())).chain([None]).collect();
        let mut room = vec![0; argv.len() + envp.len()];
        let (Some(argv), Some(environment)) = (Words::new(&argv), Words::new(&envp)) else {
            return failed("join", Errno::EINVAL);
        };
        failed("execveat", file::execveat(&self.executable, &argv, &environment, &mut room))
    }
}
