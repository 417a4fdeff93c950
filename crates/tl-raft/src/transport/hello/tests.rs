#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn seat(number: u8) -> Seat {
    Seat { node: NodeId([number; 16]), peer: PeerId(u64::from(number)) }
}

const CLUSTER: ClusterId = ClusterId([0xc1; 16]);

fn a_hello() -> Hello {
    Hello {
        versions: (1, 1),
        lane: Lane::Main,
        cluster: CLUSTER,
        from: seat(2),
        to: seat(1),
        run: 0x0102_0304_0506_0708,
        ordinal: 9,
        birth: Some([5; 16]),
    }
}

fn any_seat() -> impl Strategy<Value = Seat> {
    (any::<[u8; 16]>(), 1..u64::MAX)
        .prop_map(|(node, peer)| Seat { node: NodeId(node), peer: PeerId(peer) })
}

fn any_hello() -> impl Strategy<Value = Hello> {
    let lane = prop_oneof![Just(Lane::Main), Just(Lane::Bulk)];
    let parts = (
        any::<(u8, u8)>(),
        lane,
        any::<[u8; 16]>(),
        any_seat(),
        any_seat(),
        any::<(u64, u64, [u8; 16])>(),
    );
    parts.prop_map(|(versions, lane, cluster, from, to, (run, ordinal, birth))| Hello {
        versions,
        lane,
        cluster: ClusterId(cluster),
        from,
        to,
        run,
        ordinal,
        birth: Some(birth),
    })
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        (any::<u8>(), any::<[u8; 16]>(), any_seat()).prop_map(|(version, cluster, seat)| {
            Answer::Accepted { version, cluster: ClusterId(cluster), seat }
        }),
        (1..=u8::MAX).prop_map(|number| Answer::Refused(Refusal::from_number(number))),
    ]
}

