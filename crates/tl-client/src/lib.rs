//! The Rust client: append, tail with resume, and the checker.
