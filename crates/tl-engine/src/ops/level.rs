//! Which feature level a cluster may commit.
//!
//! ```text
//!   committed ≤ level ≤ what every member speaks, all of them heard now
//! ```
//!
//! A level is the rules by which entries are applied. Once it is committed, entries follow it and no
//! release below it can take part any more, so it rises by an operator's word alone, and only as
//! far as everybody present speaks. Silence is no consent: who is silent may come back with the
//! release that it had.

/// A node of the cluster, and what it says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Its name.
    pub name: String,
    /// The highest level that it speaks; `None` when it is silent.
    pub spoken: Option<u16>,
    /// Whether it holds nothing. A silent router holds up nobody: it can lose nothing, and does not
    /// start with a release that is too old.
    pub is_router: bool,
}

/// Why no other level may be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRaised {
    /// Members do not say what they speak.
    #[error(
        "nothing is heard of {}: each member has to say that it speaks the next level. Start it, or \
         give it a new life if its disk is lost", .0.join(", ")
    )]
    Silent(Vec<String>),
    /// Some speak more than what is committed, and others do not.
    #[error(
        "{} {} no higher level than {level}: bring {} to the release of the others first",
        .names.join(", "), if .names.len() == 1 { "speaks" } else { "speak" },
        if .names.len() == 1 { "it" } else { "them" }
    )]
    Behind {
        /// Who does not, in order.
        names: Vec<String>,
        /// What is committed.
        level: u16,
    },
    /// Nobody speaks more than what is committed.
    #[error(
        "there is nothing to raise: level {level} is committed, and no node speaks a higher one"
    )]
    Nothing {
        /// What is committed.
        level: u16,
    },
}

/// The level to commit: the lowest of what all nodes speak.
///
/// # Errors
/// [`NotRaised`], with everybody who is in the way.
pub fn next_level(committed: u16, speakers: &[Speaker]) -> Result<u16, NotRaised> {
    let names = |of: &dyn Fn(&Speaker) -> bool| -> Vec<String> {
        speakers.iter().filter(|node| of(node)).map(|node| node.name.clone()).collect()
    };
    let silent = names(&|node| node.spoken.is_none() && !node.is_router);
    if !silent.is_empty() {
        return Err(NotRaised::Silent(silent));
    }
    let spoken = || speakers.iter().filter_map(|node| node.spoken);
    if spoken().all(|level| level <= committed) {
        return Err(NotRaised::Nothing { level: committed });
    }
    let behind = names(&|node| node.spoken.is_some_and(|level| level <= committed));
    match (behind.is_empty(), spoken().min()) {
        (true, Some(lowest)) => Ok(lowest),
        (false, _) | (true, None) => Err(NotRaised::Behind { names: behind, level: committed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(spoken: [Option<u16>; 3]) -> Vec<Speaker> {
        let member =
            |(at, spoken)| Speaker { name: format!("node-{at}"), spoken, is_router: false };
        (1..).zip(spoken).map(member).collect()
    }

    fn router(spoken: Option<u16>) -> Speaker {
        Speaker { name: "router-1".to_owned(), spoken, is_router: true }
    }

    #[test]
    fn the_lowest_that_everybody_speaks_may_be_committed() {
        assert_eq!(next_level(1, &members([Some(2); 3])), Ok(2));
        assert_eq!(next_level(1, &members([Some(4), Some(3), Some(9)])), Ok(3), "several at once");
        assert_eq!(next_level(2, &members([Some(3), Some(4), Some(3)])), Ok(3));
    }

    #[test]
    fn one_member_below_the_next_level_holds_it_up() {
        let behind = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Err(NotRaised::Behind { names, level: 1 })
        };
        let said = next_level(1, &members([Some(2), Some(1), Some(2)]));
        assert_eq!(said, behind(&["node-2"]));
        let said = said.expect_err("behind").to_string();
        assert!(said.starts_with("node-2 speaks no higher level than 1: bring it to"), "{said}");
        let said = next_level(1, &members([Some(1), Some(1), Some(2)]));
        assert_eq!(said, behind(&["node-1", "node-2"]));
        let said = said.expect_err("behind").to_string();
        assert!(said.starts_with("node-1, node-2 speak no higher level than 1"), "{said}");
    }

    #[test]
    fn who_is_silent_holds_it_up_whatever_the_others_speak() {
        for others in [1, 2] {
            let said = next_level(1, &members([Some(others), None, Some(others)]));
            assert_eq!(said, Err(NotRaised::Silent(vec!["node-2".to_owned()])));
        }
    }

    #[test]
    fn without_a_higher_level_there_is_nothing_to_raise() {
        for committed in [1, 2] {
            let said = next_level(committed, &members([Some(committed); 3]));
            assert_eq!(said, Err(NotRaised::Nothing { level: committed }));
        }
    }

    #[test]
    fn a_router_counts_when_it_is_heard_and_holds_up_nobody_when_it_is_not() {
        let with = |spoken| [members([Some(2); 3]), vec![router(spoken)]].concat();
        assert_eq!(next_level(1, &with(None)), Ok(2));
        assert_eq!(next_level(1, &with(Some(2))), Ok(2));
        let names = vec!["router-1".to_owned()];
        assert_eq!(next_level(1, &with(Some(1))), Err(NotRaised::Behind { names, level: 1 }));
    }
}
