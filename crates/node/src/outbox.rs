//! Requests on their way to a shim: sent at once, or where the socket is full by a thread that waits for room, so that a
//! burst of starts neither fails nor holds Node's own loop.

use crate::start::STACK;
use caisson_core::channel::{self, MAX_MESSAGE, Request};
use caisson_core::wire::Wire;
use caisson_sys::{Descriptor, Errno, Fd, fd, socket};
use nix::sys::socket::{Shutdown, shutdown};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Open {
    socket: Arc<Fd>,
    /// What the socket had no room for, in order, with descriptors of its own.
    waiting: VecDeque<(Vec<u8>, Vec<Fd>)>,
    /// Whether a thread sends that.
    draining: bool,
}

/// The way to one shim.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Mutex<Option<Open>>>);

impl Outbox {
    /// Without a socket it is closed already.
    pub(crate) fn new(socket: Option<Fd>) -> Self {
        let open = |socket| Open { socket: Arc::new(socket), waiting: VecDeque::new(), draining: false };
        Self(Arc::new(Mutex::new(socket.map(open))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, or puts it behind those that wait. What waits keeps the descriptors open.
    ///
    /// # Errors
    /// EPIPE after the shim's end or our own; EMSGSIZE above [`MAX_MESSAGE`]; EMFILE.
    pub(crate) fn send(&self, request: &Request, descriptors: &[&dyn Descriptor]) -> Result<(), Errno> {
        const EPIPE: Errno = Errno::from_raw(nix::errno::Errno::EPIPE as i32);
        let mut outbox = self.lock();
        let open = outbox.as_mut().ok_or(EPIPE)?;
        if !open.draining {
            match channel::send(&*open.socket, request, descriptors, false) {
                Err(Errno::EAGAIN) => {}
                answer => return answer,
            }
        }
        let bytes = request.to_bytes();
        if bytes.len() > MAX_MESSAGE {
            return Err(Errno::from_raw(nix::errno::Errno::EMSGSIZE as i32));
        }
        let own =
            descriptors.iter().map(|descriptor| fd::duplicate(descriptor, 3)).collect::<Result<_, _>>()?;
        open.waiting.push_back((bytes, own));
        if !open.draining {
            let (outbox, socket) = (self.clone(), Arc::clone(&open.socket));
            let thread = std::thread::Builder::new().name("caisson-send".into()).stack_size(STACK);
            let started = thread.spawn(move || outbox.drain(&socket));
            if started.is_err() {
                open.waiting.pop_back();
                return Err(Errno::EAGAIN);
            }
            open.draining = true;
        }
        Ok(())
    }

    fn drain(&self, socket: &Fd) {
        loop {
            let next = match self.lock().as_mut() {
                None => return,
                Some(open) => {
                    let next = open.waiting.pop_front();
                    open.draining = next.is_some();
                    next
                }
            };
            let Some((bytes, descriptors)) = next else { return };
            let descriptors: Vec<&dyn Descriptor> =
                descriptors.iter().map(|descriptor| descriptor as &dyn Descriptor).collect();
            // The shim's end shows elsewhere, for every request.
            let _ = socket::send(socket, &bytes, &descriptors, true);
        }
    }

    /// Ends the way, and the shim with it: what waits is not sent any more.
    pub(crate) fn close(&self) {
        if let Some(open) = self.lock().take() {
            // A thread that sends just now holds the socket, too.
            let _ = shutdown(open.socket.as_fd().as_raw_fd(), Shutdown::Both);
        }
    }
}
