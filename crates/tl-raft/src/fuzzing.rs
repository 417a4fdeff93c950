//! What must hold for any bytes given to this crate's decoders.

use bytes::{BufMut, Bytes};
use tl_types::GroupId;

use crate::frame::{FrameBuilder, Said, decode_said};
use crate::transport::{Answer, Damage, Decoder, FrameKind, Hello, Lane, head};

/// A frame from a peer: its messages come back from their own encoding, as many and no longer.
///
/// # Panics
/// When one of these does not hold.
pub fn peer_frame(bytes: &[u8]) {
    let Ok(messages) = messages(&Bytes::copy_from_slice(bytes)) else { return };
    assert!(messages.len() <= bytes.len(), "a message takes at least a byte");
    let of = |said: &Said| match said {
        Said::Raft(message) => message.entries.len(),
        Said::Doubt(_) => 0,
    };
    let entries: usize = messages.iter().map(|(_, said)| of(said)).sum();
    assert!(entries <= bytes.len(), "so does an entry");
    let frames = encoded(&messages);
    let len: usize = frames.iter().map(Bytes::len).sum();
    // Numbers may be spelled longer than needed, never shorter; a count per list comes on top.
    assert!(len <= bytes.len() + 32, "{} bytes became {len}", bytes.len());
    let mut again = Vec::new();
    for frame in &frames {
        again.extend(self::messages(frame).expect("what was encoded can be read"));
    }
    assert_eq!(sorted(&again), sorted(&messages));
    assert_eq!(encoded(&again), frames, "written once, it stays as it is");
}

fn messages(frame: &Bytes) -> Result<Vec<(GroupId, Said)>, &'static str> {
    let mut messages = Vec::new();
    decode_said(frame, |group, said| messages.push((group, said)))?;
    Ok(messages)
}

fn encoded(messages: &[(GroupId, Said)]) -> Vec<Bytes> {
    let mut builder = FrameBuilder::default();
    for (group, said) in messages {
        match said {
            Said::Raft(message) => {
                assert!(builder.push(*group, message), "what was decoded may be sent");
            }
            Said::Doubt(note) => builder.push_note(*group, note),
        }
    }
    builder.finish().collect()
}

/// Heartbeats are gathered in front of the rest and notes behind it, so order is kept within a kind
/// only.
fn sorted(messages: &[(GroupId, Said)]) -> Vec<&(GroupId, Said)> {
    let mut sorted: Vec<_> = messages.iter().collect();
    sorted.sort_by_key(|(_, said)| match said {
        Said::Raft(message) => (0, !message.context.is_empty(), message.get_msg_type() as i32),
        Said::Doubt(_) => (1, true, 0),
    });
    sorted
}

/// What comes on a connection after the handshake; the first byte says on which and how it is
/// cut. The cuts make no difference, and frames are what their own encoding was.
///
/// # Panics
/// When one of these does not hold.
pub fn peer_connection(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let lane = if how & 1 == 0 { Lane::Main } else { Lane::Bulk };
    let (frames, end) = frames(lane, bytes, usize::MAX);
    let pieces = self::frames(lane, bytes, usize::from(how) + 1);
    assert_eq!(pieces, (frames.clone(), end), "cuts make a difference");
    let mut again = Vec::new();
    for (kind, payload) in &frames {
        again.extend_from_slice(&head(*kind, payload));
        again.extend_from_slice(payload);
    }
    assert!(bytes.starts_with(&again), "a frame is not what came");
    if end == Ok(true) {
        assert_eq!(bytes.len(), again.len(), "something was passed over");
    }
}

type Frames = (Vec<(FrameKind, Bytes)>, Result<bool, Damage>);

/// The frames, and whether the bytes end with one or what is wrong behind them.
fn frames(lane: Lane, mut bytes: &[u8], step: usize) -> Frames {
    let mut decoder = Decoder::new(lane);
    let mut frames = Vec::new();
    loop {
        match decoder.frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) if bytes.is_empty() => return (frames, Ok(decoder.is_between_frames())),
            Ok(None) => {
                let mut room = decoder.room();
                let count = step.min(bytes.len()).min(room.remaining_mut());
                assert!(count > 0, "there is always room for more");
                room.put_slice(&bytes[..count]);
                bytes = &bytes[count..];
            }
            Err(damage) => return (frames, Err(damage)),
        }
    }
}

