//! What programs leave behind.
//!
//! A program may make a process group or a session of its own; killing the group of its attempt
//! then misses it. On Linux a process can ask to be given the orphans among its descendants, and
//! one that has taken charge of them finds there whatever got away:
//!
//! ```text
//!   pod ── program ── child (own session)      the program ends      pod ── child: ends it too
//! ```
//!
//! Whose attempt an orphan was is told by a mark in its environment, which what a program starts
//! inherits. Only a process that also takes on another environment is missed.
//!
//! Absent on purpose: control groups, which a pod without rights cannot make; and what outlives a
//! pod that is killed itself.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::process::{Child, Command};

/// The variable that bears the mark.
const MARK: &str = "TL_FLEET_ATTEMPT";
/// Looks at what is left of one attempt, and the wait between two: what was killed takes a
/// moment to end.
const LOOKS_MAX: u32 = 200;
const LOOK: Duration = Duration::from_millis(5);
/// Of these, looks for the sake of children that show no environment: they are about to end, or
/// have none.
const DIM_LOOKS_MAX: u32 = 20;

/// What this process knows of its children.
static CHARGE: Mutex<Charge> = Mutex::new(Charge { taken: false, leaders: None });

struct Charge {
    taken: bool,
    /// Children that programs were started as; they are waited for where they were started.
    leaders: Option<HashSet<i32>>,
}

/// Has the kernel give this process the orphans of the programs that it runs, so that nothing
/// that they start outlives its attempt. For processes that start no children but these: ended
/// children that nobody waits for are collected.
///
/// # Errors
/// What the kernel says.
#[cfg(target_os = "linux")]
pub fn take_charge_of_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    CHARGE.lock().taken = true;
    Ok(())
}

/// Elsewhere there are process groups alone.
///
/// # Errors
/// Never.
#[cfg(not(target_os = "linux"))]
pub fn take_charge_of_orphans() -> io::Result<()> {
    Ok(())
}

/// Names one attempt among the processes of this machine.
#[derive(Debug, Clone)]
pub(super) struct Mark(String);

/// A program that was started, and what is to be cleared away behind it.
#[derive(Debug)]
pub(super) struct Trace {
    leader: i32,
    mark: Mark,
}

/// Starts a program with a mark.
pub(super) fn spawn(command: &mut Command) -> io::Result<(Child, Trace)> {
    let mark = Mark(format!("{:032x}", fastrand::u128(..)));
    command.env(MARK, &mark.0);
    // Nobody looks at children while one is on its way to being a program.
    let mut charge = CHARGE.lock();
    let child = command.spawn()?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
    charge.leaders.get_or_insert_default().insert(leader);
    Ok((child, Trace { leader, mark }))
}

impl Trace {
    /// The process group of the program, which bears its leader's number.
    pub(super) fn group(&self) -> Option<Pid> {
        Pid::from_raw(self.leader)
    }

    /// Ends what has left the group. To be called when the group was killed.
    pub(super) async fn clear(self) {
        let taken = {
            let mut charge = CHARGE.lock();
            charge.leaders.get_or_insert_default().remove(&self.leader);
            charge.taken
        };
        if !taken {
            return;
        }
        let mut dim = 0;
        for _ in 0..LOOKS_MAX {
            match look(&self.mark) {
                Left::Nothing => return,
                Left::Dim if dim == DIM_LOOKS_MAX => return,
                Left::Dim => dim += 1,
                Left::Some => {}
            }
            tokio::time::sleep(LOOK).await;
        }
        tracing::warn!("a process that a program has left behind does not end");
    }
}

/// What there is of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Perhaps something: a child shows no environment.
    Dim,
    Some,
}

/// Kills children with this mark, and collects those that have ended.
fn look(mark: &Mark) -> Left {
    let charge = CHARGE.lock();
    let is_leader =
        |pid: &i32| charge.leaders.as_ref().is_some_and(|leaders| leaders.contains(pid));
    let mut left = Left::Nothing;
    for pid in children().into_iter().filter(|pid| !is_leader(pid)) {
        let Some(child) = Pid::from_raw(pid) else { continue };
        // Its number is nobody else's before it was collected, which only happens here.
        if matches!(waitpid(Some(child), WaitOptions::NOHANG), Ok(Some(_)) | Err(_)) {
            continue;
        }
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if bears(&environment, mark) {
            // Gone already is as good.
            let _gone = kill_process(child, Signal::KILL);
            left = Left::Some;
        } else if environment.is_empty() && left == Left::Nothing {
            left = Left::Dim;
        }
    }
    left
}

fn bears(environment: &[u8], mark: &Mark) -> bool {
    let line = format!("{MARK}={}", mark.0);
    environment.split(|byte| *byte == 0).any(|variable| variable == line.as_bytes())
}

/// The children of all threads of this process.
fn children() -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let mut children = Vec::new();
    for thread in threads.flatten() {
        let list = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_as_a_whole_variable_alone() {
        let mark = Mark("ab".to_owned());
        assert!(bears(b"HOME=/\0TL_FLEET_ATTEMPT=ab\0PATH=x\0", &mark));
        for other in [&b"TL_FLEET_ATTEMPT=abc\0"[..], b"XTL_FLEET_ATTEMPT=ab\0", b"", b"\xff\0"] {
            assert!(!bears(other, &mark), "{other:?}");
        }
    }
}
