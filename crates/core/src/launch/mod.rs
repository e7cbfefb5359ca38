//! From a plan to a running process: journal, layers, cgroup, mount sources, one clone; and back, in reverse.

mod namespaces;
mod sources;

use crate::cgroup::{Cgroup, Parent};
use crate::channel::{Hello, Isolation, Launch, Stamps};
use crate::clock;
use crate::error::{At, Code, Error, Result, Stage};
use crate::init::{self, Given};
use crate::isolation;
use crate::journal::{self, Intent, Place};
use crate::off::off;
use crate::plan::LaunchPlan;
use crate::rootfs::overlay;
use caisson_sys::process::{self, Fork};
use caisson_sys::{Fd, bpf, shared, socket};
use namespaces::MountNamespaces;
use sources::Masks;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The group of containers below the data root that hold their writable layers.
const CONTAINERS: &str = "containers";

/// What a shim needs for every launch, made once.
#[derive(Debug)]
pub struct Launcher {
    place: Place,
    data: PathBuf,
    parent_path: PathBuf,
    parent: Parent,
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
        let namespaces = MountNamespaces::make()?;
        journal::private_directory(run_root)?;
        journal::recover(run_root);
        let place = Place::make(run_root)?;
        let data = data_root.join(CONTAINERS);
        journal::private_directory(data_root)?;
        journal::private_directory(&data)?;
        let parent_path = match &hello.cgroup_parent {
            Some(path) => PathBuf::from(path),
            None => Parent::default_path()?,
        };
        let parent = Parent::open(&parent_path)?;
        let masks = Masks::make(&place.path)?;
        let uid_map = isolation::uid_map(&namespaces.proc);
        Ok(Self {
            place,
            data,
            parent_path,
            parent,
            masks,
            namespaces,
            uid_map,
            sees: false,
            moments: shared::page().at(Stage::SHIM, "mmap")?,
            next_moment: 0,
            programs: HashMap::new(),
        })
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
                Ok(Running { token: launch.token, pid, pidfd, report, isolation, executing, made, stamps })
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
        let intent = Intent { cgroup: self.parent_path.join(&launch.id), data: made.data.clone() };
        let bundle = self.place.begin(&launch.id, &intent)?;
        for (name, content) in &launch.files {
            journal::write(&bundle, name, &content.0)?;
            made.files.push(name.clone());
        }
        stamps.journaled = clock::now();

        let name = CString::new(launch.id.as_str()).map_err(|_| Error::invalid("id", "holds a NUL byte"))?;
        let program = self.program(&plan.devices.0)?;
        made.cgroup = Some(self.group(&name, plan, program.as_ref())?);
        stamps.grouped = clock::now();

        let mut roots = self.layers(launch, made)?;
        let sources = sources::open(plan, &bundle)?;
        let masks = self.masks.clones()?;
        let (report, reports) = socket_pair()?;
        if roots.is_empty() {
            return Err(Error::invalid("rootfs", "missing"));
        }
        let (_, root) = roots.remove(0);
        stamps.sourced = clock::now();

