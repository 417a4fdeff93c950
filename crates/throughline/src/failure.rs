//! How a command that failed ends: a message, what to do next, and an exit code.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use tl_client::ClientError;
use tl_engine::EngineError;
use tl_engine::cluster::ClusterError;
use tl_engine::identity::IdentityError;
use tl_engine::lock::LockError;
use tl_fleet::StoreError;
use tl_wal::WalError;

/// The command line or settings are not right.
pub const EXIT_USAGE: u8 = 2;
/// No node could be reached.
pub const EXIT_UNREACHABLE: u8 = 3;
/// A check found a difference.
pub const EXIT_CHECK: u8 = 4;
/// Ctrl-C.
pub const EXIT_INTERRUPTED: u8 = 130;

/// A failure with its own exit code and advice.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Settings or arguments that can never work.
    #[error("{0}")]
    Usage(String),
    /// A check that found something wrong; what it found has been printed.
    #[error("{0}")]
    Check(String),
    /// Stopped by the user.
    #[error("interrupted")]
    Interrupted,
    /// Something that a next step can mend.
    #[error("{what}")]
    WithAdvice {
        /// What happened.
        what: String,
        /// What to do next.
        advice: String,
    },
}

/// Prints the failure to stderr and answers the exit code.
pub fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    if is_broken_pipe(error) {
        // The reader of our output has seen enough.
        return ExitCode::SUCCESS;
    }
    let text = if json {
        json_error(error).to_string()
    } else {
        let mut text = format!("error: {error:#}");
        if let Some(advice) = advice(error) {
            text.push_str("\n  ");
            text.push_str(&advice);
        }
        text
    };
    // Nobody to tell when stderr is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    ExitCode::from(exit_code(error))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Usage(_)) => return EXIT_USAGE,
        Some(Failure::Check(_)) => return EXIT_CHECK,
        Some(Failure::Interrupted) => return EXIT_INTERRUPTED,
        Some(Failure::WithAdvice { .. }) => return 1,
        None => {}
    }
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Invalid(_)) => return EXIT_USAGE,
        Some(failure) if store_is_away(failure) => return EXIT_UNREACHABLE,
        Some(_) | None => {}
    }
    match error.downcast_ref::<ClientError>() {
        Some(failure) if failure.is_unreachable() => EXIT_UNREACHABLE,
        Some(ClientError::BadArgument(_)) => EXIT_USAGE,
        Some(_) | None => 1,
    }
}

