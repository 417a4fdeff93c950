//! What `tl ops` asks of a running node: tables for people, the node's own JSON for programs.

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use tl_client::{Client, ClientOptions};

use crate::cli::URL_DEFAULT;
use crate::failure::Failure;
use crate::output::{Out, count, table};

/// How much longer than a wait its reply may take.
const REPLY_MARGIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Which node is asked.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Address of the node; as long as there is no access control, one on this computer
    #[arg(long, env = "TL_URL", default_value = URL_DEFAULT, value_name = "URL")]
    url: String,
}

/// Arguments of `tl ops groups`.
#[derive(Debug, Args)]
pub struct GroupsArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Only groups that take no writes
    #[arg(long)]
    not_writable: bool,
}

/// Arguments of `tl ops group`.
#[derive(Debug, Args)]
pub struct GroupArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Number of the group
    group: u16,
}

/// Arguments of `tl ops drain` and `undrain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Name of the member; the node that is asked when absent
    #[arg(value_name = "NODE")]
    name: Option<String>,
}

/// Arguments of `tl ops wait-ready` and `wait-drained`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Name of the member; the node that is asked when absent
    #[arg(value_name = "NODE")]
    name: Option<String>,
    /// Longest wait, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000,
        value_parser = clap::value_parser!(u64).range(0..=600_000))]
    timeout_ms: u64,
}

/// Arguments of `tl ops transfer`.
#[derive(Debug, Args)]
pub struct TransferArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Number of the group
    group: u16,
    /// Member that shall lead it
    #[arg(value_name = "NODE")]
    to: String,
}

/// Arguments of `tl ops repair`.
#[derive(Debug, Args)]
pub struct RepairArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Number of the group
    group: u16,
    /// Name of the member; the node that is asked when absent
    #[arg(value_name = "NODE")]
    name: Option<String>,
}

impl NodeArgs {
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.url)?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        parsed(&self.client()?.get_raw(path).await?)
    }
}

pub(super) fn parsed(body: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(body).context("the reply is not JSON")
}

/// `tl ops status`
pub async fn status(args: &NodeArgs, out: &Out) -> anyhow::Result<()> {
    let page = args.get("/v1/ops/status").await?;
    out.either(&page, &status_text(&page))
}

fn status_text(page: &Value) -> String {
    let storage = &page["storage"];
    let mut text = format!(
        "node      {} ({})\n\
         level     {}\n\
         groups    {} here, of {}; leads {}\n\
         data      {}\n\
         disk      {} bytes free, {} in reserve{}\n",
        word(&page["node"]),
        state_and_reason(page),
        level_text(page),
        number(&page["local_groups"]),
        number(&page["num_groups"]),
        number(&page["groups_led"]),
        word(&storage["data_dir"]),
        number(&storage["disk_free_bytes"]),
        number(&storage["disk_reserve_bytes"]),
        if storage["disk_full"] == true { ": FULL, writes are refused" } else { "" },
    );
    text.push('\n');
    text.push_str(&nodes_table(&page["nodes"]));
    let replacing = &page["replacing"];
    if replacing.is_object() {
        let names: Vec<String> =
            replacing["nodes"].as_array().into_iter().flatten().map(word).collect();
        text.push_str(&format!(
            "\n\nreplacing {}: {} of {} groups done",
            names.join(", "),
            number(&replacing["groups_done"]),
            number(&replacing["groups"]),
        ));
    }
    let blocked = page["not_writable"].as_array().map(Vec::as_slice).unwrap_or_default();
    if blocked.is_empty() {
        text.push_str("\n\nAll groups take writes as far as this node knows.");
        return text;
    }
    text.push_str(&format!("\n\n{} groups take no writes:\n", blocked.len()));
    text.push_str(&blocked_lines(blocked).join("\n"));
    text
}

/// What is committed, and whether more could be.
fn level_text(page: &Value) -> String {
    let committed = &page["feature_level"];
    let spoken: Option<Vec<u64>> = page["nodes"]
        .as_array()
        .and_then(|nodes| nodes.iter().map(|node| node["feature_level_max"].as_u64()).collect());
    let lowest = spoken.unwrap_or_default().into_iter().min();
    match (committed.as_u64(), lowest) {
        (Some(level), Some(lowest)) if lowest > level => {
            format!("{level}; every node speaks {lowest}: see `tl ops raise-level`")
        }
        (Some(_), _) | (None, _) => number(committed),
    }
}

/// Groups with the same reason on one line: when a majority is gone it is the same for all.
fn blocked_lines(blocked: &[Value]) -> Vec<String> {
    let mut lines: Vec<(String, Vec<u64>)> = Vec::new();
    for group in blocked {
        let why = format!("{}: {}", word(&group["reason"]), word(&group["advice"]));
        let number = group["group"].as_u64().unwrap_or_default();
        match lines.iter_mut().find(|(same, _)| *same == why) {
            Some((_, groups)) => groups.push(number),
            None => lines.push((why, vec![number])),
        }
    }
    lines.into_iter().map(|(why, groups)| format!("  {}  {why}", ranges(&groups))).collect()
}

