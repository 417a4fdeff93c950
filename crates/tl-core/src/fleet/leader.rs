//! Who leads. Eldest is a preference; the lease with its epoch is the truth.

/// A pod as seen in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub pod: &'a str,
    /// Which life.
    pub incarnation: u64,
    /// When this life began, by the store's clock.
    pub birth_ms: u64,
    /// Until when it counts as alive.
    pub lease_until_ms: u64,
    /// Whether it is up and takes work.
    pub up: bool,
}

/// The eldest of the living; the name settles ties.
#[must_use]
pub fn eldest<'a>(pods: &[Candidate<'a>], now_ms: u64) -> Option<Candidate<'a>> {
    pods.iter()
        .filter(|pod| pod.up && pod.lease_until_ms > now_ms)
        .min_by(|one, other| (one.birth_ms, one.pod).cmp(&(other.birth_ms, other.pod)))
        .copied()
}

/// The row that says who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeadRow {
    /// The life of the holder.
    pub incarnation: u64,
    /// Its fencing number.
    pub epoch: u64,
    /// Until when it leads.
    pub lease_until_ms: u64,
}

/// Who asks to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Its life.
    pub incarnation: u64,
    /// Whether that life goes on: up, and its lease not run out.
    pub alive: bool,
}

/// Whether a pod should ask to lead: its own lease of leadership goes on, or the place is free
/// and it is the eldest, or the place was free for a whole lease and so the eldest does not want
/// it.
#[must_use]
pub fn may_lead(
    me: u64,
    pods: &[Candidate<'_>],
    row: Option<LeadRow>,
    now_ms: u64,
    lease_ms: u64,
) -> bool {
    let free_since_ms = match row {
        Some(row) if row.lease_until_ms > now_ms => return row.incarnation == me,
        Some(row) => row.lease_until_ms,
        None => now_ms,
    };
    let eldest_is_me = eldest(pods, now_ms).is_some_and(|pod| pod.incarnation == me);
    eldest_is_me || now_ms.saturating_sub(free_since_ms) >= lease_ms
}

/// The store's answer to who asks to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// It leads under this epoch: its own going on, or a new one.
    Granted {
        /// The fencing number.
        epoch: u64,
    },
    /// Another's lease holds.
    Other,
    /// The asker's life has ended.
    Ended,
}

/// Decides on leadership. Epochs only grow, and an epoch belongs to one holder.
#[must_use]
pub fn lead(row: Option<LeadRow>, asker: Asker, now_ms: u64) -> Lead {
    if !asker.alive {
        return Lead::Ended;
    }
    match row {
        None => Lead::Granted { epoch: 1 },
        Some(row) if row.lease_until_ms > now_ms => {
            if row.incarnation == asker.incarnation {
                Lead::Granted { epoch: row.epoch }
            } else {
                Lead::Other
            }
        }
        // Also for the holder itself: others may have led in its sleep.
        Some(row) => Lead::Granted { epoch: row.epoch + 1 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod(pod: &str, incarnation: u64, birth_ms: u64, lease_until_ms: u64) -> Candidate<'_> {
        Candidate { pod, incarnation, birth_ms, lease_until_ms, up: true }
    }

    fn row(incarnation: u64, epoch: u64, lease_until_ms: u64) -> Option<LeadRow> {
        Some(LeadRow { incarnation, epoch, lease_until_ms })
    }

    #[test]
    fn eldest_is_by_birth_then_name_among_the_living() {
        let pods = [pod("b", 2, 10, 100), pod("a", 3, 10, 100), pod("old", 1, 5, 50)];
        assert_eq!(eldest(&pods, 20).expect("somebody lives").pod, "old");
        assert_eq!(
            eldest(&pods, 50).expect("somebody lives").pod,
            "a",
            "a lease ends at its deadline"
        );
        assert_eq!(eldest(&pods, 100), None);
        let down = [Candidate { up: false, ..pods[0] }];
        assert_eq!(eldest(&down, 20), None);
    }

    #[test]
    fn only_the_eldest_asks_for_a_free_place_at_first_and_anybody_later() {
        let pods = [pod("a", 1, 1, 9_999), pod("b", 2, 2, 9_999)];
        assert!(may_lead(1, &pods, None, 10, 30));
        assert!(!may_lead(2, &pods, None, 10, 30));
        assert!(!may_lead(2, &pods, row(7, 4, 100), 129, 30));
        assert!(may_lead(2, &pods, row(7, 4, 100), 130, 30));
    }

    #[test]
    fn an_elder_does_not_depose_who_leads() {
        let pods = [pod("a", 1, 1, 9_999), pod("b", 2, 2, 9_999)];
        assert!(!may_lead(1, &pods, row(2, 1, 100), 50, 30));
        assert!(may_lead(2, &pods, row(2, 1, 100), 50, 30));
    }

    #[test]
    fn a_leader_that_slept_gets_a_new_epoch_and_a_dead_one_nothing() {
        let asker = Asker { incarnation: 1, alive: true };
        assert_eq!(lead(row(1, 4, 100), asker, 99), Lead::Granted { epoch: 4 });
        assert_eq!(lead(row(1, 4, 100), asker, 100), Lead::Granted { epoch: 5 });
        assert_eq!(lead(row(2, 4, 100), asker, 99), Lead::Other);
        assert_eq!(lead(None, Asker { alive: false, ..asker }, 0), Lead::Ended);
    }

    proptest! {
        #[test]
        fn an_epoch_has_one_holder_whoever_asks_whenever(
            asks in prop::collection::vec((1_u64..5, 0_u64..60, prop::bool::weighted(0.9)), 1..200),
        ) {
            let (mut now_ms, mut row, mut holders) = (0, None, std::collections::BTreeMap::new());
            for (incarnation, later_ms, alive) in asks {
                now_ms += later_ms;
                if let Lead::Granted { epoch } = lead(row, Asker { incarnation, alive }, now_ms) {
                    prop_assert!(row.is_none_or(|row: LeadRow| epoch >= row.epoch));
                    let holder = *holders.entry(epoch).or_insert(incarnation);
                    prop_assert_eq!(holder, incarnation);
                    row = Some(LeadRow { incarnation, epoch, lease_until_ms: now_ms + 50 });
                }
            }
        }
    }
}