        let group = made.cgroup.as_ref().map(|group| &group.main);
        let fork = self.namespaces.fork(plan.namespaces, group);
        match fork.at(Stage::CLONE, "clone3")? {
            Fork::Child => {
                drop(report);
                let given = Given {
                    root,
                    overlays: roots,
                    sources,
                    masks,
                    stdio,
                    own_stdio: launch.own_stdio,
                    report: reports,
                    hostname: launch.hostname.clone(),
                    executing,
                    seen: self.sees,
                };
                init::init(std::mem::take(plan), given)
            }
            Fork::Parent { pid, pidfd } => Ok((pid, pidfd, report, stamps)),
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
    fn group(&mut self, name: &CString, plan: &LaunchPlan, program: Option<&Fd>) -> Result<Cgroup> {
        for _ in 0..PARENT_TRIES {
            match Cgroup::create(&self.parent, name, &plan.limits, program) {
                Err(error) if error.code == Code::Internal => self.parent = Parent::open(&self.parent_path)?,
                answer => return answer,
            }
        }
        Cgroup::create(&self.parent, name, &plan.limits, program)
    }

    /// The root's overlays, each with an upper of its own.
    fn layers(&self, launch: &Launch, made: &mut Made) -> Result<Vec<(CString, Fd)>> {
        let at = || made.data.to_string_lossy().into_owned();
        fs::create_dir(&made.data).at(Stage::SOURCE, at())?;
        let mut overlays = Vec::with_capacity(launch.rootfs.len());
        for (index, layered) in launch.rootfs.iter().enumerate() {
            let lowers: Vec<&Path> = layered.lowers.iter().map(Path::new).collect();
            let top = lowers.first().ok_or_else(|| Error::invalid("rootfs", "has no layer"))?;
            let (upper, work) = (made.data.join(format!("u{index}")), made.data.join(format!("w{index}")));
            fs::create_dir(&upper).at(Stage::SOURCE, upper.to_string_lossy())?;
            fs::create_dir(&work).at(Stage::SOURCE, work.to_string_lossy())?;
            made.uppers = index + 1;
            // The root directory of the whole is the upper's: it looks as the topmost layer's does.
            let known = fs::metadata(top).map_err(|error| missing_rootfs(top, &error))?;
            if !known.is_dir() {
                return Err(Error::new(
                    Code::MountSource,
                    Stage::SOURCE,
                    top.to_string_lossy(),
                    "is not a directory",
                ));
            }
            fs::set_permissions(&upper, fs::Permissions::from_mode(known.mode() & 0o7777))
                .at(Stage::SOURCE, upper.to_string_lossy())?;
            if (known.uid(), known.gid()) != (0, 0) {
                std::os::unix::fs::chown(&upper, Some(known.uid()), Some(known.gid()))
                    .at(Stage::SOURCE, upper.to_string_lossy())?;
            }
            let target = CString::new(layered.target.as_str());
            let target = target.map_err(|_| Error::invalid("rootfs", "holds a NUL byte"))?;
            overlays.push((target, overlay::overlay(&lowers, Some((&upper, &work)))?));
        }
        Ok(overlays)
    }

    /// Takes down what a container made, in reverse.
    ///
    /// # Errors
    /// What could not be removed; the journal keeps it.
    pub fn undo(&self, made: &Made) -> Result<Undo> {
        if let Some(group) = &made.cgroup
            && !group.remove(&self.parent)?
        {
            return Ok(Undo::Busy);
        }
        // Many files are a walk that would keep every other container waiting.
        if !self.remove_empty_layers(made) && !journal::remove_small(&made.data, &mut { SMALL_TREE })? {
            return match process::fork(0, None).at(Stage::UNDO, "clone3")? {
                Fork::Child => caisson_sys::exit(i32::from(journal::remove(&made.data).is_err())),
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

    /// Whether the writable layers held nothing and are gone: the common end of a short run, a few rmdir instead of a
    /// walk. The names are overlayfs's own, for an upper that is volatile.
    fn remove_empty_layers(&self, made: &Made) -> bool {
        const MADE_BY_OVERLAY: [&str; 3] = ["work/incompat/volatile", "work/incompat", "work"];
        (0..made.uppers).all(|index| {
            let work = made.data.join(format!("w{index}"));
            fs::remove_dir(made.data.join(format!("u{index}"))).is_ok()
                && fs::remove_file(work.join("work/incompat/volatile/dirty")).is_ok()
                && MADE_BY_OVERLAY.iter().all(|name| fs::remove_dir(work.join(name)).is_ok())
                && fs::remove_dir(work).is_ok()
        }) && fs::remove_dir(&made.data).is_ok()
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
        self.parent.remove_if_empty();
    }
}

fn missing_rootfs(path: &Path, error: &std::io::Error) -> Error {
    let message = if error.kind() == std::io::ErrorKind::NotFound {
        "no such file or directory".to_owned()
    } else {
        error.to_string()
    };
    let failure = Error::new(Code::MountSource, Stage::SOURCE, path.to_string_lossy(), message);
    Error { errno: error.raw_os_error(), ..failure }
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
