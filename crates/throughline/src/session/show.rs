//! Sessions and events as people read them.

use serde_json::Value;
use tl_client::{Event, Session};

use crate::output::{count, shorten};

/// Columns of a list.
pub const LIST_HEADER: [&str; 5] = ["ID", "EVENTS", "STATE", "CREATED", "TITLE"];

/// Longest payload text on an event's line, characters.
const TEXT_MAX: usize = 160;
/// Longest title in a list, characters.
const TITLE_MAX: usize = 60;

/// One row of a list.
pub fn list_cells(session: &Session) -> Vec<String> {
    vec![
        session.id.clone(),
        count(session.last_seq),
        state(session),
        session.created_at.clone(),
        shorten(session.title.as_deref().unwrap_or_default(), TITLE_MAX),
    ]
}

/// One session, a member per line.
pub fn row(session: &Session) -> String {
    let mut lines = vec![format!("id        {}", session.id)];
    if let Some(title) = &session.title {
        lines.push(format!("title     {}", shorten(title, 200)));
    }
    lines.push(format!("state     {}", state(session)));
    lines.push(format!("events    {}", count(session.last_seq)));
    lines.push(format!("version   {}", session.version));
    lines.push(format!("created   {}", session.created_at));
    lines.push(format!("updated   {}", session.updated_at));
    lines.push(format!("metadata  {}", shorten(session.metadata.get(), 500)));
    lines.join("\n")
}

fn state(session: &Session) -> String {
    let state = if session.state.is_empty() { "active" } else { &session.state };
    if session.archived { format!("{state}, archived") } else { state.to_owned() }
}

/// One event on one line: seq, time, actor, type, and its text or payload.
pub fn event(event: &Event) -> String {
    let Ok(fields) = event.fields() else {
        return format!(
            "{:>6}  {}",
            event.seq,
            shorten(&String::from_utf8_lossy(event.raw()), TEXT_MAX)
        );
    };
    let at = fields.event_time.as_deref().or(fields.inserted_at.as_deref()).unwrap_or("");
    let text = payload_text(fields.payload.get());
    let kind = if fields.event_type == "message" {
        String::new()
    } else {
        format!("[{}] ", shorten(&fields.event_type, 40))
    };
    let actor = shorten(&fields.actor, 40);
    format!("{:>6}  {at:<24}  {actor}: {kind}{}", event.seq, shorten(&text, TEXT_MAX))
}

/// The payload's `text` when it has one, else its JSON.
fn payload_text(payload: &str) -> String {
    match serde_json::from_str::<Value>(payload) {
        Ok(Value::Object(members)) => match members.get("text") {
            Some(Value::String(text)) => text.clone(),
            _ => payload.to_owned(),
        },
        _ => payload.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> String {
        event(&Event::parse(json.to_owned().into()).expect("event"))
    }

    #[test]
    fn messages_show_their_text_and_others_their_type() {
        let message = line(
            r#"{"seq":1,"type":"message","payload":{"text":"hi\u001b[2J"},"actor":"user:ann","producer_id":"p","producer_seq":1,"inserted_at":"2026-01-01T00:00:00.000Z"}"#,
        );
        assert_eq!(message, "     1  2026-01-01T00:00:00.000Z  user:ann: hi [2J");
        let call = line(
            r#"{"seq":2,"type":"tool_call","payload":{"name":"f"},"actor":"agent:a","producer_id":"p","producer_seq":2}"#,
        );
        assert!(call.ends_with(r#"agent:a: [tool_call] {"name":"f"}"#), "{call}");
    }
}
