use std::collections::BTreeSet;

use super::*;

fn settings(members: &[&str]) -> ClusterSettings {
    ClusterSettings {
        members: members.iter().map(|member| (*member).to_owned()).collect(),
        ..ClusterSettings::default()
    }
}

const THREE: [&str; 3] = ["a=127.0.0.1:1", "b=127.0.0.1:2", "c=127.0.0.1:3"];

#[test]
fn times_hold_at_their_ends_and_one_step_past_and_are_what_a_driver_takes() {
    type Set = fn(&mut ClusterSettings, u64);
    let heartbeat: Set =
        |settings, ms| (settings.heartbeat_ms, settings.election_ms) = (ms, 60_000);
    let election: Set = |settings, ms| (settings.heartbeat_ms, settings.election_ms) = (50, ms);
    let cases: [(Set, u64, bool); 14] = [
        (heartbeat, 0, false),
        (heartbeat, 50, true),
        (heartbeat, 75, false),
        (heartbeat, 100, true),
        (heartbeat, 10_000, true),
        (heartbeat, 10_050, false),
        (heartbeat, u64::MAX, false),
        (election, 100, false),
        (election, 150, true),
        (election, 151, false),
        (election, 200, true),
        (election, 60_000, true),
        (election, 60_050, false),
        (election, u64::MAX, false),
    ];
    for (set, ms, is_taken) in cases {
        let mut settings = settings(&THREE);
        set(&mut settings, ms);
        let checked = settings.check("a");
        assert_eq!(checked.is_ok(), is_taken, "{ms}: {checked:?}");
        if is_taken {
            let timed = settings.timed(tl_raft::DriverConfig::new(PeerId(1), 1));
            // It stops the process if the times do not fit together.
            let _driver = tl_raft::Driver::new(timed, Vec::new());
        }
    }
    // At least three beats.
    for (election_ms, is_taken) in [(300, true), (250, false)] {
        let settings = ClusterSettings { heartbeat_ms: 100, election_ms, ..settings(&THREE) };
        assert_eq!(settings.check("a").is_ok(), is_taken, "{election_ms}");
    }
}

fn fresh() -> impl Fn() -> [u8; 16] {
    let count = std::cell::Cell::new(0);
    move || {
        count.set(count.get() + 1);
        [count.get(); 16]
    }
}

fn founded(dir: &Path) -> Vec<(String, PathBuf)> {
    let members = ["a", "b", "c"].map(|name| (name.to_owned(), dir.join(name))).to_vec();
    found(&members, 8, UnixMs(77), fresh()).expect("founded");
    members
}

fn membership(
    dir: &Path,
    settings: &ClusterSettings,
    name: &str,
) -> Result<Option<Membership>, String> {
    let identity = Identity::open(dir).expect("read").expect("there");
    Membership::of(dir, &identity, settings, name).map_err(|error| error.to_string())
}

#[test]
fn members_of_a_founding_know_one_another() {
    let dir = tempfile::tempdir().expect("temp dir");
    let members = founded(dir.path());
    let (mut clusters, mut seats) = (BTreeSet::new(), BTreeSet::new());
    for (name, dir) in &members {
        let place = membership(dir, &settings(&THREE), name).expect("fits").expect("a member");
        assert_eq!(place.voters, [1, 2, 3].map(PeerId));
        let peers = place.peers(&place.list);
        assert_eq!((peers.members.len(), peers.removed.len()), (2, 0));
        assert_eq!(place.founded_at, UnixMs(77));
        assert!(peers.members.iter().all(|peer| peer.peer != place.seat.peer));
        clusters.insert(place.cluster.0);
        seats.insert((place.seat.peer, place.seat.node));
    }
    assert_eq!((clusters.len(), seats.len()), (1, 3));
}

