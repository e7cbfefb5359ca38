//! From a plan to a running process: journal, layers, cgroup, mount sources, one clone; and back, in reverse.

mod join;
mod namespaces;
mod sources;
mod uppers;

use crate::cgroup::{Cgroup, Parent};
use crate::channel::{Hello, Isolation, Launch, Stamps};
use crate::clock;
use crate::error::{At, Code, Error, Result, Stage};
use crate::idmap::IdMap;
use crate::init::{self, Given, House};
use crate::isolation;
use crate::journal::{self, Intent, Place};
use crate::off::off;
use crate::plan::LaunchPlan;
use caisson_sys::process::{self, Fork};
use caisson_sys::{Fd, bpf, fd, file, identity, shared, socket};
pub use join::Joining;

use namespaces::MountNamespaces;
use sources::Masks;
use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The group of containers below the data root that hold their writable layers.
const CONTAINERS: &str = "containers";

/// What a shim needs for every launch, made once.
#[derive(Debug)]
pub struct Launcher {
    place: Place,
    data: PathBuf,
    /// Where groups are made; none where none may be.
    groups: Option<Parent>,
    ids: Option<IdMap>,
    masks: Masks,
    namespaces: MountNamespaces,
    /// The id map of this process, which containers without a user namespace share.
    uid_map: String,
    /// Whether the namespaces of a container could be read by its pidfd.
    sees: bool,
    /// Moments of execs, each in a word of its own while its start is under way.
    moments: &'static [AtomicU64; shared::WORDS],
    next_moment: usize,
    /// Equal rule sets share one program: loading costs a verifier run.
    programs: HashMap<Vec<u8>, Fd>,
    /// What this process was executed from.
    executable: Fd,
}

/// How far an undoing came.
#[derive(Debug)]
pub enum Undo {
    /// Nothing is left.
    Done,
    /// Processes that are ending still hold the cgroup: call again.
    Busy,
    /// This process removes the files; once it has ended, [`Launcher::finish`].
    Removing(Fd),
}

/// How often a cgroup parent that others remove is made again.
const PARENT_TRIES: usize = 32;
/// How many entries a writable layer may have to be removed on the spot.
const SMALL_TREE: usize = 64;

/// A container that was started.
#[derive(Debug)]
pub struct Running {
    /// The owner's number.
    pub token: u64,
    /// Its main process, in the shim's pid namespace.
    pub pid: u32,
    /// The handle of that.
    pub pidfd: Fd,
    /// Where init reports; its end is the exec.
    pub report: Fd,
    /// Where init writes the moment of its exec.
    pub executing: &'static AtomicU64,
    /// What we saw of it, if we can: namespaces and id map.
    pub isolation: Option<Isolation>,
    /// What was made for it.
    pub made: Made,
    /// Its new namespaces, as clone's flags.
    pub namespaces: u64,
    /// Its id.
    pub id: String,
    /// What the owner says of it.
    pub about: String,
    /// Whether its first process is an init of ours, which says by its exit code how the command ended.
    pub supervised: bool,
    /// When what happened, so far.
    pub stamps: Stamps,
}

/// What has been made for a container, to be taken down in reverse.
#[derive(Debug)]
pub struct Made {
    id: String,
    data: PathBuf,
    uppers: usize,
    /// Names in its bundle directory, beside the journal.
    files: Vec<String>,
    /// Its cgroup, once made.
    pub cgroup: Option<Cgroup>,
}

impl Made {
    /// The writable layer of its root.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.data.join(uppers::name(0))
    }
}