proptest! {
    #[test]
    fn a_hello_comes_back_and_no_part_of_it_is_one(hello in any_hello(), more: Vec<u8>) {
        let mut bytes = hello.encode();
        let length = bytes.len();
        for cut in 0..length {
            prop_assert_eq!(Hello::decode(&bytes[..cut]), Ok(None));
        }
        bytes.extend_from_slice(&more);
        prop_assert_eq!(Hello::decode(&bytes), Ok(Some((hello, length))));
        prop_assert_eq!(Answer::decode(&bytes), Err("not this protocol"));
    }

    #[test]
    fn an_answer_comes_back_and_no_part_of_it_is_one(answer in any_answer(), more: Vec<u8>) {
        let mut bytes = answer.encode();
        let length = bytes.len();
        for cut in 0..length {
            prop_assert_eq!(Answer::decode(&bytes[..cut]), Ok(None));
        }
        bytes.extend_from_slice(&more);
        prop_assert_eq!(Answer::decode(&bytes), Ok(Some((answer, length))));
    }

    #[test]
    fn a_changed_bit_is_found(hello in any_hello(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = hello.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // A length that grew asks for more; that it never comes is the deadline's matter.
        prop_assert!(matches!(Hello::decode(&bytes), Err(_) | Ok(None)));
    }

    #[test]
    fn any_bytes_are_a_hello_or_not(bytes: Vec<u8>) {
        let _ = (Hello::decode(&bytes), Answer::decode(&bytes));
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over(hello in any_hello(), later: Vec<u8>) {
        let mut body = hello.encode()[SEAL_BYTES..].to_vec();
        body.extend_from_slice(&later);
        prop_assume!(body.len() <= SEALED_BYTES_MAX);
        let bytes = seal(HELLO_MAGIC, &body);
        prop_assert_eq!(Hello::decode(&bytes), Ok(Some((hello, bytes.len()))));
    }

    #[test]
    fn of_two_connections_one_is_the_newer(a: (u64, u64), b: (u64, u64)) {
        // Two runs have no order among themselves: whoever comes later wins.
        let both = supersedes(a, b) && supersedes(b, a);
        prop_assert_eq!(both, a.0 != b.0);
        prop_assert!(!supersedes(a, a));
    }
}

#[test]
fn a_body_at_its_limit_is_read_and_one_past_it_is_refused() {
    let mut body = a_hello().encode()[SEAL_BYTES..].to_vec();
    body.resize(SEALED_BYTES_MAX, 0);
    assert!(Hello::decode(&seal(HELLO_MAGIC, &body)).unwrap().is_some());
    body.push(0);
    assert_eq!(Hello::decode(&seal(HELLO_MAGIC, &body)), Err("too long"));
}

#[test]
fn a_hello_of_a_release_before_says_nothing_of_its_birth() {
    let before = Hello { birth: None, ..a_hello() };
    let bytes = before.encode();
    assert_eq!(bytes.len() + 16, a_hello().encode().len());
    assert_eq!(Hello::decode(&bytes), Ok(Some((before, bytes.len()))));
}

#[test]
fn a_birth_is_whole_or_not_there() {
    let without = Hello { birth: None, ..a_hello() };
    let body = &without.encode()[SEAL_BYTES..];
    for (bytes, birth) in [
        (0, Ok(None)),
        (1, Err("ends early")),
        (15, Err("ends early")),
        (16, Ok(Some([6; 16]))),
        (17, Ok(Some([6; 16]))),
    ] {
        let sealed = seal(HELLO_MAGIC, &[body, &[6; 17][..bytes]].concat());
        let expected = birth.map(|birth| Some((Hello { birth, ..without }, sealed.len())));
        assert_eq!(Hello::decode(&sealed), expected, "{bytes} bytes");
    }
}

#[test]
fn strangers_are_known_by_their_first_byte() {
    assert_eq!(Hello::decode(b"G"), Err("not this protocol"));
    assert_eq!(Hello::decode(&[0x16, 3, 1]), Err("not this protocol"));
    assert_eq!(Hello::decode(b"tl-p"), Ok(None));
}

#[test]
fn a_hello_is_judged_by_whom_it_means_and_who_it_is() {
    let told = |change: &dyn Fn(&mut Hello), certified, standing| {
        let mut hello = a_hello();
        change(&mut hello);
        judge(&hello, CLUSTER, seat(1), certified, standing)
    };
    let same: &dyn Fn(&mut Hello) = &|_| ();
    assert_eq!(told(same, true, Standing::Member), Ok(1));
    assert_eq!(told(same, true, Standing::Removed), Err(Refusal::RemovedLife));
    assert_eq!(told(same, true, Standing::Unknown), Err(Refusal::UnknownLife));
    let other: &dyn Fn(&mut Hello) = &|hello| hello.to = seat(3);
    assert_eq!(told(other, true, Standing::Removed), Err(Refusal::RemovedLife));
    assert_eq!(told(other, true, Standing::Unknown), Err(Refusal::WrongReceiver));
    assert_eq!(told(same, false, Standing::Removed), Err(Refusal::WrongCertificate));
    assert_eq!(told(same, false, Standing::Member), Err(Refusal::WrongCertificate));
    let member = |change| told(change, true, Standing::Member);
    assert_eq!(member(&|hello| hello.versions = (1, 9)), Ok(1));
    assert_eq!(member(&|hello| hello.versions = (2, 9)), Err(Refusal::Version));
    assert_eq!(member(&|hello| hello.versions = (0, 0)), Err(Refusal::Version));
    assert_eq!(member(&|hello| hello.cluster.0[3] ^= 1), Err(Refusal::ForeignCluster));
    assert_eq!(member(&|hello| hello.to = seat(3)), Err(Refusal::WrongReceiver));
    assert_eq!(member(&|hello| hello.to.peer.0 += 1), Err(Refusal::WrongReceiver));
}

#[test]
fn reasons_keep_their_numbers() {
    let known = (1..=12).map(Refusal::from_number);
    let words: Vec<_> = known.map(Refusal::word).collect();
    assert_eq!(
        words,
        [
            "version_not_spoken",
            "foreign_cluster",
            "wrong_receiver",
            "unknown_life",
            "removed_life",
            "wrong_certificate",
            "replaced",
            "damaged_frame",
            "stopping",
            "malformed_hello",
            "other_birth",
            "unwritten_birth",
        ]
    );
    for number in 1..=u8::MAX {
        assert_eq!(Refusal::from_number(number).number(), number);
    }
}

#[test]
fn the_format_is_as_it_was_promised() {
    let bytes = a_hello().encode();
    assert_eq!(bytes[..8], *b"tl-peer\n");
    assert_eq!(bytes[12..14], [99, 0]);
    assert_eq!(bytes[14..17], [1, 1, 1]);
    assert_eq!(bytes[17..33], CLUSTER.0);
    assert_eq!(bytes[33..57], *[[2; 16].as_slice(), &[2, 0, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(bytes[57..81], *[[1; 16].as_slice(), &[1, 0, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(bytes[81..97], [8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[97..], [5; 16]);
}