/// Numbers in order, neighbours drawn together: `0-3, 7`.
fn ranges(numbers: &[u64]) -> String {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let part = |&(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// `tl ops nodes`
pub async fn nodes(args: &NodeArgs, out: &Out) -> anyhow::Result<()> {
    let page = args.get("/v1/ops/nodes").await?;
    out.either(&page, &nodes_table(&page["nodes"]))
}

fn nodes_table(nodes: &Value) -> String {
    let rows: Vec<Vec<String>> = nodes
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| {
            let name = word(&node["node"]);
            vec![
                if node["local"] == true { format!("{name} *") } else { name },
                word(&node["state"]),
                number(&node["groups_led"]),
                number(&node["tails_open"]),
                number(&node["replicas_behind"]),
                number(&node["lag_entries_max"]),
                number(&node["silent_ms"]),
                number(&node["feature_level_max"]),
                node["reason"].as_str().unwrap_or("").to_owned(),
            ]
        })
        .collect();
    let header = ["NODE", "STATE", "LEADS", "TAILS", "BEHIND", "LAG", "SILENT MS", "SPEAKS", "WHY"];
    table(&header, &rows)
}

/// `tl ops ready-nodes`
pub async fn ready_nodes(args: &NodeArgs, out: &Out) -> anyhow::Result<()> {
    let page = args.get("/v1/ops/ready-nodes").await?;
    let names: Vec<String> =
        page["ready_nodes"].as_array().into_iter().flatten().map(word).collect();
    out.either(&page, &format!("ready_nodes={}", names.join(",")))
}

/// `tl ops groups`
pub async fn groups(args: &GroupsArgs, out: &Out) -> anyhow::Result<()> {
    let mut page = args.node.get("/v1/ops/groups").await?;
    if args.not_writable
        && let Some(groups) = page["groups"].as_array_mut()
    {
        groups.retain(|group| group["writable"] == false);
    }
    let groups = page["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = groups.iter().map(group_cells).collect();
    let header = ["GROUP", "LEADER", "TERM", "COMMITTED", "APPLIED", "LAG", "WRITES"];
    out.either(&page, &table(&header, &rows))
}

fn group_cells(group: &Value) -> Vec<String> {
    let replicas = group["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lag = replicas.iter().filter_map(|replica| replica["lag_entries"].as_u64()).max();
    vec![
        number(&group["group"]),
        group["leader"].as_str().unwrap_or("-").to_owned(),
        number(&group["term"]),
        number(&group["committed_index"]),
        number(&group["applied_index"]),
        lag.map_or_else(|| "-".to_owned(), count),
        match group["reason"].as_str() {
            None => "yes".to_owned(),
            Some(why) => why.to_owned(),
        },
    ]
}

/// `tl ops group N`
pub async fn group(args: &GroupArgs, out: &Out) -> anyhow::Result<()> {
    let page = args.node.get(&format!("/v1/ops/groups/{}", args.group)).await?;
    out.either(&page, &group_text(&page))
}

fn group_text(page: &Value) -> String {
    let mut text = format!(
        "group      {}\nleader     {}\nterm       {}\ncommitted  {}\napplied    {}\nwrites     ",
        number(&page["group"]),
        page["leader"].as_str().unwrap_or("nobody"),
        number(&page["term"]),
        number(&page["committed_index"]),
        number(&page["applied_index"]),
    );
    match page["reason"].as_str() {
        None => text.push_str("yes"),
        Some(why) => text.push_str(&format!("no: {why}; {}", word(&page["advice"]))),
    }
    let rows: Vec<Vec<String>> = page["replicas"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|replica| {
            vec![
                word(&replica["node"]),
                word(&replica["role"]),
                word(&replica["state"]),
                number(&replica["matched_index"]),
                number(&replica["lag_entries"]),
            ]
        })
        .collect();
    text.push_str("\n\n");
    text.push_str(&table(&["NODE", "ROLE", "STATE", "HAS", "LAG"], &rows));
    text
}

/// `tl ops drain` and `undrain`
pub async fn drain(args: &DrainArgs, on: bool, out: &Out) -> anyhow::Result<()> {
    let body = match &args.name {
        Some(name) => json!({ "node": name }),
        None => json!({}),
    };
    let path = if on { "/v1/ops/drain" } else { "/v1/ops/undrain" };
    let page = parsed(&args.node.client()?.post_raw(path, &body).await?)?;
    let name = word(&page["node"]);
    let text = match on {
        true => {
            format!("node {name} marked draining\n`tl ops wait-drained` waits until it is done")
        }
        false => format!("node {name} marked ready"),
    };
    out.either(&page, &text)
}

/// `tl ops wait-ready` and `wait-drained`
pub async fn wait(args: &WaitArgs, word_: &str, out: &Out) -> anyhow::Result<()> {
    let wait = std::time::Duration::from_millis(args.timeout_ms);
    let options =
        ClientOptions { request_timeout: wait + REPLY_MARGIN, ..ClientOptions::default() };
    let client = Client::with_options(&args.node.url, options)?;
    let mut path = format!("/v1/ops/wait-{word_}?timeout_ms={}", args.timeout_ms);
    if let Some(name) = &args.name {
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(Failure::Usage(format!("{name:?} is no name of a node")).into());
        }
        path.push_str(&format!("&node={name}"));
    }
    let page = parsed(&client.get_raw(&path).await?)?;
    let text = match args.name {
        Some(_) => format!("node {} is {}", word(&page["node"]), word(&page["state"])),
        None => format!("local_{word_}=true"),
    };
    out.either(&page, &text)
}

/// `tl ops transfer`
pub async fn transfer(args: &TransferArgs, out: &Out) -> anyhow::Result<()> {
    let body = json!({ "group": args.group, "to": args.to });
    let page = parsed(&args.node.client()?.post_raw("/v1/ops/transfer", &body).await?)?;
    out.either(&page, &format!("{} leads group {}", word(&page["leader"]), args.group))
}

/// `tl ops repair`
pub async fn repair(args: &RepairArgs, out: &Out) -> anyhow::Result<()> {
    let mut body = json!({ "group": args.group });
    if let Some(name) = &args.name {
        body["node"] = name.as_str().into();
    }
    let page = parsed(&args.node.client()?.post_raw("/v1/ops/repair", &body).await?)?;
    let (whom, to_wait) = match &args.name {
        Some(name) => (name.as_str(), format!("tl ops wait-ready {name}")),
        None => ("this node", "tl ops wait-ready".to_owned()),
    };
    let leader = page["leader"].as_str().unwrap_or("its leader");
    let text = format!(
        "{whom} takes the rows of group {} anew from {leader}\n`{to_wait}` waits until it is done",
        args.group
    );
    out.either(&page, &text)
}

/// `tl ops raise-level`
pub async fn raise_level(args: &NodeArgs, out: &Out) -> anyhow::Result<()> {
    let page = parsed(&args.client()?.post_raw("/v1/ops/raise-level", &json!({})).await?)?;
    let level = number(&page["feature_level"]);
    let text = format!(
        "The cluster is at feature level {level}. Releases that speak less take no part from now on"
    );
    out.either(&page, &text)
}

fn state_and_reason(page: &Value) -> String {
    match page["reason"].as_str() {
        Some(reason) => format!("{}: {reason}", word(&page["state"])),
        None => word(&page["state"]),
    }
}

/// A text of the node without control characters.
fn word(value: &Value) -> String {
    let text = value.as_str().unwrap_or("-");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_with_one_reason_stand_on_one_line() {
        let group = |number: u64, reason: &str, advice: &str| json!({ "group": number, "reason": reason, "advice": advice });
        let blocked = [
            group(0, "no_majority", "start node-2"),
            group(1, "no_majority", "start node-2"),
            group(2, "damaged", "drain node-1"),
            group(5, "no_majority", "start node-2"),
        ];
        let lines = [
            "  0-1, 5  no_majority: start node-2".to_owned(),
            "  2  damaged: drain node-1".to_owned(),
        ];
        assert_eq!(blocked_lines(&blocked), lines);
    }

    #[test]
    fn a_level_that_every_node_speaks_is_pointed_at() {
        let said = |levels: &[Option<u64>]| {
            let nodes: Vec<Value> =
                levels.iter().map(|level| json!({ "feature_level_max": level })).collect();
            level_text(&json!({ "feature_level": 1, "nodes": nodes }))
        };
        assert_eq!(said(&[Some(1), Some(1)]), "1");
        assert_eq!(said(&[Some(1), Some(2)]), "1");
        assert_eq!(said(&[None, Some(2)]), "1");
        assert_eq!(said(&[Some(3), Some(2)]), "1; every node speaks 2: see `tl ops raise-level`");
        assert_eq!(level_text(&json!({})), "-", "a node of a release before levels");
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let nodes = json!([{"node": "node-1", "local": true, "state": "ready", "groups_led": 86,
            "tails_open": null, "replicas_behind": 0, "lag_entries_max": 1_234, "silent_ms": 0,
            "reason": null}]);
        let text = nodes_table(&nodes);
        assert!(text.lines().nth(1).is_some_and(|row| row.starts_with("node-1 *  ready  86")));
        assert!(text.contains("1,234") && text.contains('-'));
    }
}