impl Launcher {
    /// Prepares this process, which must be single-threaded and its own: mount namespace, directories, cgroup parent;
    /// undoes first what a dead shim left.
    ///
    /// # Errors
    /// As the calls it makes, with the path that each is about.
    pub fn prepare(hello: &Hello) -> Result<Self> {
        let (run_root, data_root) = (Path::new(&hello.run_root), Path::new(&hello.data_root));
        for (name, root) in [("runRoot", run_root), ("root", data_root)] {
            if !root.is_absolute() {
                return Err(Error::invalid(name, format!("'{}' is not an absolute path", root.display())));
            }
        }
        let namespaces = MountNamespaces::make(hello.ids.is_some())?;
        journal::private_directory(run_root)?;
        journal::recover(run_root);
        let place = Place::make(run_root)?;
        let data = data_root.join(CONTAINERS);
        journal::private_directory(data_root)?;
        journal::private_directory(&data)?;
        let groups = match (&hello.cgroup_parent, &hello.ids) {
            (Some(path), _) => Some(Parent::open(Path::new(path))?),
            (None, None) => Some(Parent::open(&Parent::default_path()?)?),
            (None, Some(_)) => Parent::delegated(),
        };
        let masks = Masks::make(&place.path)?;
        let uid_map = isolation::uid_map(&namespaces.proc);
        let executable = file::openat2(&namespaces.proc, c"self/exe", file::open::RDONLY, 0, 0);
        let executable = executable.at(Stage::SHIM, "/proc/self/exe")?;
        Ok(Self {
            place,
            data,
            groups,
            ids: hello.ids.clone(),
            masks,
            namespaces,
            uid_map,
            sees: false,
            moments: shared::page().at(Stage::SHIM, "mmap")?,
            next_moment: 0,
            programs: HashMap::new(),
            executable,
        })
    }

    /// The user namespace that this process is in, if it is in one of its own.
    #[must_use]
    pub fn ids(&self) -> Option<&IdMap> {
        self.ids.as_ref()
    }

    /// Where other programs of the same user come in.
    ///
    /// # Errors
    /// As [`Place::listen`].
    pub fn listen(&self) -> Result<Fd> {
        self.place.listen()
    }

    /// The id map of this process and its containers, as in /proc/self/uid_map.
    #[must_use]
    pub fn uid_map(&self) -> &str {
        &self.uid_map
    }

    /// Starts a container. What it made is taken down again if it fails.
    ///
    /// # Errors
    /// The stage and the subject of the step that failed.
    pub fn launch(&mut self, plan_file: &Fd, launch: &Launch, stdio: Vec<Fd>) -> Result<Running> {
        let taken = clock::now();
        let mut plan = LaunchPlan::open(plan_file)?;
        check(&plan, launch, &stdio)?;
        let mut made = Made {
            id: launch.id.clone(),
            data: self.data.join(&launch.id),
            uppers: 0,
            files: Vec::new(),
            cgroup: None,
        };
        let stamps = Stamps { taken, ..Stamps::default() };
        let (new, supervised) = (plan.namespaces, plan.supervise);
        self.next_moment = (self.next_moment + 1) % shared::WORDS;
        let executing = self.moments.get(self.next_moment).unwrap_or(&self.moments[0]);
        executing.store(0, Ordering::Relaxed);
        let started = self.start(&mut plan, launch, stdio, &mut made, (stamps, executing));
        match started {
            Ok((pid, pidfd, report, stamps)) => {
                let namespaces = isolation::namespaces_of(&pidfd);
                self.sees = namespaces.is_some();
                let isolation = namespaces.map(|namespaces| Isolation {
                    namespaces,
                    uid_map: self.uid_map.clone(),
                    ..Isolation::default()
                });
                let token = launch.token;
                Ok(Running {
                    token,
                    pid,
                    pidfd,
                    report,
                    isolation,
                    executing,
                    made,
                    namespaces: new,
                    id: launch.id.clone(),
                    about: launch.about.clone(),
                    supervised,
                    stamps,
                })
            }
            Err(error) => {
                self.undo_all(&made);
                Err(error)
            }
        }
    }

