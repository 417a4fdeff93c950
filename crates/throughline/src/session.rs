//! `tl session …`: the client's words, one function each.

mod append;
mod patience;
pub mod show;
mod tail;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tl_client::{
    Client, ClientOptions, CreateSession, ListQuery, PatchSession, Session, SessionPage,
};

use crate::cli::URL_DEFAULT;
use crate::failure::Failure;
use crate::output::{Out, table};
use crate::transfer;
use patience::{told, write_retry};

/// Arguments of `tl session`.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// Address of the node
    #[arg(long, global = true, env = "TL_URL", default_value = URL_DEFAULT, value_name = "URL")]
    url: String,
    /// Namespace of the sessions; the server's default when absent
    #[arg(long, global = true, env = "TL_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    #[command(subcommand)]
    command: SessionCommand,
}

/// The words of `tl session`.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Make a session
    Create(CreateArgs),
    /// Append one event, or a batch of lines
    Append(append::AppendArgs),
    /// Show one session
    Get(IdArgs),
    /// List sessions by id
    List(ListArgs),
    /// Print events from a cursor on and follow
    Tail(tail::TailArgs),
    /// Bring in sessions from a file of JSON lines; doing it again adds nothing
    Import(transfer::import::ImportArgs),
    /// Write sessions as JSON lines
    Export(transfer::export::ExportArgs),
    /// Change title or metadata
    Update(UpdateArgs),
    /// Take a session out of default lists; it stays readable and writable
    Archive(IdArgs),
    /// Put a session back into default lists
    Unarchive(IdArgs),
    /// End a session: it stays readable and takes no more events
    Close(IdArgs),
    /// Delete a session for good
    Delete(IdArgs),
}

/// A session's id.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// Session id
    id: String,
}

/// Arguments of `tl session create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Session id; the server makes one when absent
    id: Option<String>,
    /// A title for people
    #[arg(long)]
    title: Option<String>,
    /// A JSON object of your own
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
}

/// Arguments of `tl session list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Most rows; all pages are fetched when absent
    #[arg(long)]
    limit: Option<u32>,
    /// Start behind this id
    #[arg(long, value_name = "ID")]
    cursor: Option<String>,
    /// Only sessions whose metadata has this text member; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Which sessions
    #[arg(long, value_enum, default_value_t = Archived::False)]
    archived: Archived,
}

/// Which sessions a list shows.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Archived {
    /// Those not archived
    False,
    /// Only archived ones
    True,
    /// Both
    All,
}

impl Archived {
    /// The word of the query.
    pub fn word(self) -> &'static str {
        match self {
            Archived::False => "false",
            Archived::True => "true",
            Archived::All => "all",
        }
    }
}

/// Arguments of `tl session update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Session id
    id: String,
    /// The new title
    #[arg(long, conflicts_with = "no_title")]
    title: Option<String>,
    /// Take the title away
    #[arg(long)]
    no_title: bool,
    /// Metadata members to set; others stay
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Only if the session's version is this one
    #[arg(long, value_name = "VERSION")]
    expected_version: Option<u64>,
}

/// Runs one word.
pub async fn run(args: SessionArgs, out: &Out) -> anyhow::Result<()> {
    let SessionArgs { url, namespace, command } = args;
    let options =
        ClientOptions { namespace, write_retry: write_retry(), ..ClientOptions::default() };
    let client = Client::with_options(&url, options)?;
    match command {
        SessionCommand::Create(args) => create(&client, args, out).await,
        SessionCommand::Append(args) => append::run(&client, args, out).await,
        SessionCommand::Get(IdArgs { id }) => show_row(&client.get(&id).await?, out),
        SessionCommand::List(args) => list(&client, args, out).await,
        SessionCommand::Tail(args) => tail::run(&client, args, out).await,
        SessionCommand::Import(args) => transfer::import::run(&client, args, out).await,
        SessionCommand::Export(args) => transfer::export::run(&client, args, out).await,
        SessionCommand::Update(args) => update(&client, args, out).await,
        SessionCommand::Archive(IdArgs { id }) => {
            show_row(&told(out, client.archive(&id)).await?, out)
        }
        SessionCommand::Unarchive(IdArgs { id }) => {
            show_row(&told(out, client.unarchive(&id)).await?, out)
        }
        SessionCommand::Close(IdArgs { id }) => show_row(&told(out, client.close(&id)).await?, out),
        SessionCommand::Delete(IdArgs { id }) => {
            told(out, client.delete(&id)).await?;
            out.either(&json!({ "id": id, "deleted": true }), &format!("{id} is deleted"))
        }
    }
}

async fn create(client: &Client, args: CreateArgs, out: &Out) -> anyhow::Result<()> {
    let metadata = args.metadata.map(|text| object_text("--metadata", text)).transpose()?;
    let session = CreateSession { id: args.id, title: args.title, metadata };
    show_row(&told(out, client.create(&session)).await?, out)
}

async fn update(client: &Client, args: UpdateArgs, out: &Out) -> anyhow::Result<()> {
    let metadata: Option<Map<String, Value>> = match args.metadata {
        Some(text) => {
            let object = object_text("--metadata", text)?;
            Some(serde_json::from_str(object.get()).context("--metadata")?)
        }
        None => None,
    };
    let title = if args.no_title { Some(None) } else { args.title.map(Some) };
    let patch = PatchSession { title, metadata, expected_version: args.expected_version };
    show_row(&told(out, client.patch(&args.id, &patch)).await?, out)
}

async fn list(client: &Client, args: ListArgs, out: &Out) -> anyhow::Result<()> {
    let mut query = ListQuery {
        limit: args.limit,
        cursor: args.cursor,
        metadata: args.metadata,
        archived: Some(args.archived.word().to_owned()),
        ..ListQuery::default()
    };
    let mut rows = Vec::new();
    loop {
        let SessionPage { sessions, next_cursor } = client.list(&query).await?;
        for session in &sessions {
            if out.is_json() {
                out.json(session)?;
            } else {
                rows.push(show::list_cells(session));
            }
        }
        // With a limit one page was asked for; without one, everything.
        match next_cursor {
            Some(next) if args.limit.is_none() => query.cursor = Some(next),
            _ => break,
        }
    }
    if out.is_json() {
        return Ok(());
    }
    if rows.is_empty() {
        out.note("no sessions; make one with `tl session create`");
        return Ok(());
    }
    out.line(&table(&show::LIST_HEADER, &rows))
}

fn show_row(session: &Session, out: &Out) -> anyhow::Result<()> {
    if out.is_json() { out.json(session) } else { out.line(&show::row(session)) }
}

/// A JSON object given as an argument.
fn object_text(name: &str, text: String) -> anyhow::Result<Box<RawValue>> {
    let parsed: Result<Map<String, Value>, _> = serde_json::from_str(&text);
    match parsed {
        Ok(_) => Ok(RawValue::from_string(text)?),
        Err(e) => Err(Failure::Usage(format!("{name} is not a JSON object: {e}")).into()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as name=value".to_owned()),
    }
}