/// The first bytes of a connection, from either end: what decodes comes back from its own
/// encoding, which is no longer, and no part of it decodes.
///
/// # Panics
/// When one of these does not hold.
pub fn peer_hello(bytes: &[u8]) {
    if let Ok(Some((hello, length))) = Hello::decode(bytes) {
        let again = hello.encode();
        assert!(again.len() <= length && length <= bytes.len());
        assert_eq!(Hello::decode(&again), Ok(Some((hello, again.len()))));
        assert_eq!(Hello::decode(&bytes[..length - 1]), Ok(None));
    }
    if let Ok(Some((answer, length))) = Answer::decode(bytes) {
        let again = answer.encode();
        assert!(again.len() <= length && length <= bytes.len());
        assert_eq!(Answer::decode(&again), Ok(Some((answer, again.len()))));
        assert_eq!(Answer::decode(&bytes[..length - 1]), Ok(None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deeds::PeerId;
    use crate::transport::{Refusal, Seat};
    use tl_types::ids::{ClusterId, NodeId};
    use tl_types::{Index, Term};

    use crate::doubt::Note;

    #[test]
    fn peer_connections_over_the_corpus() {
        let connection = |how: u8, frames: &[(FrameKind, &[u8])]| {
            let mut bytes = vec![how];
            for (kind, payload) in frames {
                bytes.extend_from_slice(&head(*kind, payload));
                bytes.extend_from_slice(payload);
            }
            bytes
        };
        let main: [(FrameKind, &[u8]); 4] = [
            (FrameKind::Raft, b"first"),
            (FrameKind::Request, b""),
            (FrameKind::Reply, &[7; 300]),
            (FrameKind::Raft, b"last"),
        ];
        let seeds = [
            ("main", connection(0, &main)),
            ("in_pieces", connection(6, &main)),
            ("bulk", connection(9, &[(FrameKind::Bulk, &[1; 500]), (FrameKind::Bulk, b"x")])),
        ];
        tl_fuzz::check("peer_connection", &seeds, peer_connection);
    }

    #[test]
    fn peer_hellos_over_the_corpus() {
        let seat = |number: u8| Seat { node: NodeId([number; 16]), peer: PeerId(number.into()) };
        let cluster = ClusterId([0xc1; 16]);
        let hello = |lane| Hello {
            versions: (1, 1),
            lane,
            cluster,
            from: seat(2),
            to: seat(1),
            run: 0x0102_0304_0506_0708,
            ordinal: 9,
            birth: Some([7; 16]),
        };
        let accepted = Answer::Accepted { version: 1, cluster, seat: seat(1) };
        let seeds = [
            ("main", hello(Lane::Main).encode()),
            ("bulk", hello(Lane::Bulk).encode()),
            ("accepted", accepted.encode()),
            ("refused", Answer::Refused(Refusal::UnknownLife).encode()),
        ];
        tl_fuzz::check("peer_hello", &seeds, peer_hello);
    }
    use raft::eraftpb::{Entry, Message, MessageType};

    fn message(kind: MessageType, fill: impl FnOnce(&mut Message)) -> (GroupId, Said) {
        let mut message = Message::default();
        message.set_msg_type(kind);
        message.term = 7;
        message.commit = 300;
        fill(&mut message);
        (GroupId(200), Said::Raft(message))
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
        let mut members = crate::Members::founding(&[1, 2, 3].map(crate::PeerId));
        members.at = tl_types::Index(11);
        let snapshot = message(MessageType::MsgSnapshot, |message| {
            let snapshot = message.mut_snapshot();
            (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (10, 6);
            snapshot.data = members.encode();
        });
        let change = message(MessageType::MsgAppend, |message| {
            (message.index, message.log_term) = (10, 6);
            let mut entry = Entry::default();
            (entry.index, entry.term, entry.data) = (11, 7, members.encode_entry());
            message.set_entries(vec![entry].into());
        });
        let note = |note| (GroupId(200), Said::Doubt(note));
        let (term, last, members_at) = (Term(7), Index(300), Index(11));
        let told = Note::Told { number: 1 << 40, term, last, members_at };
        let beats = vec![message(MessageType::MsgHeartbeat, |_| ()); 9];
        // Parts of both kinds in one frame, as a peer may send them.
        let frame = |messages: &[_]| {
            let frames = encoded(messages);
            let parts = frames.iter().flat_map(|frame| &frame[1..]).copied();
            [frames[0][0]].into_iter().chain(parts).collect::<Vec<u8>>()
        };
        let seeds = [
            ("append", frame(&[append])),
            ("read", frame(&[read])),
            ("kinds", frame(&all)),
            ("beats", frame(&beats)),
            ("members", frame(&[snapshot, change])),
            ("doubt", frame(&[Note::Asked { number: 1 << 40 }, told].map(note))),
        ];
        tl_fuzz::check("peer_frame", &seeds, peer_frame);
    }
}