/// What to do next.
fn advice(error: &anyhow::Error) -> Option<String> {
    if let Some(Failure::WithAdvice { advice, .. }) = error.downcast_ref() {
        return Some(advice.clone());
    }
    if let Some(advice) = error.chain().find_map(start_advice) {
        return Some(advice.to_owned());
    }
    if let Some(failure) = error.downcast_ref::<StoreError>() {
        return store_advice(failure).map(str::to_owned);
    }
    let failure = error.downcast_ref::<ClientError>()?;
    if failure.is_unreachable() {
        let next = "is a node running? Start one with `tl dev`, or say where it is with --url";
        return Some(next.to_owned());
    }
    let is_open = matches!(failure, ClientError::GaveUp { last, .. } if !last.changed_nothing());
    let advice = match failure.code().or(is_open.then_some("raft_timeout"))? {
        "session_not_found" => "`tl session list --archived all` shows what is there",
        "session_exists" => "append to it, or choose another id",
        "session_tombstoned" => "a deleted id is not given out again; choose another one",
        "session_closed" => "a closed session can be read and takes no more events",
        "expected_version_conflict" => {
            "somebody changed it in between: look with `tl session get` and try again"
        }
        "expected_seq_conflict" => {
            "somebody appended in between: read on from your seq and decide again"
        }
        "producer_seq_conflict" => {
            "a producer counts its own appends from 1; the message says which one is next"
        }
        "raft_timeout" => {
            "the write may have taken effect: an append is safe to repeat with the same \
             --producer and --producer-seq; before you repeat another one, look with \
             `tl session get`"
        }
        "not_found" => "is this address a Throughline node of this version?",
        "unknown_node" => "`tl ops nodes` lists the members",
        "member_present" => {
            "only a member whose disk is lost needs a new life; `tl ops drain` takes one out of \
             service"
        }
        "replacement_under_way" => "`tl ops status` says how many groups are done",
        "level_not_raised" => {
            "`tl ops nodes` shows what each node speaks; a level is raised when all nodes run the \
             newer release"
        }
        "ops_not_local" => {
            "run this on the node's own computer, with --url http://127.0.0.1 and its port"
        }
        "wait_timed_out" => {
            "`tl ops status` says what is in the way; wait longer with --timeout-ms"
        }
        "raft_unavailable" => "`tl ops status` says which members are missing",
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Whether the same may work later, without anything being changed.
fn store_is_away(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable { .. }
        | StoreError::OutcomeUnknown { .. }
        | StoreError::Busy { .. } => true,
        StoreError::Invalid(_)
        | StoreError::Reaped
        | StoreError::Refused { .. }
        | StoreError::Schema { .. }
        | StoreError::Corrupt { .. } => false,
    }
}

/// What to do about a fleet's database.
fn store_advice(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Unavailable { .. } => {
            Some("nothing was written. Is the database up, and is this its address?")
        }
        StoreError::OutcomeUnknown { .. } => Some(
            "it may have been written. A submission is safe to repeat with --id or --unique-key",
        ),
        StoreError::Schema { found: 0, .. } => {
            Some("there are no tables yet: `tl fleet migrate` makes them")
        }
        StoreError::Schema { found, wanted } if found < wanted => {
            Some("`tl fleet migrate` brings the tables up to date")
        }
        StoreError::Schema { .. } => Some("a newer program made the tables: use that one"),
        StoreError::Refused { .. } => {
            Some("look at the rights, the free space, and whether the database is read-only")
        }
        StoreError::Invalid(_)
        | StoreError::Reaped
        | StoreError::Busy { .. }
        | StoreError::Corrupt { .. } => None,
    }
}

/// What to do about a node that could not start.
fn start_advice(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    const IN_USE: &str =
        "another `tl` runs on this directory: stop it, or name another one with --data";
    if let Some(EngineError::Lock(LockError::InUse { .. })) = cause.downcast_ref() {
        return Some(IN_USE);
    }
    if let Some(EngineError::Cluster(ClusterError::Level { .. })) = cause.downcast_ref() {
        return Some(
            "nothing was changed. `tl ops nodes` on another member shows what each one speaks: bring \
             this node to their release",
        );
    }
    if let Some(EngineError::Cluster(ClusterError::List(
        IdentityError::Foreign { path, .. } | IdentityError::Io { what: "read", path, .. },
    ))) = cause.downcast_ref()
        && path.ends_with("births.json")
    {
        return Some(
            "nothing was changed. A file of a newer release needs that release, and one that may \
             not be read other rights. One that is damaged may be moved away, but not while any \
             member's disk is lost: the next directory that calls under each number is then taken \
             for that member's own",
        );
    }
    match cause.downcast_ref::<WalError>()? {
        WalError::Locked { .. } => Some(IN_USE),
        WalError::Corrupt(_) => Some(
            "nothing was changed. `tl debug log --data DIR` shows the place; a member of a cluster \
             gets a new life with `tl ops replace` on another one, a single node has nobody to \
             fetch lost records from, so put back a copy of the directory",
        ),
        WalError::Gone { .. } => Some(
            "nothing was changed. Put back a copy of the whole data directory; to start empty, \
             move the whole data directory away first",
        ),
        WalError::Full { .. } => Some("make room on the disk and start again"),
        WalError::Unsupported { .. } => Some("start it with the release that wrote it"),
        WalError::Foreign { .. } => Some("move the segment of the other node out of the directory"),
        WalError::Option { .. }
        | WalError::TooLarge { .. }
        | WalError::Failed { .. }
        | WalError::Poisoned => None,
    }
}

