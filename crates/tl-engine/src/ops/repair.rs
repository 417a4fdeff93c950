//! Whether a member may take the rows of a group anew: only while the group can spare it.
//!
//! A replica that waits for rows acknowledges nothing and does not vote to lead. The others must
//! be a majority of all members without it, heard of and well, or writes would wait for its rows.

use super::writable::MemberView;

/// Members that the group needs meanwhile and cannot count on; empty when it can spare `who`, a
/// place in `members`.
#[must_use]
pub fn in_the_way(members: &[MemberView<'_>], who: usize) -> Vec<String> {
    let is_well = |member: &MemberView<'_>| member.state.is_heard() && !member.has_stopped;
    let others = members.iter().enumerate().filter(|(place, _)| *place != who);
    let (well, unwell): (Vec<&MemberView<'_>>, Vec<&MemberView<'_>>) =
        others.map(|(_, member)| member).partition(|member| is_well(member));
    if well.len() > members.len() / 2 {
        return Vec::new();
    }
    unwell.into_iter().map(|member| member.name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::NodeState;

    const NAMES: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "node-5"];

    fn members(states: &[NodeState]) -> Vec<MemberView<'static>> {
        let named = NAMES.iter().zip(states);
        let view = |(name, state): (&&'static str, &NodeState)| MemberView {
            name,
            state: *state,
            is_disk_full: false,
            has_stopped: false,
            is_former: false,
        };
        named.map(view).collect()
    }

    #[test]
    fn the_others_must_be_a_majority_without_it() {
        use NodeState::{Drained, Lost, Ready, Starting, Suspect};
        let mut three = members(&[Ready, Drained, Starting]);
        assert_eq!(in_the_way(&three, 0), Vec::<String>::new());
        three[2].has_stopped = true;
        assert_eq!(in_the_way(&three, 0), ["node-3"]);
        assert_eq!(in_the_way(&three, 2), Vec::<String>::new(), "it is the one to be mended");
        assert_eq!(in_the_way(&members(&[Ready, Suspect, Ready]), 0), ["node-2"]);
        assert_eq!(in_the_way(&members(&[Suspect, Ready, Ready]), 0), Vec::<String>::new());
        let five = members(&[Ready, Lost, Ready, Ready, Ready]);
        assert_eq!(in_the_way(&five, 0), Vec::<String>::new(), "one more than it takes");
        let five = members(&[Ready, Lost, Ready, Suspect, Ready]);
        assert_eq!(in_the_way(&five, 0), ["node-2", "node-4"], "one less");
    }
}