#[test]
fn a_directory_that_is_empty_or_another_nodes_does_not_vote() {
    let dir = tempfile::tempdir().expect("temp dir");
    let members = founded(dir.path());
    let a = &members[0].1;
    let said = membership(a, &settings(&THREE), "b").expect_err("another's");
    assert_eq!(said, "this directory is that of member a, and engine.node_name is b");
    let said = membership(a, &ClusterSettings::default(), "a").expect_err("not alone");
    assert!(said.ends_with("cluster.members is not set"), "{said}");
    let other = ["a=127.0.0.1:1", "b=127.0.0.1:2", "d=127.0.0.1:3"];
    let said = membership(a, &settings(&other), "a").expect_err("others");
    assert_eq!(said, "the cluster was founded by a, b, c, and cluster.members names a, b, d");

    let alone = dir.path().join("alone");
    let single = Identity::open_or_create(&alone, 8, || [9; 16]).expect("made");
    let said = Membership::of(&alone, &single, &settings(&THREE), "a").expect_err("no member");
    assert!(matches!(said, ClusterError::NotFounded { .. }));
    assert!(found(&[("a".to_owned(), alone)], 8, UnixMs(1), fresh()).is_err(), "in use");
}

#[test]
fn every_bad_setting_is_named() {
    let check = |members: &[&str]| settings(members).check("a").map_err(|said| said.join("; "));
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&THREE), Ok(()));
    let six = ["a=h:1", "b=h:1", "c=h:1", "d=h:1", "e=h:1", "f=h:1"];
    assert_eq!(check(&six).unwrap_err(), "members names 6 nodes; it must name from 3 to 5");
    assert_eq!(check(&THREE[..2]).unwrap_err(), "members names 2 nodes; it must name from 3 to 5");
    for (member, said) in [
        ("b", "member \"b\" must be name=host:port"),
        ("b=host:0", "member \"b=host:0\" must be name=host:port"),
        ("c=h:1", "members names \"c\" twice"),
    ] {
        assert_eq!(check(&[THREE[0], member, THREE[2]]).unwrap_err(), said);
    }
    let said = settings(&THREE).check("z").unwrap_err();
    assert_eq!(said, ["members does not name this node, \"z\""]);
    let named = ["a=db-1:4100", THREE[1], THREE[2]];
    assert!(check(&named).unwrap_err().starts_with("listen must be set"));
    let listening = ClusterSettings { listen: "127.0.0.1:9".to_owned(), ..settings(&named) };
    assert_eq!(listening.check("a"), Ok(()));
    let half = ClusterSettings { key: "k".into(), ..settings(&THREE) };
    assert_eq!(half.check("a").unwrap_err().len(), 1);
}

/// The life that takes the place of b's, as the cluster of these directories agreed to it.
fn new_life(members: &[(String, PathBuf)], id: u8) -> NewLife {
    let identity = Identity::open(&members[0].1).expect("read").expect("there");
    let seen = MembersFile::in_dir(&members[0].1).read().expect("read");
    let list = seen.unwrap_or_else(|| MemberList::of_founding(&identity));
    NewLife {
        name: "b".to_owned(),
        cluster_id: identity.cluster_id.clone(),
        groups: identity.groups,
        founded_at_ms: identity.founded_at_ms,
        list: list.replaced("b", [id; 16]).expect("a member"),
        copies: identity.copies,
        routers: identity.routers,
    }
}

#[test]
fn a_new_life_has_its_own_number_and_is_no_founding_voter() {
    let dir = tempfile::tempdir().expect("temp dir");
    let members = founded(dir.path());
    let new = dir.path().join("new");
    let life = new_life(&members, 99);
    life.make_directory(&new).expect("made");
    let place = membership(&new, &settings(&THREE), "b").expect("fits").expect("a member");
    assert_eq!(place.seat, Seat { node: NodeId([99; 16]), peer: PeerId(4) });
    assert_eq!(place.voters, [1, 2, 3].map(PeerId), "those of the founding, itself not among them");
    assert_eq!(place.founded_at, UnixMs(77));
    let peers = place.peers(&place.list);
    let others: Vec<PeerId> = peers.members.iter().map(|peer| peer.peer).collect();
    assert_eq!((others, peers.removed), (vec![PeerId(1), PeerId(3)], [PeerId(2)].into()));

    // The next one never takes a directory that something is in.
    let again = new_life(&members, 98).make_directory(&new).expect_err("in use");
    assert!(again.to_string().contains("is not empty"), "{again}");
    // Without its list it has not begun.
    std::fs::remove_file(new.join("members.json")).expect("removed");
    let half = membership(&new, &settings(&THREE), "b").expect_err("half a directory");
    assert!(half.contains("is not a member's data directory"), "{half}");
}

