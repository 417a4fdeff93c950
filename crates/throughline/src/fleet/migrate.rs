//! `tl fleet migrate`: the tables, and what a role needs that only works in them.

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tl_fleet::postgres;

use super::place;
use super::settings::read::Given;
use super::settings::{FleetSettings, Place};
use crate::failure::Failure;
use crate::output::Out;

/// Arguments of `tl fleet migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Change nothing; print the script for psql that lets the role `role` work in the tables and
    /// make none: `tl fleet migrate --grants | psql -v role=worker`
    #[arg(long)]
    grants: bool,
}

/// Runs the word.
pub async fn run(
    flags: Vec<(&'static str, Given)>,
    args: &MigrateArgs,
    out: &Out,
) -> anyhow::Result<()> {
    let settings = FleetSettings::of_process(flags)?;
    if args.grants {
        return match &settings.place {
            Place::Postgres(options) => out.bytes(postgres::grants(options).as_bytes()),
            Place::Sqlite(_) => {
                let what = "--grants is for --store postgres; a file has the rights of its folder";
                Err(Failure::Usage(what.to_owned()).into())
            }
        };
    }
    let (store, version) = match &settings.place {
        Place::Postgres(options) => {
            postgres::migrate(options).await.context("making the tables")?;
            ("postgres", postgres::SCHEMA_VERSION)
        }
        Place::Sqlite(_) => {
            place::make(&settings.place).await.context("making the tables")?;
            ("sqlite", tl_fleet::sqlite::SCHEMA_VERSION)
        }
    };
    out.either(
        &json!({ "store": store, "schema_version": version }),
        &format!("the tables are there, version {version}"),
    )
}
