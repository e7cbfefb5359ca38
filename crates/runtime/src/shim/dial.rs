//! A connection to a port of a container, made by a child that enters its network: what comes back is a descriptor, and
//! nothing of the host's network knows of it.

use super::child;
use caisson_core::{At, Code, Error, Result, Stage};
use caisson_sys::fd::{self, Number};
use caisson_sys::process::{self, End, namespace};
use caisson_sys::{Errno, Fd, socket};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, connect, setsockopt, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

/// Where the child has the way back, and the container's first process.
const BACK: Number = Number(0);
const CONTAINER: Number = Number(1);
/// A listener that does not take what waits for it is not waited for longer.
const PATIENCE_S: i64 = 10;

#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) process: Fd,
    port: u16,
}

impl Dialer {
    /// Starts to connect to `port` of loopback in the network of the container whose first process is `container`;
    /// without `new`, in this one's: it has no other. The connection goes `back`.
    pub(super) fn start(container: &Fd, new: u64, back: &Fd, port: u16) -> Result<Self> {
        let process = child::fork(Stage::DIAL, || {
            let alone = fd::place(back, BACK.0)
                .and_then(|()| fd::place(container, CONTAINER.0))
                .and_then(|()| fd::close_from(3));
            let dialed = alone.and_then(|()| dial(new, port));
            dialed.err().map_or(0, Errno::raw)
        })?;
        Ok(Self { process, port })
    }

    /// How it ended; nothing while it is under way.
    pub(super) fn outcome(&self) -> Option<Result<()>> {
        let end = match process::reap(&self.process) {
            Ok(None) => return None,
            Ok(Some(end)) => end,
            Err(_) => End { status: 9, signaled: true, user_us: 0, system_us: 0, max_rss_kib: 0 },
        };
        Some(match (end.signaled, end.status) {
            (false, 0) => Ok(()),
            (false, errno) => {
                let failed = Err(Errno::from_raw(errno)).at(Stage::DIAL, format!("port {}", self.port));
                failed.map_err(|error| error.with_code(Code::Dial))
            }
            (true, _) => Err(Error::new(Code::Launch, Stage::DIAL, "child", "was killed")),
        })
    }
}

fn dial(new: u64, port: u16) -> std::result::Result<(), Errno> {
    if new & namespace::NET != 0 {
        process::setns(CONTAINER, namespace::NET)?;
    }
    let v4 = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    let v6 = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0));
    let connected = match to(AddressFamily::Inet, &v4) {
        // Whoever listens may do so on the other family alone.
        Err(Errno::ECONNREFUSED) => to(AddressFamily::Inet6, &v6).map_err(|_| Errno::ECONNREFUSED)?,
        answer => answer?,
    };
    socket::send(BACK, b"dial", &[&connected], false).map(drop)
}

fn to(family: AddressFamily, address: &dyn SockaddrLike) -> std::result::Result<Fd, Errno> {
    let raw = |errno: nix::errno::Errno| Errno::from_raw(errno as i32);
    let made =
        nix::sys::socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(raw)?;
    setsockopt(&made, sockopt::SendTimeout, &TimeVal::seconds(PATIENCE_S)).map_err(raw)?;
    connect(made.as_raw_fd(), address).map_err(|errno| match errno {
        // A connect that ran out of its time (socket(7)).
        nix::errno::Errno::EINPROGRESS => Errno::from_raw(nix::errno::Errno::ETIMEDOUT as i32),
        errno => raw(errno),
    })?;
    setsockopt(&made, sockopt::SendTimeout, &TimeVal::seconds(0)).map_err(raw)?;
    Ok(made.into())
}
