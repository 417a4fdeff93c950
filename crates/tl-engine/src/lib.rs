//! The shell around rules, log, store and groups.
