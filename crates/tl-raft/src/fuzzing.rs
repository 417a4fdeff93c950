//! What must hold for any bytes given to this crate's decoders.

use bytes::Bytes;
use raft::eraftpb::Message;
use tl_types::GroupId;

use crate::frame::{FrameBuilder, decode};

/// A frame from a peer: its messages come back from their own encoding, as many and no longer.
///
/// # Panics
/// When one of these does not hold.
pub fn peer_frame(bytes: &[u8]) {
    let Ok(messages) = messages(&Bytes::copy_from_slice(bytes)) else { return };
    assert!(messages.len() <= bytes.len(), "a message takes at least a byte");
    let entries: usize = messages.iter().map(|(_, message)| message.entries.len()).sum();
    assert!(entries <= bytes.len(), "so does an entry");
    let Some(frame) = encoded(&messages) else { return assert!(messages.is_empty()) };
    // Numbers may be spelled longer than needed, never shorter; a count per list comes on top.
    assert!(frame.len() <= bytes.len() + 32, "{} bytes became {}", bytes.len(), frame.len());
    let again = self::messages(&frame).expect("what was encoded can be read");
    assert_eq!(sorted(&again), sorted(&messages));
    assert_eq!(encoded(&again), Some(frame), "written once, it stays as it is");
}

fn messages(frame: &Bytes) -> Result<Vec<(GroupId, Message)>, &'static str> {
    let mut messages = Vec::new();
    decode(frame, |group, message| messages.push((group, message)))?;
    Ok(messages)
}

fn encoded(messages: &[(GroupId, Message)]) -> Option<Bytes> {
    let mut builder = FrameBuilder::default();
    for (group, message) in messages {
        assert!(builder.push(*group, message), "what was decoded may be sent");
    }
    builder.finish()
}

/// Heartbeats are gathered in front of the rest, so order is kept within a kind only.
fn sorted(messages: &[(GroupId, Message)]) -> Vec<&(GroupId, Message)> {
    let mut sorted: Vec<_> = messages.iter().collect();
    sorted.sort_by_key(|(_, message)| message.get_msg_type() as i32);
    sorted.sort_by_key(|(_, message)| !message.context.is_empty());
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::{Entry, MessageType};

    fn message(kind: MessageType, fill: impl FnOnce(&mut Message)) -> (GroupId, Message) {
        let mut message = Message::default();
        message.set_msg_type(kind);
        message.term = 7;
        message.commit = 300;
        fill(&mut message);
        (GroupId(200), message)
    }

    #[test]
    fn peer_frames_over_the_corpus() {
        let entries = |data: &[&'static [u8]]| {
            let entries = data.iter().zip(11..).map(|(data, index)| {
                let mut entry = Entry::default();
                (entry.index, entry.term, entry.data) = (index, 7, Bytes::from_static(data));
                entry
            });
            entries.collect::<Vec<_>>()
        };
        let append = message(MessageType::MsgAppend, |message| {
            (message.index, message.log_term) = (10, 6);
            message.set_entries(entries(&[b"one", b"", &[b'x'; 200]]).into());
        });
        let read = message(MessageType::MsgReadIndex, |message| {
            (message.term, message.commit) = (0, 0);
            message.set_entries(entries(&[&[9; 24]]).into());
        });
        let others = [
            MessageType::MsgAppendResponse,
            MessageType::MsgRequestVote,
            MessageType::MsgRequestPreVote,
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgRequestPreVoteResponse,
            MessageType::MsgHeartbeat,
            MessageType::MsgHeartbeatResponse,
            MessageType::MsgTimeoutNow,
        ];
        let all: Vec<_> = others.into_iter().map(|kind| message(kind, |_| ())).collect();
        let beats = vec![message(MessageType::MsgHeartbeat, |_| ()); 9];
        let frame = |messages: &[_]| encoded(messages).expect("a frame").to_vec();
        let seeds = [
            ("append", frame(&[append])),
            ("read", frame(&[read])),
            ("kinds", frame(&all)),
            ("beats", frame(&beats)),
        ];
        tl_fuzz::check("peer_frame", &seeds, peer_frame);
    }
}
