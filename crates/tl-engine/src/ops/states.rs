//! The state of a node, decided from what is known of it.
//!
//! ```text
//!             silent a moment            silent for minutes
//!   ready ───────────────────► suspect ───────────────────► lost
//!     ▲  ◄── heard again, as it says itself ──┴─────────────┘
//!     └──────────► draining ──────► drained      (asked for; stays over restarts)
//! ```
//!
//! Invariants:
//!  - T1 who is heard is what it says of itself; who is silent is suspect or lost, whatever it
//!    said before;
//!  - T2 a node never becomes ready by being silent, and never stops draining by being heard.

use serde::Serialize;

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It serves.
    Ready,
    /// It is heard and does not serve yet, or cannot now.
    Starting,
    /// Nothing was heard of it for a moment.
    Suspect,
    /// Nothing was heard of it for minutes.
    Lost,
    /// It gives away what it leads and ends its tails.
    Draining,
    /// It leads nothing and has no tails: it may be stopped.
    Drained,
}

impl NodeState {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            NodeState::Ready => "ready",
            NodeState::Starting => "starting",
            NodeState::Suspect => "suspect",
            NodeState::Lost => "lost",
            NodeState::Draining => "draining",
            NodeState::Drained => "drained",
        }
    }

    /// Whether it takes part in votes as far as is known.
    #[must_use]
    pub fn is_heard(self) -> bool {
        match self {
            NodeState::Ready | NodeState::Starting | NodeState::Draining | NodeState::Drained => {
                true
            }
            NodeState::Suspect | NodeState::Lost => false,
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It serves.
    Ready,
    /// Not yet, or not now.
    Starting,
    /// It is being drained.
    Draining,
    /// It is drained.
    Drained,
}

impl From<Standing> for NodeState {
    fn from(standing: Standing) -> NodeState {
        match standing {
            Standing::Ready => NodeState::Ready,
            Standing::Starting => NodeState::Starting,
            Standing::Draining => NodeState::Draining,
            Standing::Drained => NodeState::Drained,
        }
    }
}

/// What is known of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Since when nothing was heard of it, milliseconds; since the start when nothing ever was.
    pub silent_ms: u64,
    /// What it said last of itself.
    pub said: Option<Standing>,
}

/// How long silence is borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Who is silent for longer is suspect, milliseconds.
    pub suspect_after_ms: u64,
    /// Who is suspect for longer is lost, milliseconds.
    pub lost_after_ms: u64,
}

/// The state of another node.
#[must_use]
pub fn state_of(sight: Sight, patience: Patience) -> NodeState {
    let Patience { suspect_after_ms, lost_after_ms } = patience;
    if sight.silent_ms > suspect_after_ms.saturating_add(lost_after_ms) {
        return NodeState::Lost;
    }
    if sight.silent_ms > suspect_after_ms {
        return NodeState::Suspect;
    }
    sight.said.map_or(NodeState::Starting, NodeState::from)
}

/// What a drain still has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Groups that the node leads.
    pub groups_led: usize,
    /// Whether there are other members, who could lead them.
    pub has_others: bool,
    /// Tails that are open.
    pub tails_open: usize,
}

/// What a node says of itself: `drain` is what is left of a drain that was asked for.
#[must_use]
pub fn standing(is_ready: bool, drain: Option<Left>) -> Standing {
    match drain {
        None if is_ready => Standing::Ready,
        None => Standing::Starting,
        Some(Left { groups_led, has_others, tails_open }) => {
            // A node of its own has nobody to give its groups to.
            let leads = has_others && groups_led > 0;
            if leads || tails_open > 0 { Standing::Draining } else { Standing::Drained }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { suspect_after_ms: 500, lost_after_ms: 120_000 };

    fn state(silent_ms: u64, said: Option<Standing>) -> NodeState {
        state_of(Sight { silent_ms, said }, PATIENCE)
    }

    #[test]
    fn silence_makes_suspect_and_then_lost_at_the_limit_and_one_past() {
        let said = Some(Standing::Ready);
        assert_eq!(state(0, said), NodeState::Ready);
        assert_eq!(state(500, said), NodeState::Ready);
        assert_eq!(state(501, said), NodeState::Suspect);
        assert_eq!(state(120_500, said), NodeState::Suspect);
        assert_eq!(state(120_501, said), NodeState::Lost);
        assert_eq!(state(u64::MAX, said), NodeState::Lost);
    }

    #[test]
    fn who_is_heard_is_what_it_says_and_who_said_nothing_is_not_ready() {
        assert_eq!(state(0, None), NodeState::Starting);
        assert_eq!(state(0, Some(Standing::Starting)), NodeState::Starting);
        assert_eq!(state(0, Some(Standing::Draining)), NodeState::Draining);
        assert_eq!(state(0, Some(Standing::Drained)), NodeState::Drained);
    }

    #[test]
    fn a_drained_node_that_falls_silent_is_suspect_and_comes_back_drained() {
        let said = Some(Standing::Drained);
        assert_eq!(state(501, said), NodeState::Suspect);
        assert_eq!(state(200_000, said), NodeState::Lost);
        assert_eq!(state(3, said), NodeState::Drained);
    }

    #[test]
    fn a_drain_is_done_when_nothing_is_led_and_nothing_is_followed() {
        let left = |groups_led, tails_open| Some(Left { groups_led, has_others: true, tails_open });
        assert_eq!(standing(true, left(1, 0)), Standing::Draining);
        assert_eq!(standing(true, left(0, 1)), Standing::Draining);
        assert_eq!(standing(true, left(0, 0)), Standing::Drained);
        assert_eq!(standing(false, left(0, 0)), Standing::Drained, "ready or not");
        let alone = Left { groups_led: 256, has_others: false, tails_open: 0 };
        assert_eq!(standing(true, Some(alone)), Standing::Drained, "there is nobody to give to");
        assert_eq!(standing(true, Some(Left { tails_open: 1, ..alone })), Standing::Draining);
        assert_eq!(
            (standing(true, None), standing(false, None)),
            (Standing::Ready, Standing::Starting)
        );
    }
}
