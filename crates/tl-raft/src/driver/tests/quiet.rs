//! Groups in which nothing happens: their beats pass Raft by, and elections stay what they are.

use super::*;

const GROUPS: u16 = 6;
const STEP_MS: u64 = 10;

/// Three drivers that hear each other at once, unless somebody is cut off.
struct Trio {
    now_ms: u64,
    drivers: Vec<Driver>,
    inboxes: Vec<Vec<Inbound>>,
    cut_off: Vec<PeerId>,
    /// Frames since it was last looked.
    frames: usize,
}

impl Trio {
    fn new() -> Trio {
        let drivers = voters(3).into_iter().map(|peer| {
            let groups = (0..GROUPS).map(|group| RecoveredGroup::new(GroupId(group), voters(3)));
            Driver::new(DriverConfig::new(peer, 11), groups.collect())
        });
        let drivers: Vec<Driver> = drivers.collect();
        let inboxes = drivers.iter().map(|_| Vec::new()).collect();
        let mut trio = Trio { now_ms: 0, drivers, inboxes, cut_off: Vec::new(), frames: 0 };
        trio.run(5_000);
        assert!(trio.led().iter().all(Option::is_some), "each group has a leader after a while");
        trio
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP_MS {
            self.now_ms += STEP_MS;
            for slot in 0..self.drivers.len() {
                let inbox = std::mem::take(&mut self.inboxes[slot]);
                let deeds = self.drivers[slot].turn(at(self.now_ms), inbox);
                self.inboxes[slot]
                    .extend(deeds.log.iter().map(|job| Inbound::LogDone { job: job.id }));
                self.inboxes[slot].extend(deeds.apply.iter().map(applied));
                let from = PeerId(slot as u64 + 1);
                self.frames += deeds.frames.len();
                for (to, bytes) in deeds.frames {
                    if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
                        self.inboxes[to.0 as usize - 1].push(Inbound::Frame { from, bytes });
                    }
                }
            }
        }
    }

    /// Who leads each group as its leader sees it; several leaders are nobody.
    fn led(&self) -> Vec<Option<(PeerId, Term)>> {
        let groups = (0..GROUPS).map(GroupId);
        groups
            .map(|group| {
                let mut leaders = voters(3).into_iter().filter_map(|peer| {
                    let status = self.drivers[peer.0 as usize - 1].status(group).unwrap();
                    (status.role == Role::Leader).then_some((peer, status.term))
                });
                leaders.next().filter(|_| leaders.next().is_none())
            })
            .collect()
    }
}

#[test]
fn idle_leaders_stay_and_say_so_in_one_frame_per_beat_and_peer() {
    let mut trio = Trio::new();
    let before = trio.led();
    trio.frames = 0;
    trio.run(20_000);
    assert_eq!(trio.led(), before);
    // Six directions, ten beats a second; the beat that goes through Raft once a second is answered
    // in a frame of its own.
    assert!(trio.frames <= 6 * 20 * 12, "{} frames", trio.frames);
}

#[test]
fn beats_are_quiet_again_after_connections_broke_although_nothing_is_written() {
    let mut trio = Trio::new();
    trio.run(10_000);
    let before = trio.led();
    for (slot, inbox) in trio.inboxes.iter_mut().enumerate() {
        let others = voters(3).into_iter().filter(|peer| peer.0 as usize != slot + 1);
        inbox.extend(others.map(|peer| Inbound::Unreachable { peer }));
    }
    trio.run(1_000);
    assert_eq!(trio.led(), before);
    for (group, led) in (0..).map(GroupId).zip(before) {
        let (leader, _) = led.unwrap();
        // One beat in ten goes through Raft whatever happens.
        let is_quiet = (0..2).any(|_| {
            trio.run(100);
            trio.drivers[leader.0 as usize - 1].group_mut(group).beat().is_some()
        });
        assert!(is_quiet, "group {group} still beats through Raft");
    }
}

#[test]
fn a_leader_whose_followers_are_silent_steps_down_after_quiet_beats_as_well() {
    let mut trio = Trio::new();
    trio.run(10_000);
    let (leader, _) = trio.led()[0].unwrap();
    trio.cut_off = vec![leader];
    trio.run(3_000);
    for group in (0..GROUPS).map(GroupId) {
        let status = trio.drivers[leader.0 as usize - 1].status(group).unwrap();
        assert_ne!(status.role, Role::Leader, "group {group} is led by one that nobody hears");
    }
    assert!(trio.led().iter().all(|led| led.is_some_and(|(by, _)| by != leader)));

    trio.cut_off.clear();
    trio.run(3_000);
    assert!(trio.led().iter().all(Option::is_some));
}

#[test]
fn a_quiet_group_takes_entries_at_once_and_its_followers_hear_that_they_are_committed() {
    let mut trio = Trio::new();
    trio.run(10_000);
    let (leader, _) = trio.led()[0].unwrap();
    let before = trio.drivers[0].status(GROUP).unwrap().committed;
    trio.inboxes[leader.0 as usize - 1].push(propose(GROUP, 1, "news"));
    trio.run(300);
    for driver in &trio.drivers {
        assert_eq!(driver.status(GROUP).unwrap().applied, Index(before.0 + 1));
    }
}
