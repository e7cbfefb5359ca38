//! A plan: a spec compiled once, launched as often as wanted.

use crate::outcome::Failure;
use caisson_core::plan::{Extras, compile, compile_exec};
use caisson_core::{Code, Error, Result, Stage};
use caisson_sys::Fd;
use napi_derive::napi;

/// What the runtime spec has no word for.
#[napi(object)]
pub struct PlanExtras {
    /// Init stays as pid 1 and reaps.
    pub supervise: bool,
    /// A spec without `linux.seccomp` gets Caisson's default profile.
    pub default_seccomp: bool,
    /// A spec without `linux.seccomp` gets this profile, JSON in docker's form or the spec's.
    pub profile: Option<String>,
    /// The environment gets `HOSTNAME`, if it has none.
    pub host_variable: bool,
    /// It will be launched in a user namespace.
    pub mapped: bool,
    /// More groups of the user, by name or number.
    pub groups: Vec<String>,
    /// It is for another command in a container that runs: of the spec, its process and its filter.
    pub exec: bool,
}

/// A compiled spec in a sealed memory file.
#[napi]
pub struct Plan {
    pub(crate) outcome: Result<Fd>,
    pub(crate) terminal: bool,
}

#[napi]
impl Plan {
    /// Compiles a spec, given as the text of a config.json. `failure` says whether that went well.
    #[napi(constructor, catch_unwind)]
    pub fn new(spec: String, extras: PlanExtras) -> Self {
        let compile = if extras.exec { compile_exec } else { compile };
        let extras = Extras {
            supervise: extras.supervise,
            default_seccomp: extras.default_seccomp,
            profile: extras.profile,
            // This process is Node, which has raised its own soft limit.
            lower_files: true,
            host_variable: extras.host_variable,
            mapped: extras.mapped,
            groups: extras.groups,
        };
        let parsed =
            serde_json::from_str(&spec).map_err(|error| Error::invalid("config.json", error.to_string()));
        let plan = parsed.and_then(|spec| compile(&spec, &extras));
        let terminal = plan.as_ref().is_ok_and(|plan| plan.terminal);
        Self { outcome: plan.and_then(|plan| plan.seal()), terminal }
    }

    /// Closes its memory file; it can be launched no more.
    #[napi(catch_unwind)]
    pub fn close(&mut self) {
        self.outcome = Err(Error::new(Code::Internal, Stage::PLAN, "plan", "closed"));
    }

    /// Why the spec was refused.
    #[napi(getter, catch_unwind)]
    pub fn failure(&self) -> Option<Failure> {
        self.outcome.as_ref().err().cloned().map(Into::into)
    }
}

/// The capabilities that this process could give: its bounding set, 16 hex digits.
#[napi(catch_unwind)]
#[must_use]
pub fn bounding_set() -> String {
    format!("{:016x}", caisson_sys::identity::bounding())
}
