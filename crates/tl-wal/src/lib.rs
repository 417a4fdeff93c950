//! The node's one log on disk, shared by all groups.