#[test]
fn a_directory_that_knows_that_its_life_is_over_does_not_start() {
    let dir = tempfile::tempdir().expect("temp dir");
    let members = founded(dir.path());
    let life = new_life(&members, 99);
    for (name, dir) in &members {
        MembersFile::in_dir(dir).write(&life.list).expect("written");
        let place = membership(dir, &settings(&THREE), name);
        if name == "b" {
            let said = place.expect_err("its life is over");
            assert!(said.contains("former life of b"), "{said}");
            continue;
        }
        let place = place.expect("fits").expect("a member");
        assert_eq!(place.voters, [1, 2, 3].map(PeerId), "groups began with these all the same");
        let peers = place.peers(&place.list);
        assert!(peers.members.iter().any(|peer| peer.peer == PeerId(4)));
        assert_eq!(peers.removed, [PeerId(2)].into());
    }
    // What is no list is damage, and not the founding's again.
    std::fs::write(members[0].1.join("members.json"), b"{}").expect("written");
    assert!(membership(&members[0].1, &settings(&THREE), "a").is_err());
}

#[test]
fn what_a_new_life_is_made_from_is_checked() {
    let dir = tempfile::tempdir().expect("temp dir");
    let members = founded(dir.path());
    let bad: [fn(&mut NewLife); 3] = [
        |life| life.name = "d".to_owned(),
        |life| life.cluster_id.clear(),
        |life| life.list.members.clear(),
    ];
    for (at, change) in bad.into_iter().enumerate() {
        let mut life = new_life(&members, 99);
        change(&mut life);
        let new = dir.path().join(format!("new-{at}"));
        assert!(life.make_directory(&new).is_err());
        assert_eq!(Identity::open(&new).expect("read"), None, "it starts nowhere");
    }
}

const FIVE: [&str; 5] =
    ["a=127.0.0.1:1", "b=127.0.0.1:2", "c=127.0.0.1:3", "d=127.0.0.1:4", "e=127.0.0.1:5"];
const ROUTERS: [&str; 2] = ["r1=127.0.0.1:6", "r2=127.0.0.1:7"];

fn five() -> ClusterSettings {
    let routers = ROUTERS.map(str::to_owned).to_vec();
    ClusterSettings { routers, ..settings(&FIVE) }
}

/// Five members and two routers; names are given out of order.
fn founded_with_routers(dir: &Path) -> Vec<(String, PathBuf)> {
    let dirs = |names: &[&str]| -> Vec<(String, PathBuf)> {
        names.iter().map(|name| ((*name).to_owned(), dir.join(name))).collect()
    };
    let (mut members, routers) = (dirs(&["c", "e", "a", "d", "b"]), dirs(&["r2", "r1"]));
    found_with(&members, &routers, 64, UnixMs(77), fresh()).expect("founded");
    members.extend(routers);
    members.sort_unstable();
    members
}

#[test]
fn of_five_members_three_begin_each_group_and_routers_begin_none() {
    let dir = tempfile::tempdir().expect("temp dir");
    let nodes = founded_with_routers(dir.path());
    let mut begun = vec![Vec::new(); 64];
    for (name, dir) in &nodes {
        let place = membership(dir, &five(), name).expect("fits").expect("a member");
        assert_eq!((place.voters.len(), place.copies), (5, Some(3)));
        let peers = place.peers(&place.list);
        assert_eq!((peers.members.len(), peers.removed.len()), (6, 0), "all others are called");
        assert_eq!(place.place.is_none(), name.starts_with('r'));
        assert_eq!(place.list.member_of(place.seat.node).is_none(), name.starts_with('r'));
        for group in 0..64 {
            let Some(voters) = place.voters_of(GroupId(group)) else { continue };
            assert!(voters.contains(&place.seat.peer));
            begun[usize::from(group)].push(voters);
        }
    }
    for (group, voters) in begun.iter().enumerate() {
        let count = if group == 0 { 5 } else { 3 };
        assert_eq!(voters.len(), count, "group {group}");
        assert!(voters.iter().all(|other| *other == voters[0] && other.len() == count));
    }
}

