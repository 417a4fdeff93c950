#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// A masked frame as a client sends it.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(MASKED | length as u8),
        length => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}

/// Everything asked by `bytes` when they arrive in pieces of `piece`, and how it ended.
fn read(bytes: &[u8], piece: usize) -> (Vec<Asked>, Option<Violation>) {
    let (mut incoming, mut buffer, mut asked) = (Incoming::default(), BytesMut::new(), Vec::new());
    for part in bytes.chunks(piece.max(1)) {
        buffer.extend_from_slice(part);
        loop {
            match incoming.next(&mut buffer) {
                Ok(Some(one)) => asked.push(one),
                Ok(None) => break,
                Err(violation) => return (asked, Some(violation)),
            }
        }
        assert!(buffer.len() <= HEADER_BYTES_MAX + 4 + CONTROL_BYTES_MAX, "nothing is hoarded");
    }
    (asked, None)
}

#[test]
fn data_is_skipped_and_control_frames_are_answered() {
    let mut bytes = client(FIN | TEXT, b"hello");
    bytes.extend(client(TEXT, &[b'x'; 300]));
    bytes.extend(client(FIN | PING, b"p"));
    bytes.extend(client(FIN | CONTINUATION, &[b'y'; 300]));
    bytes.extend(client(FIN | PONG, b""));
    bytes.extend(client(FIN | CLOSE, &[0x03, 0xe8, b'b']));
    for piece in [1, 2, 7, 10_000] {
        let expected = vec![Asked::Pong(Bytes::from_static(b"p")), Asked::Close(Some(1000))];
        assert_eq!(read(&bytes, piece), (expected, None), "pieces of {piece}");
    }
}

#[test]
fn a_message_may_have_the_limit_and_not_one_byte_more() {
    let half = vec![0; WS_MESSAGE_BYTES_MAX / 2];
    let mut bytes = client(TEXT, &half);
    bytes.extend(client(FIN | CONTINUATION, &half));
    assert_eq!(read(&bytes, 4096), (vec![], None));
    let mut bytes = client(TEXT, &half);
    bytes.extend(client(CONTINUATION, &half));
    bytes.extend(client(FIN | CONTINUATION, b"1"));
    assert_eq!(read(&bytes, 4096), (vec![], Some(Violation::TooBig)));
}

#[test]
fn a_huge_length_is_refused_before_its_payload() {
    for length in [u64::MAX, 1 << 63, 1 << 40, WS_MESSAGE_BYTES_MAX as u64 + 1] {
        let mut bytes = vec![FIN | BINARY, MASKED | 127];
        bytes.extend_from_slice(&length.to_be_bytes());
        assert_eq!(read(&bytes, 3), (vec![], Some(Violation::TooBig)), "{length}");
    }
}

#[test]
fn what_is_not_websocket_is_named() {
    let cases: [(&[u8], &str); 8] = [
        (&[FIN | TEXT, 1, b'x'], "a client's frames must be masked"),
        (&[FIN | 0x40 | TEXT, MASKED], "reserved bits are set"),
        (&[FIN | 0x3, MASKED], "unknown opcode"),
        (&[FIN | 0xB, MASKED], "unknown opcode"),
        (&[PING, MASKED], "a control frame is cut or too long"),
        (&[FIN | CLOSE, MASKED | 126], "a control frame is cut or too long"),
        (&client(FIN | CONTINUATION, b"x"), "continuation of no message"),
        (&client(FIN | CLOSE, b"x"), "half a close code"),
    ];
    for (bytes, why) in cases {
        assert_eq!(read(bytes, 99), (vec![], Some(Violation::Protocol(why))));
    }
    let mut nested = client(TEXT, b"x");
    nested.extend(client(FIN | TEXT, b"x"));
    assert_eq!(read(&nested, 99).1, Some(Violation::Protocol("message inside a message")));
}

#[test]
fn lengths_are_written_in_the_shortest_form() {
    for (payload, expected) in [
        (125, &[0x81, 125][..]),
        (126, &[0x81, 126, 0, 126]),
        (65_535, &[0x81, 126, 255, 255]),
        (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = BytesMut::new();
        header(&mut out, TEXT, payload);
        assert_eq!(&out[..], expected);
    }
}

#[test]
fn events_are_framed_without_copying_them() {
    let line = |seq, json: &'static str| EventLine {
        seq: tl_types::Seq(seq),
        json: Bytes::from_static(json.as_bytes()),
    };
    let lines = [line(1, "{\"seq\":1}"), line(2, "{\"seq\":2}")];
    let joined = |out: VecDeque<Bytes>| out.iter().flatten().copied().collect::<Vec<u8>>();

    let mut out = VecDeque::new();
    singles(&mut out, &lines);
    assert_eq!(out[1].as_ptr(), lines[0].json.as_ptr());
    assert_eq!(joined(out), b"\x81\x09{\"seq\":1}\x81\x09{\"seq\":2}");

    let mut out = VecDeque::new();
    array(&mut out, &lines);
    assert_eq!(joined(out), b"\x81\x15[{\"seq\":1},{\"seq\":2}]");
    let mut out = VecDeque::new();
    array(&mut out, &lines[..1]);
    assert_eq!(joined(out), b"\x81\x0b[{\"seq\":1}]");
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let frame = close(1011, &"ü".repeat(100));
    assert_eq!(frame[..4], [0x88, 2 + 122, 0x03, 0xf3]);
    assert_eq!(std::str::from_utf8(&frame[4..]).unwrap(), "ü".repeat(61));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_pieces_make_no_difference(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        piece in 1usize..50,
    ) {
        let whole = read(&bytes, bytes.len());
        prop_assert_eq!(read(&bytes, piece), whole);
    }
}
