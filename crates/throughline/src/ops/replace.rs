//! `tl ops replace`: a new life for a member whose disk is lost.
//!
//! The directory is looked at before the cluster is asked, since what the cluster has agreed to is
//! not taken back; should it not be made all the same, the member is replaced once more.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tl_engine::cluster::NewLife;
use tl_engine::identity::Identity;

use super::remote::{NodeArgs, parsed};
use crate::failure::Failure;
use crate::output::Out;

/// Arguments of `tl ops replace`.
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The member whose disk is lost
    #[arg(value_name = "NODE")]
    name: String,
    /// Directory for the new life, new or empty; it goes to the member's machine
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Also while the member is heard, or groups need it that would take no writes for good: what its
    /// directory holds is then of no use any more
    #[arg(long)]
    force: bool,
}

/// Runs it.
pub async fn run(args: &ReplaceArgs, out: &Out) -> anyhow::Result<()> {
    Identity::check_empty(&args.data_dir)?;
    let body = json!({ "node": args.name, "force": args.force });
    let answer = args.node.client()?.post_raw("/v1/ops/replace", &body).await?;
    let made = || -> anyhow::Result<NewLife> {
        let life: NewLife = serde_json::from_value(parsed(&answer)?).context("the answer")?;
        life.make_directory(&args.data_dir)?;
        Ok(life)
    };
    let life = made().map_err(|error| Failure::WithAdvice {
        what: format!("the cluster agreed, but the new directory was not made: {error:#}"),
        advice: "repeat the command with another directory: it makes one more life".to_owned(),
    })?;
    let (name, dir) = (&life.name, args.data_dir.display().to_string());
    let text = format!(
        "The former life of {name} is over; list of members {number} says so. Its new life begins \
         in\n\n  {dir}\n\n\
         1. With certificates: `tl ops ca issue --ca AUTHORITY --data {dir} --out CERTIFICATES`.\n\
         2. Bring the directory to the machine of {name}, whole and only there, as \
         engine.data_dir, and\n   start it with the settings that it had and the new certificate.\n\
         3. `tl ops status` shows how many groups are done; `tl ops wait-ready {name}` waits for \
         all.\n\n\
         Until then the cluster bears the loss of no other member.",
        number = life.list.number,
    );
    let page = json!({
        "node": name,
        "data_dir": dir,
        "members_number": life.list.number,
    });
    out.either(&page, &text)
}