#[test]
fn a_member_says_its_birth_and_a_router_none() {
    let dir = tempfile::tempdir().expect("temp dir");
    for (name, dir) in &founded_with_routers(dir.path()) {
        let mut place = membership(dir, &five(), name).expect("fits").expect("a node");
        assert_eq!(place.said_birth(), None, "{name} has no log");
        place.birth = Some([7; 16]);
        assert_eq!(place.said_birth().is_none(), name.starts_with('r'), "{name}");
    }
}

#[test]
fn a_new_life_knows_who_began_its_groups_and_began_none_of_them() {
    let dir = tempfile::tempdir().expect("temp dir");
    let nodes = founded_with_routers(dir.path());
    let before = membership(&nodes[1].1, &five(), "b").expect("fits").expect("a member");
    let life = new_life(&nodes, 99);
    let new = dir.path().join("new");
    let identity = life.make_directory(&new).expect("made");
    assert_eq!((identity.copies, identity.routers.len()), (Some(3), 2));
    let after = membership(&new, &five(), "b").expect("fits").expect("a member");
    assert_eq!((after.seat.peer, after.place), (PeerId(6), before.place));
    for group in (0..64).map(GroupId) {
        assert_eq!(after.voters_of(group), before.voters_of(group));
        let voters = after.voters_of(group).unwrap_or_default();
        assert!(!voters.contains(&after.seat.peer), "group {group}");
    }
    let peers = after.peers(&after.list);
    assert_eq!((peers.members.len(), peers.removed), (6, [PeerId(2)].into()));
}

#[test]
fn a_directory_with_places_is_none_that_an_earlier_release_reads() {
    let dir = tempfile::tempdir().expect("temp dir");
    let formats = |nodes: Vec<(String, PathBuf)>| {
        let format = |dir: &PathBuf| Identity::open(dir).expect("read").expect("there").format;
        nodes.iter().map(|(_, dir)| format(dir)).collect::<BTreeSet<u32>>()
    };
    assert_eq!(formats(founded(&dir.path().join("three"))), [1].into(), "as ever");
    assert_eq!(formats(founded_with_routers(&dir.path().join("five"))), [2].into());
}

#[test]
fn settings_name_the_routers_of_the_founding() {
    let dir = tempfile::tempdir().expect("temp dir");
    let nodes = founded_with_routers(dir.path());
    let said = membership(&nodes[0].1, &settings(&FIVE), "a").expect_err("none are named");
    assert!(said.contains("with the routers r1, r2, and cluster.routers names "), "{said}");
    let check = |routers: &[&str], name: &str| {
        let routers = routers.iter().map(|router| (*router).to_owned()).collect();
        let settings = ClusterSettings { routers, ..settings(&FIVE) };
        settings.check(name).map_err(|said| said.join("; "))
    };
    assert_eq!((check(&ROUTERS, "a"), check(&ROUTERS, "r2")), (Ok(()), Ok(())));
    assert_eq!(check(&["a=h:1"], "a").unwrap_err(), "routers names \"a\" twice");
    assert_eq!(check(&["r1"], "a").unwrap_err(), "router \"r1\" must be name=host:port");
    let said = check(&ROUTERS, "z").unwrap_err();
    assert_eq!(said, "neither members nor routers name this node, \"z\"");
    let named: Vec<String> = (0..=ROUTERS_MAX).map(|number| format!("r{number}=h:1")).collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(check(&named[..ROUTERS_MAX], "a"), Ok(()));
    let said = check(&named, "a").unwrap_err();
    assert_eq!(said, "routers names 17 nodes; it may name 16 at most");
}
