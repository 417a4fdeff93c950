//! The rules: deterministic state machines over an ordered key space.
