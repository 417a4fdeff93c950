//! What the endpoints for operators take and answer.

use serde_json::{Value, json};
use tl_engine::service::WAIT_MAX;
use tl_types::ErrorCode;

use super::operations::{BODY, Operation, node};
use super::parts::{answer, json_body, number as ranged, query};
use super::schemas::{number, object, reference};
use crate::ops::WAIT_DEFAULT;

fn ops(id: &'static str, summary: &'static str, description: &'static str) -> Operation {
    Operation { tag: "ops", ..node(id, summary, description) }
}

pub fn status() -> Operation {
    Operation {
        answers: vec![(200, answer("The node and its cluster as it sees it", "OpsStatus"))],
        ..ops(
            "opsStatus",
            "How the node and its cluster are",
            "Says of each group that takes no writes why, and what to do. Needs no majority.",
        )
    }
}

pub fn nodes() -> Operation {
    Operation {
        answers: vec![(200, answer("All members by name", "OpsNodes"))],
        ..ops("opsNodes", "All members", "Lags are of groups that the answering node leads.")
    }
}

pub fn ready_nodes() -> Operation {
    Operation {
        answers: vec![(200, answer("Names", "OpsReadyNodes"))],
        ..ops("opsReadyNodes", "Members that are ready", "As the answering node sees them.")
    }
}

pub fn groups() -> Operation {
    Operation {
        answers: vec![(200, answer("All groups with a replica here", "OpsGroups"))],
        ..ops("opsGroups", "All groups", "Positions of replicas are known to the leader only.")
    }
}

pub fn group() -> Operation {
    let id = json!({
        "name": "id", "in": "path", "required": true, "description": "Number of the group",
        "schema": {"type": "integer", "minimum": 0, "maximum": 4095},
    });
    Operation {
        parameters: vec![id],
        answers: vec![(200, answer("The group", "OpsGroup"))],
        errors: vec![ErrorCode::InvalidOpsRequest, ErrorCode::RaftUnavailable],
        ..ops("opsGroup", "One group", "Positions of replicas are known to the leader only.")
    }
}

fn drain_errors() -> Vec<ErrorCode> {
    let mut errors = BODY.to_vec();
    errors.extend([
        ErrorCode::InvalidOpsRequest,
        ErrorCode::ForbiddenOrigin,
        ErrorCode::UnknownNode,
        ErrorCode::RaftTimeout,
        ErrorCode::RaftUnavailable,
    ]);
    errors
}

pub fn drain() -> Operation {
    Operation {
        body: Some(json_body("OpsDrainRequest", false)),
        answers: vec![(200, answer("The member, which drains from now on", "OpsNode"))],
        errors: drain_errors(),
        ..ops(
            "drain",
            "Drain a member",
            "It gives away what it leads and is given nothing back, its tails end with close code \
             1012, and it is not ready. It goes on to replicate and to vote, and serves what it \
             is asked. It stays so over restarts. Without a node the answering one is meant.",
        )
    }
}

pub fn undrain() -> Operation {
    Operation {
        body: Some(json_body("OpsDrainRequest", false)),
        answers: vec![(200, answer("The member", "OpsNode"))],
        errors: drain_errors(),
        ..ops("undrain", "End a member's drain", "Repeating is harmless.")
    }
}

pub fn wait(id: &'static str, summary: &'static str) -> Operation {
    let longest = WAIT_MAX.as_millis() as u64;
    let usual = WAIT_DEFAULT.as_millis() as u64;
    Operation {
        parameters: vec![
            query("node", "Which member; without it the answering one", json!({"type": "string"})),
            query("timeout_ms", "How long", ranged(0, longest, Some(usual))),
        ],
        answers: vec![(200, answer("It is", "OpsWaited"))],
        errors: vec![
            ErrorCode::InvalidOpsRequest,
            ErrorCode::UnknownNode,
            ErrorCode::RaftUnavailable,
            ErrorCode::WaitTimedOut,
        ],
        ..ops(id, summary, "The error when the time is over says in which state it is, and why.")
    }
}

pub fn transfer() -> Operation {
    Operation {
        body: Some(json_body("OpsTransferRequest", true)),
        answers: vec![(200, answer("The group, led as was asked", "OpsGroup"))],
        errors: drain_errors(),
        ..ops(
            "transfer",
            "Have a member lead a group",
            "It leads it for ten minutes at least, unless it is drained or fails.",
        )
    }
}

