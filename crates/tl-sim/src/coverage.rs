//! What a run went through, so that many runs can show that they tested something.

use serde::Serialize;

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often things happened. A set of runs in which one of them never did proves little
        /// about it.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct Coverage {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Coverage {
            /// Adds another run's counts.
            pub fn add(&mut self, other: &Coverage) {
                $(self.$name += other.$name;)*
            }

            /// Every count with its name.
            #[must_use]
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

coverage! {
    /// Power cuts.
    power_cuts,
    /// Process kills, which keep the page cache.
    kills,
    /// All machines down at once.
    blackouts,
    /// Crashes between two deeds of one turn.
    crashes_in_turn,
    /// Machines that stayed away for long while others went on and let their logs go.
    aways,
    /// Groups that went on from rows of another machine.
    snapshots_installed,
    /// Entries that leaders read from their logs on disk for machines that lacked them.
    log_fetches,
    /// Appends of leaders that machines without room for their entries passed over.
    appends_passed_over,
    /// Transfers of rows that were let go by who took them.
    transfers_let_go,
    /// Bytes of rows that were copied from a load that was cut off, and did not travel again.
    bytes_resumed,
    /// Bytes of rows that were copied from the group's own old ones.
    bytes_alike,
    /// Machines that went down while they were taking rows.
    kills_taking,
    /// Power cuts between the decision to go on from such rows and the end of its sync.
    crashes_installing,
    /// Messages about rows that arrived damaged.
    pieces_damaged,
    /// Disks that were lost with all that was on them.
    disks_lost,
    /// Of three machines, one lost its disk while a second lacked what it had and the third went down.
    disks_lost_with_no_majority,
    /// Of those, disks of a machine whose new number did not count everywhere yet.
    disks_lost_again,
    /// Of those, disks of a second machine while the first was being replaced.
    second_disks_lost,
    /// Of those, disks that were lost while a group was between two majorities.
    disks_lost_in_joint_changes,
    /// Numbers that went on running after they were replaced.
    numbers_left_running,
    /// Messages of such numbers that were refused.
    former_lives_refused,
    /// Requests of clients that went to such a number.
    former_lives_asked,
    /// Steps asked for by a machine that went by an old list of members.
    steps_by_an_old_list,
    /// Lost disks for which every group has another one.
    disks_replaced,
    /// Changes of a group's members that a leader made.
    changes_made,
    /// Changes that were refused.
    changes_refused,
    /// Messages to a number whose disk is lost.
    sent_to_the_lost,
    /// Starts of a process on a disk that was in use before.
    restarts,
    /// Unsynced bytes that power cuts took.
    lost_bytes,
    /// Power cuts that left a file partly new, partly old.
    torn_writes,
    /// Torn ends of logs that were cut off at a start.
    torn_tails_cut,
    /// Injected sync errors.
    sync_errors,
    /// Writes refused by a full disk.
    full_disks,
    /// Memtables that a full disk kept from becoming durable for a while.
    flushes_without_room,
    /// Disks that were slow for a while.
    slow_disks,
    /// Syncs that took long.
    slow_syncs,
    /// Rows that rotted on the disk of one machine.
    rows_rotten,
    /// Groups that stopped on one machine, because a rotten row was met or because it was asked for.
    groups_stopped,
    /// Groups that went on from rows of another machine in place of rotten ones.
    groups_mended,
    /// Reads that met a rotten row and were refused.
    reads_of_rot,
    /// Transfers of rows that met a rotten one and were given up.
    rot_not_given,
    /// Logs of which durable bytes rotted.
    logs_rotten,
    /// Groups that a machine was doubted in when it started on such a log.
    groups_doubted,
    /// Of those, groups that it went on with from rows of their leaders.
    doubts_ended,
    /// Wall clocks that went a day forward on a machine that led.
    clocks_ahead_of_leaders,
    /// Elections won by a machine whose wall clock was a day ahead.
    led_with_a_clock_ahead,
    /// Wall clocks that were a day ahead and went back.
    clocks_set_back,
    /// Times that a majority of wall clocks agreed and a machine was told so.
    clocks_agreed,
    /// Splits of the network.
    splits,
    /// Runs with four machines.
    clusters_of_four,
    /// Runs with five machines.
    clusters_of_five,
    /// Times that a machine was asked to hand over what it leads.
    hand_overs,
    /// Requests that came to a machine which was cut off from the majority.
    asked_in_minority,
    /// Elections held against what was committed before.
    leaders_compared,
    /// Frames lost, to splits and otherwise.
    frames_lost,
    /// Frames that arrived twice.
    frames_repeated,
    /// Jumps of a wall clock.
    wall_jumps,
    /// Drivers that stood still for a while.
    stalls,
    /// Leaders elected.
    elections,
    /// Unconfirmed entries cut off a log for those of a later leader.
    truncations,
    /// Memtables made durable.
    flushes,
    /// Segments of logs begun after the first.
    segments_begun,
    /// Segments let go to be used again.
    segments_released,
    /// Entries applied from memory.
    applied,
    /// Entries whose rows had to be loaded first.
    applied_cold,
    /// Operations of clients.
    operations,
    /// Attempts whose outcome stayed unknown.
    outcomes_unknown,
    /// Attempts that were overwritten by another leader's entries.
    outcomes_lost,
    /// Requests sent to a machine that did not lead.
    not_leader,
    /// Writes answered with an earlier write's positions.
    dedupe_hits,
    /// Requests answered with the replies that their id was given before.
    requests_repeated,
    /// Refusals of stale expectations.
    expectations_refused,
    /// Refusals of other content under a used producer position.
    conflicts_refused,
    /// Writes to two sessions in one entry.
    commits,
    /// Linearizable reads.
    reads,
    /// Events that tails delivered.
    tailed,
    /// Moves of a tail to another machine.
    tail_moves,
    /// Gaps that tails were told of.
    tail_gaps,
    /// Sessions closed.
    closed,
    /// Sessions deleted.
    tombstoned,
    /// Floors moved up.
    trims,
    /// Digests of two replicas compared at the same index.
    digests_compared,
    /// Entries seen to be committed by the leader that did it.
    commits_seen,
    /// Answers that were put in one order with all others about their session.
    history_answers,
}

impl Coverage {
    /// The things that never happened.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.counts().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}