    fn start(
        &mut self,
        plan: &mut LaunchPlan,
        launch: &Launch,
        stdio: Vec<Fd>,
        made: &mut Made,
        (mut stamps, executing): (Stamps, &'static AtomicU64),
    ) -> Result<(u32, Fd, Fd, Stamps)> {
        let cgroup = self.groups.as_ref().map(|parent| parent.path.join(&launch.id));
        let bundle = self.place.begin(&launch.id, &Intent { cgroup, data: made.data.clone() })?;
        for (name, content) in &launch.files {
            journal::write(&bundle, name, &content.0)?;
            made.files.push(name.clone());
        }
        stamps.journaled = clock::now();

        let name = CString::new(launch.id.as_str()).map_err(|_| Error::invalid("id", "holds a NUL byte"))?;
        let program = self.program(&plan.devices.0)?;
        made.cgroup = self.group(&name, plan, program.as_ref())?;
        if launch.grouped && made.cgroup.is_none() {
            let message = "full: no cgroup is delegated to this user";
            return Err(Error::new(Code::Isolation, Stage::CGROUP, "minIsolation", message));
        }
        stamps.grouped = clock::now();

        let mut roots = uppers::make(launch, made, self.ids.is_some())?;
        let sources = sources::open(plan, &bundle)?;
        let masks = self.masks.clones()?;
        let (report, reports) = socket_pair()?;
        if roots.is_empty() {
            return Err(Error::invalid("rootfs", "missing"));
        }
        let (_, root) = roots.remove(0);
        stamps.sourced = clock::now();

        let group = made.cgroup.as_ref().map(|group| &group.main);
        let namespace = self.namespaces.ahead().at(Stage::CLONE, "namespace")?;
        let fork = self.namespaces.fork(plan.namespaces, group);
        match fork.at(Stage::CLONE, "clone3")? {
            Fork::Child => {
                drop(report);
                let house = House {
                    root,
                    overlays: roots,
                    sources,
                    masks,
                    namespace,
                    executing,
                    seen: self.sees,
                    tied: made.cgroup.is_none(),
                    executable: plan.supervise.then(|| self.executable.duplicate(3)).and_then(Result::ok),
                };
                let given = Given {
                    stdio,
                    own_stdio: launch.own_stdio,
                    report: reports,
                    hostname: launch.hostname.clone(),
                    ids: self.ids.clone(),
                    house: Some(house),
                    gathers: false,
                    gate: None,
                };
                init::init(std::mem::take(plan), given)
            }
            Fork::Parent { pid, pidfd } => {
                if made.cgroup.is_none() {
                    // Nothing else would tell who it was, were we killed now: only init's own tie to us.
                    let noted = self.place.note_init(&bundle, pid);
                    noted.inspect_err(|_| end(&pidfd))?;
                }
                Ok((pid, pidfd, report, stamps))
            }
        }
    }

    fn program(&mut self, bytes: &[u8]) -> Result<Option<Fd>> {
        if bytes.is_empty() || off("devices") {
            return Ok(None);
        }
        if !self.programs.contains_key(bytes) {
            let program = bpf::load_device_program(bytes).at(Stage::CGROUP, "linux.resources.devices")?;
            self.programs.insert(bytes.to_vec(), program);
        }
        let program = self.programs.get(bytes).map(|program| program.duplicate(3));
        program.transpose().at(Stage::CGROUP, "linux.resources.devices")
    }

    /// The parent goes when nobody uses it, so another shim that leaves may have taken it since we opened it.
    fn group(&mut self, name: &CString, plan: &LaunchPlan, program: Option<&Fd>) -> Result<Option<Cgroup>> {
        let Some(parent) = &mut self.groups else {
            let Some(limit) = plan.limits.first() else { return Ok(None) };
            let message = "no cgroup is delegated to this user: start the program by `systemd-run --user --scope`, or \
                           name a group of your own as cgroupParent";
            return Err(Error::new(Code::NoController, Stage::CGROUP, &limit.field, message));
        };
        for _ in 0..PARENT_TRIES {
            match Cgroup::create(parent, name, &plan.limits, program) {
                Err(error) if error.code == Code::Internal => *parent = Parent::open(&parent.path)?,
                answer => return answer.map(Some),
            }
        }
        Cgroup::create(parent, name, &plan.limits, program).map(Some)
    }

    /// Takes down what a container made, in reverse.
    ///
    /// # Errors
    /// What could not be removed; the journal keeps it.
    pub fn undo(&self, made: &Made) -> Result<Undo> {
        if let (Some(group), Some(parent)) = (&made.cgroup, &self.groups)
            && !group.remove(parent)?
        {
            return Ok(Undo::Busy);
        }
        // Many files are a walk that would keep every other container waiting.
        if !uppers::remove_empty(made) && !journal::remove_small(&made.data, &mut { SMALL_TREE })? {
            let shim = std::process::id();
            return match process::fork(0, None).at(Stage::UNDO, "clone3")? {
                Fork::Child => {
                    // Nobody takes it for the shim by what it would keep open, and it does not outlive it.
                    let alone = fd::close_from(3).and_then(|()| identity::set_parent_death_signal(9));
                    let gone = alone.is_err() || process::parent() != shim;
                    caisson_sys::exit(i32::from(gone || journal::remove(&made.data).is_err()))
                }
                Fork::Parent { pidfd, .. } => Ok(Undo::Removing(pidfd)),
            };
        }
        self.finish(made)?;
        Ok(Undo::Done)
    }

    /// The last step of an undoing: the journal goes.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn finish(&self, made: &Made) -> Result<()> {
        self.place.finish(&made.id, &made.files)
    }

