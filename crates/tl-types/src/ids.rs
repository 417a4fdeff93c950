//! Positions and identities as newtypes, so that one is never passed for another.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Position of an event in a session: contiguous, from 1. `Seq(0)` is before all events,
    /// so a cursor (exclusive) starts there.
    Seq(u64)
);
number!(
    /// One Raft group; `0..groups`, 256 groups unless the cluster record says otherwise.
    GroupId(u16)
);
number!(
    /// Index of an entry in a group's Raft log, from 1; 0 is before the first entry.
    Index(u64)
);
number!(
    /// Raft term, from 1.
    Term(u64)
);
number!(
    /// Life of a group's rows on this replica: new for every snapshot install or re-added
    /// replica, so that an install or a removal is a switch of one row.
    Generation(u32)
);
number!(
    /// A resource within its group: given out on create, unique in the group, never reused.
    ResourceNumber(u64)
);

impl Seq {
    /// The position right after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

macro_rules! sixteen {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

sixteen!(
    /// One life of a resource name: minted by the create entry, part of archive keys, ETags and
    /// page tokens, so that a position never names another event after delete and re-create.
    Incarnation
);
sixteen!(
    /// Names one client request, so that a repeat is answered with the first reply.
    RequestId
);
sixteen!(
    /// Lasting identity of a node, kept in its data directory.
    NodeId
);
sixteen!(
    /// One cluster, from its birth on; what belongs to another is refused.
    ClusterId
);