pub fn replace() -> Operation {
    let mut errors = drain_errors();
    errors.extend([ErrorCode::MemberPresent, ErrorCode::ReplacementUnderWay]);
    Operation {
        body: Some(json_body("OpsReplaceRequest", true)),
        answers: vec![(200, answer("What the new life's directory is made from", "OpsNewLife"))],
        errors,
        ..ops(
            "replace",
            "Give a member whose disk is lost a new life",
            "The cluster agrees that the former life is over; it is refused from then on. The new \
             one starts with a directory made from the answer, as `tl ops replace` does, and gets a \
             vote in each group once it has all of it. Needs a majority. A member that is heard is \
             refused unless force is true, and so is one without which some group has no majority of \
             members that are heard and in good order: it would take no writes for good.",
        )
    }
}

pub fn repair() -> Operation {
    Operation {
        body: Some(json_body("OpsRepairRequest", true)),
        answers: vec![(200, answer("The group, whose rows that member takes anew", "OpsGroup"))],
        errors: drain_errors(),
        ..ops(
            "repair",
            "Have a member take the rows of a group anew",
            "Its leader gives them while traffic goes on. The member stops the group until it has \
             them, and is not ready meanwhile; if it leads the group, another member does first. \
             Refused unless the others are a majority without it. Without a node the answering \
             one is meant.",
        )
    }
}

pub fn raise_level() -> Operation {
    let mut errors = drain_errors();
    errors.retain(|code| *code != ErrorCode::UnknownNode);
    errors.push(ErrorCode::LevelNotRaised);
    Operation {
        body: Some(json_body("OpsRaiseLevelRequest", false)),
        answers: vec![(200, answer("The level that is committed", "OpsLevel"))],
        errors,
        ..ops(
            "raiseLevel",
            "Commit the highest feature level that every node speaks",
            "Entries follow its rules from then on, and releases that speak less take no part any \
             more: there is no way back. Needs a majority, and an answer of every member. Refused \
             when a member is silent or speaks no higher level, and when there is none.",
        )
    }
}

/// Bodies.
pub fn schemas() -> Value {
    json!({
        "OpsStatus": status_page(),
        "OpsNode": node_page(),
        "OpsNodes": list("nodes", reference("OpsNode")),
        "OpsReadyNodes": list("ready_nodes", text()),
        "OpsGroup": group_page(),
        "OpsGroups": list("groups", reference("OpsGroup")),
        "OpsWaited": object(
            json!({"node": text(), "state": state(), "local_ready": {"const": true},
                "local_drained": {"const": true}}),
            &["node", "state"],
        ),
        "OpsDrainRequest": object(json!({"node": text()}), &[]),
        "OpsReplaceRequest": object(
            json!({"node": text(), "force": {"type": "boolean", "default": false}}),
            &["node"],
        ),
        "OpsNewLife": new_life(),
        "OpsRepairRequest": object(json!({"group": number(0), "node": text()}), &["group"]),
        "OpsRaiseLevelRequest": object(json!({}), &[]),
        "OpsLevel": object(
            json!({"feature_level": number(1), "members_number": number(0)}),
            &["feature_level", "members_number"],
        ),
        "OpsTransferRequest": object(json!({"group": number(0), "to": text()}), &["group", "to"]),
    })
}

fn list(name: &str, items: Value) -> Value {
    object(json!({name: {"type": "array", "items": items}}), &[name])
}

fn text() -> Value {
    json!({"type": "string"})
}

