//! Many Raft groups on one node: one synchronous driver; commands are bytes.