    /// Ends a container that was started and cannot be watched.
    pub fn abandon(&self, running: &Running) {
        end(&running.pidfd);
        self.undo_all(&running.made);
    }

    /// Kills and takes down at once, for a launch that failed: its processes are few and young.
    fn undo_all(&self, made: &Made) {
        for _ in 0..2_000 {
            if let Some(group) = &made.cgroup {
                let _ = group.kill();
            }
            match self.undo(made) {
                Ok(Undo::Busy) => std::thread::sleep(std::time::Duration::from_micros(500)),
                Ok(Undo::Removing(_)) => {
                    let _ = journal::remove(&made.data).and_then(|()| self.finish(made));
                    return;
                }
                _ => return,
            }
        }
    }

    /// Leaves: the shim's directory and the cgroup parent, if nobody needs them any more. Looks once more for what the
    /// dead left: one that was killed as we began may still have held its lock then.
    pub fn leave(&self) {
        self.masks.detach();
        self.place.leave();
        if let Some(run_root) = self.place.path.ancestors().nth(2) {
            journal::recover(run_root);
        }
        if let Some(parent) = &self.groups {
            parent.remove_if_empty();
        }
    }
}

/// Kills a child and takes its end, which comes at once: it is young.
fn end(child: &Fd) {
    let _ = process::send_signal(child, 9);
    for _ in 0..2_000 {
        match process::reap(child) {
            Ok(None) => std::thread::sleep(std::time::Duration::from_micros(500)),
            _ => return,
        }
    }
}

fn check(plan: &LaunchPlan, launch: &Launch, stdio: &[Fd]) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let first = launch.id.bytes().next();
    if !first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        || !launch.id.bytes().all(plain)
        || launch.id.len() > 128
    {
        return Err(Error::invalid("id", format!("'{}' is no id", launch.id)));
    }
    let wanted = if plan.terminal { 0 } else { 3 };
    if stdio.len() != wanted {
        return Err(Error::invalid("stdio", format!("{} descriptors, {wanted} wanted", stdio.len())));
    }
    Ok(())
}

fn socket_pair() -> Result<(Fd, Fd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (left, right) = pair.at(Stage::CLONE, "socketpair")?;
    Ok((left.into(), right.into()))
}

/// The largest number of descriptors that a launch message carries.
pub const LAUNCH_DESCRIPTORS: usize = 4;
const _: () = assert!(LAUNCH_DESCRIPTORS <= socket::MAX_DESCRIPTORS);