fn maybe(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn state() -> Value {
    json!({"enum": ["ready", "starting", "suspect", "lost", "draining", "drained"]})
}

fn why_words() -> Value {
    json!({"enum": ["no_majority", "no_leader", "leader_silent", "damaged", "disk_full"]})
}

fn status_page() -> Value {
    let names = json!({"type": "array", "items": text()});
    object(
        json!({
            "node": text(), "state": state(), "local_write_node": {"type": "boolean"},
            "local_mode": {"enum": ["write_node", "router_node"]},
            "local_ready": {"type": "boolean"}, "local_drained": {"type": "boolean"},
            "reason": maybe("string"), "write_nodes": names, "write_replication_factor": number(1),
            "num_groups": number(1), "local_groups": number(0), "groups_led": number(0),
            "not_writable": {"type": "array", "items": object(
                json!({
                    "group": number(0), "reason": why_words(), "missing": names, "leader": text(),
                    "member": text(), "advice": text(),
                }),
                &["group", "reason", "advice"],
            )},
            "storage": object(
                json!({
                    "data_dir": text(), "disk_free_bytes": {"type": "integer"},
                    "disk_reserve_bytes": {"type": "integer"}, "disk_full": {"type": "boolean"},
                }),
                &["data_dir", "disk_free_bytes", "disk_reserve_bytes", "disk_full"],
            ),
            "observer": object(
                json!({"visible_nodes": names, "ready_nodes": names}),
                &["visible_nodes", "ready_nodes"],
            ),
            "nodes": {"type": "array", "items": reference("OpsNode")},
            "members_number": number(0), "feature_level": number(1),
            "replacing": {"oneOf": [
                object(
                    json!({"nodes": names, "groups_done": number(0), "groups": number(1)}),
                    &["nodes", "groups_done", "groups"],
                ),
                {"type": "null"},
            ]},
        }),
        &[
            "node",
            "state",
            "local_write_node",
            "local_mode",
            "local_ready",
            "local_drained",
            "reason",
            "write_nodes",
            "write_replication_factor",
            "num_groups",
            "local_groups",
            "groups_led",
            "not_writable",
            "storage",
            "observer",
            "nodes",
            "members_number",
            "feature_level",
            "replacing",
        ],
    )
}

fn new_life() -> Value {
    let life = json!({"name": text(), "peer": number(1)});
    let mut member = life.clone();
    member["node_id"] = text();
    let router = member.clone();
    let lives = |members: Value, required: &[&str]| json!({"type": "array", "items": object(members, required)});
    let list = object(
        json!({
            "format": {"enum": [1, 2]}, "level": number(2), "number": number(0), "next_peer": number(1),
            "members": lives(member, &["name", "node_id", "peer"]),
            "former": lives(life, &["name", "peer"]),
        }),
        &["format", "number", "next_peer", "members", "former"],
    );
    object(
        json!({
            "name": text(), "cluster_id": text(), "groups": number(1), "founded_at_ms": number(0),
            "list": list, "copies": number(1),
            "routers": lives(router, &["name", "node_id", "peer"]),
        }),
        &["name", "cluster_id", "groups", "founded_at_ms", "list"],
    )
}

fn node_page() -> Value {
    object(
        json!({
            "node": text(), "local": {"type": "boolean"}, "state": state(),
            "said": {"oneOf": [state(), {"type": "null"}]}, "reason": maybe("string"),
            "silent_ms": number(0), "groups_led": maybe("integer"), "tails_open": maybe("integer"),
            "disk_full": maybe("boolean"),
            "groups_stopped": {"type": "array", "items": number(0)},
            "feature_level_max": maybe("integer"),
            "replicas_behind": number(0), "lag_entries_max": number(0),
        }),
        &[
            "node",
            "local",
            "state",
            "said",
            "reason",
            "silent_ms",
            "groups_led",
            "tails_open",
            "disk_full",
            "groups_stopped",
            "feature_level_max",
            "replicas_behind",
            "lag_entries_max",
        ],
    )
}

fn group_page() -> Value {
    let replica = object(
        json!({
            "node": text(), "state": state(),
            "role": {"enum": ["voter", "learner", "joining", "leaving", "none"]},
            "matched_index": maybe("integer"),
            "lag_entries": maybe("integer"), "cut_off": maybe("boolean"),
        }),
        &["node", "state", "role", "matched_index", "lag_entries", "cut_off"],
    );
    object(
        json!({
            "group": number(0), "leader": maybe("string"),
            "role": {"enum": ["leader", "candidate", "follower", "none"]}, "term": number(0),
            "last_index": number(0), "committed_index": number(0), "applied_index": number(0),
            "writable": {"type": "boolean"}, "reason": why_words(),
            "missing": {"type": "array", "items": text()}, "member": text(), "advice": text(),
            "replicas": {"type": "array", "items": replica},
        }),
        &[
            "group",
            "leader",
            "role",
            "term",
            "last_index",
            "committed_index",
            "applied_index",
            "writable",
            "replicas",
        ],
    )
}
