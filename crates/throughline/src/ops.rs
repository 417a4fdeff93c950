//! `tl ops`: what an operator does around nodes, and asks of running ones.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;
use tl_engine::cluster::{MEMBERS_MAX, MEMBERS_MIN, ROUTERS_MAX, found_with};
use tl_types::UnixMs;

use crate::failure::Failure;
use crate::output::Out;

mod ca;
mod remote;
mod replace;

/// The words of `tl ops`.
#[derive(Debug, Subcommand)]
pub enum OpsCommand {
    /// Show the node and its cluster, and why groups take no writes when they take none
    Status(remote::NodeArgs),
    /// Show all members
    Nodes(remote::NodeArgs),
    /// Print the names of the members that are ready
    ReadyNodes(remote::NodeArgs),
    /// Show all groups, or those that take no writes
    Groups(remote::GroupsArgs),
    /// Show one group with its replicas
    Group(remote::GroupArgs),
    /// Drain a member: it gives away what it leads and ends its tails, until `undrain`
    Drain(remote::DrainArgs),
    /// End a member's drain
    Undrain(remote::DrainArgs),
    /// Wait until a member is ready
    WaitReady(remote::WaitArgs),
    /// Wait until a member is drained
    WaitDrained(remote::WaitArgs),
    /// Have a member lead a group
    Transfer(remote::TransferArgs),
    /// Give a member whose disk is lost a new life, and make its data directory
    Replace(replace::ReplaceArgs),
    /// Have a member take the rows of a group anew from the group's leader
    Repair(remote::RepairArgs),
    /// Commit the highest feature level that every node speaks; there is no way back
    RaiseLevel(remote::NodeArgs),
    /// Found a cluster: make the data directory of each member, once and for all
    Found(FoundArgs),
    /// Certificates for the connections between members
    #[command(subcommand)]
    Ca(ca::CaCommand),
}

/// Arguments of `tl ops found`.
#[derive(Debug, Args)]
pub struct FoundArgs {
    /// Names of all members, from 3 to 5
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Names of routers, with commas between them: nodes that take requests and hold nothing
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    routers: Vec<String>,
    /// Folder to make the directories in, each by its node's name
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Groups of the cluster, 1 to 4096
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    groups: u16,
}

/// Runs one word.
pub async fn run(command: OpsCommand, out: &Out) -> anyhow::Result<()> {
    match command {
        OpsCommand::Status(args) => remote::status(&args, out).await,
        OpsCommand::Nodes(args) => remote::nodes(&args, out).await,
        OpsCommand::ReadyNodes(args) => remote::ready_nodes(&args, out).await,
        OpsCommand::Groups(args) => remote::groups(&args, out).await,
        OpsCommand::Group(args) => remote::group(&args, out).await,
        OpsCommand::Drain(args) => remote::drain(&args, true, out).await,
        OpsCommand::Undrain(args) => remote::drain(&args, false, out).await,
        OpsCommand::WaitReady(args) => remote::wait(&args, "ready", out).await,
        OpsCommand::WaitDrained(args) => remote::wait(&args, "drained", out).await,
        OpsCommand::Transfer(args) => remote::transfer(&args, out).await,
        OpsCommand::Replace(args) => replace::run(&args, out).await,
        OpsCommand::Repair(args) => remote::repair(&args, out).await,
        OpsCommand::RaiseLevel(args) => remote::raise_level(&args, out).await,
        OpsCommand::Found(args) => run_found(args, out),
        OpsCommand::Ca(command) => ca::run(command, out),
    }
}

/// Directories by the names of their nodes.
type Directories = Vec<(String, PathBuf)>;

/// Makes the directories of members and routers that have none yet, below `folder`.
pub fn found_in(
    folder: &std::path::Path,
    names: &[String],
    routers: &[String],
    groups: u16,
) -> anyhow::Result<(Directories, Directories)> {
    let below = |names: &[String]| -> Directories {
        names.iter().map(|name| (name.clone(), folder.join(name))).collect()
    };
    let (members, router_dirs) = (below(names), below(routers));
    let all: Vec<String> = names.iter().chain(routers).cloned().collect();
    let mut unique = all.clone();
    unique.sort_unstable();
    unique.dedup();
    let plain = |name: &String| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !name.starts_with('.')
    };
    if unique.len() != all.len() || !all.iter().all(plain) {
        let what = "names must differ and be letters, digits, '-', '_' and '.'".to_owned();
        return Err(Failure::Usage(what).into());
    }
    if !(MEMBERS_MIN..=MEMBERS_MAX).contains(&names.len()) {
        let what = format!("a cluster has from {MEMBERS_MIN} to {MEMBERS_MAX} members");
        return Err(Failure::Usage(what).into());
    }
    if routers.len() > ROUTERS_MAX {
        return Err(Failure::Usage(format!("a cluster has at most {ROUTERS_MAX} routers")).into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut ids = Vec::new();
    for _ in 0..=all.len() {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| anyhow::anyhow!("{error}"))?;
        ids.push(id);
    }
    let next = std::cell::RefCell::new(ids.into_iter());
    let fresh = || next.borrow_mut().next().expect("one for the cluster and one for each node");
    found_with(&members, &router_dirs, groups, UnixMs(now.as_millis() as u64), fresh)
        .with_context(|| format!("founding a cluster in {}", folder.display()))?;
    Ok((members, router_dirs))
}

fn run_found(args: FoundArgs, out: &Out) -> anyhow::Result<()> {
    let (members, routers) = found_in(&args.out, &args.names, &args.routers, args.groups)?;
    let listed = |all: &Directories| -> Vec<_> {
        all.iter()
            .map(|(name, dir)| json!({ "name": name, "data_dir": dir.display().to_string() }))
            .collect()
    };
    let mut text =
        "The cluster is founded. Each member's directory is made, once and for all:\n\n".to_owned();
    for (name, dir) in &members {
        text.push_str(&format!("  {name:<16} {}\n", dir.display()));
    }
    if !routers.is_empty() {
        text.push_str("\nand each router's:\n\n");
    }
    for (name, dir) in &routers {
        text.push_str(&format!("  {name:<16} {}\n", dir.display()));
    }
    text.push_str(
        "\nBring each to its machine, whole and only there, as engine.data_dir, and set\n\
         engine.node_name, cluster.members and, if there are any, cluster.routers. Keep no copy of\n\
         a member's: one that starts from an old copy may forget what it promised.",
    );
    let page = json!({ "members": listed(&members), "routers": listed(&routers) });
    out.either(&page, &text)
}
