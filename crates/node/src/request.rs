//! What a shim is asked for, as JavaScript says it.

use caisson_core::channel::{Exec, Launch, Layer, Layered};
use caisson_core::wire::Bytes;
use napi_derive::napi;

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
    /// stdin, stdout, stderr: a descriptor, or -1 for /dev/null; with a terminal the one socket that its master is sent to.
    /// None is closed.
    pub stdio: Vec<i32>,
    /// Which of them (1, 2, 4) are ends of pipes that Caisson made, to be given to the payload's user.
    pub own_stdio: u32,
    /// Whether it is not to start without a cgroup of its own.
    pub grouped: bool,
    /// The chain id of the image's topmost layer, which is held while the container lives.
    pub layer: Option<String>,
    /// What other programs of the same user are told of it: any text.
    pub about: String,
    /// Milliseconds after which it is killed; 0: never.
    pub timeout_ms: f64,
}

/// Another command in a container.
#[napi(object)]
pub struct ExecOptions {
    /// The caller's number for it, in every event about it.
    pub token: f64,
    /// The container's.
    pub container: f64,
    /// The container's host name.
    pub hostname: String,
    /// As in `LaunchOptions`.
    pub stdio: Vec<i32>,
    /// As in `LaunchOptions`.
    pub own_stdio: u32,
    /// Milliseconds after which it is killed, with all its children; 0: never.
    pub timeout_ms: f64,
}

/// A layer to be unpacked.
#[napi(object)]
pub struct UnpackOptions {
    /// The caller's number for it, in every event about it.
    pub token: f64,
    /// Its chain id, 64 hex digits; empty: the blob is kept, and not unpacked.
    pub chain: String,
    /// The chain ids of the layers below it, the topmost first.
    pub lowers: Vec<String>,
    /// What the blob must hash to.
    pub digest: String,
    /// How many bytes the blob must have.
    pub size: f64,
    /// What the inflated layer must hash to.
    pub diff_id: String,
    /// The blob, a descriptor at its beginning; it stays the caller's.
    pub blob: i32,
    /// Whether the blob is kept in the content store: then `blob` is where it comes from, once a `wanted` has said from
    /// which byte on.
    pub keep: bool,
    /// What ends once the layers below are in the store; none: they are. It stays the caller's.
    pub gate: Option<i32>,
    /// Whether nothing is put into the store, and the layer that is there is held against its blob. Default: false.
    pub check: Option<bool>,
}

impl LaunchOptions {
    /// Its stdio, which goes beside the request, and the request.
    pub(crate) fn split(self) -> (Vec<i32>, Launch) {
        let layered = |layered: LayeredOptions| Layered { target: layered.target, lowers: layered.lowers };
        let file = |file: BundleFile| (file.name, Bytes(file.content.into_bytes()));
        let launch = Launch {
            token: self.token as u64,
            id: self.id,
            hostname: self.hostname,
            rootfs: self.rootfs.into_iter().map(layered).collect(),
            files: self.files.into_iter().map(file).collect(),
            own_stdio: self.own_stdio as u8,
            layer: self.layer,
            grouped: self.grouped,
            timeout_ms: self.timeout_ms as u64,
            about: self.about,
        };
        (self.stdio, launch)
    }
}

impl From<&ExecOptions> for Exec {
    fn from(options: &ExecOptions) -> Self {
        Self {
            token: options.token as u64,
            container: options.container as u64,
            hostname: options.hostname.clone(),
            own_stdio: options.own_stdio as u8,
            timeout_ms: options.timeout_ms as u64,
        }
    }
}

impl From<UnpackOptions> for Layer {
    fn from(options: UnpackOptions) -> Self {
        let UnpackOptions { token, chain, lowers, digest, size, diff_id, keep, check, .. } = options;
        let (token, size, check) = (token as u64, size as u64, check.unwrap_or_default());
        Self { token, chain, lowers, digest, size, diff_id, keep, check }
    }
}
