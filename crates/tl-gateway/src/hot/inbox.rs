//! What other threads have for the front: new connections, answers that took longer, the stop.

use std::net::TcpStream;

use parking_lot::Mutex;
use tl_engine::api::{Appended, Indexed, ServiceError};
use tl_engine::front::{Later, Ticket};

use super::poll::Bell;
use crate::shared::{Phase, Place};

/// One piece of mail.
pub enum Mail {
    /// A connection that has just been accepted, not blocking.
    Open(TcpStream, Place),
    /// Appends whose rows were loaded, or could not be.
    Rows(Vec<(Ticket, Result<Box<Later>, ServiceError>)>),
    /// The answer to an append that had to wait.
    Done(Ticket, Result<Indexed<Appended>, ServiceError>),
    /// The server stops.
    Phase(Phase),
}

/// Mail for the front until it takes it. Its size follows the connections, which are bounded.
pub struct Inbox {
    state: Mutex<State>,
    bell: Bell,
}

struct State {
    open: bool,
    mail: Vec<Mail>,
}

impl Inbox {
    /// An empty one whose front hears `bell`.
    pub fn new(bell: Bell) -> Inbox {
        Inbox { state: Mutex::new(State { open: true, mail: Vec::new() }), bell }
    }

    /// Puts mail in; gives it back when the front is gone.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(mail);
        }
        let was_empty = state.mail.is_empty();
        state.mail.push(mail);
        drop(state);
        if was_empty {
            self.bell.ring();
        }
        Ok(())
    }

    /// Takes everything, in order.
    pub fn take(&self) -> Vec<Mail> {
        std::mem::take(&mut self.state.lock().mail)
    }

    /// Takes no more, and gives what is left.
    pub fn close(&self) -> Vec<Mail> {
        let mut state = self.state.lock();
        state.open = false;
        std::mem::take(&mut state.mail)
    }
}