fn json_error(error: &anyhow::Error) -> Value {
    let refusal = error.downcast_ref::<ClientError>().and_then(ClientError::refusal);
    let code = match (refusal, exit_code(error)) {
        (Some(refusal), _) => refusal.code.clone(),
        (None, EXIT_USAGE) => "usage".to_owned(),
        (None, EXIT_UNREACHABLE) => "unreachable".to_owned(),
        (None, EXIT_CHECK) => "check_failed".to_owned(),
        (None, EXIT_INTERRUPTED) => "interrupted".to_owned(),
        (None, _) => "failed".to_owned(),
    };
    let mut body = json!({ "error": code, "message": format!("{error:#}") });
    if let Some(refusal) = refusal {
        for (name, value) in &refusal.facts {
            body[name] = value.clone();
        }
    }
    if let Some(advice) = advice(error) {
        body["advice"] = advice.into();
    }
    body
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    }) && error.downcast_ref::<ClientError>().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn refused(status: u16, body: &str) -> anyhow::Error {
        ClientError::from(tl_client::Refusal::from_reply(status, None, body.as_bytes())).into()
    }

    #[test]
    fn codes_and_facts_of_the_server_come_through() {
        let error =
            refused(409, r#"{"error":"expected_seq_conflict","message":"m","current_seq":4}"#);
        let error = Err::<(), _>(error).context("appending to chat-42").unwrap_err();
        let body = json_error(&error);
        assert_eq!(body["error"], "expected_seq_conflict");
        assert_eq!(body["current_seq"], 4);
        assert!(body["message"].as_str().is_some_and(|m| m.starts_with("appending to chat-42")));
        assert_eq!(exit_code(&error), 1);
    }

    #[test]
    fn a_node_below_the_level_of_its_cluster_is_told_what_to_do() {
        let error = EngineError::from(ClusterError::Level { level: 3, spoken: 2 });
        let error = anyhow::Error::from(error).context("starting the node");
        assert_eq!(exit_code(&error), 1);
        assert!(format!("{error:#}").contains("committed feature level 3"), "{error:#}");
        assert!(advice(&error).is_some_and(|advice| advice.contains("bring this node")));
    }

    #[test]
    fn a_node_that_cannot_read_by_what_it_knows_the_others_is_told_what_to_do() {
        let file = |name: &str| std::path::Path::new("data").join(name);
        let told = |error: IdentityError| {
            let error = EngineError::from(ClusterError::from(error));
            advice(&anyhow::Error::from(error).context("starting the node"))
        };
        let foreign =
            |name| IdentityError::Foreign { path: file(name), reason: "its format is 2".into() };
        let source = || std::io::ErrorKind::PermissionDenied.into();
        let unread =
            IdentityError::Io { what: "read", path: file("births.json"), source: source() };
        for error in [foreign("births.json"), unread] {
            let advice = told(error).expect("advice");
            assert!(advice.contains("moved away, but not while any member's disk is lost"));
        }
        assert_eq!(told(foreign("members.json")), None, "this one must not be moved away");
    }

    #[test]
    fn an_unreachable_node_has_its_own_code_and_advice() {
        let source = "refused".into();
        let error = ClientError::Unreachable { url: "http://127.0.0.1:1".into(), source };
        let error = anyhow::Error::from(error);
        assert_eq!(exit_code(&error), EXIT_UNREACHABLE);
        assert!(advice(&error).is_some_and(|advice| advice.contains("tl dev")));
    }

    #[test]
    fn a_write_of_unknown_outcome_is_not_called_unreachable() {
        let url = "http://127.0.0.1:1".to_owned();
        let last = Box::new(ClientError::Broken { url, source: "reset".into() });
        let elapsed = std::time::Duration::from_secs(20);
        let error = anyhow::Error::from(ClientError::GaveUp { attempts: 3, elapsed, last });
        assert_eq!(exit_code(&error), 1);
        assert!(advice(&error).is_some_and(|advice| advice.contains("may have taken effect")));
    }

    #[test]
    fn checks_usage_and_interrupts_are_told_apart() {
        let codes =
            [Failure::Check(String::new()), Failure::Usage(String::new()), Failure::Interrupted]
                .map(|failure| exit_code(&failure.into()));
        assert_eq!(codes, [EXIT_CHECK, EXIT_USAGE, EXIT_INTERRUPTED]);
    }
}
