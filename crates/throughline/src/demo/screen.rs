//! What the watcher sees: a line per event up to a limit, and remarks between them.

use std::sync::atomic::{AtomicU64, Ordering};

use tl_client::Event;

use crate::output::{Out, shorten};
use crate::session::show;

/// Event lines shown; a data set has more than anybody reads.
const EVENT_LINES_MAX: u64 = 160;

/// The screen of one demo; shared by its tails.
#[derive(Debug)]
pub struct Screen {
    out: Out,
    shown: AtomicU64,
}

impl Screen {
    pub fn new(out: Out) -> Screen {
        Screen { out, shown: AtomicU64::new(0) }
    }

    /// A remark.
    pub fn say(&self, text: &str) {
        if !self.out.is_json() {
            // A closed pipe ends the demo where it prints its result.
            let _ = self.out.line(text);
        }
    }

    /// An event that a tail has just delivered.
    pub fn event(&self, session: &str, event: &Event) {
        match self.shown.fetch_add(1, Ordering::Relaxed) {
            shown if shown < EVENT_LINES_MAX => {
                self.say(&format!("{:<14} {}", shorten(session, 14), show::event(event)));
            }
            EVENT_LINES_MAX => self.say("… (the other events are followed without being shown)"),
            _ => {}
        }
    }
}
