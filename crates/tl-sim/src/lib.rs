//! Deterministic simulation of whole nodes: clock, disk, network, workload, invariants.
