//! The ordered store: own memtable, sorted runs, row cache, and an in-memory twin.
