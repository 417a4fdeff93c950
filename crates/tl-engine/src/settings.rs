//! What an operator may choose about a node's engine, and the checked values the code trusts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::memory::{
    BUDGET_BYTES_DEFAULT, BUDGET_BYTES_MAX, BUDGET_BYTES_MIN, RESERVE_DIVISOR, Shares,
};

/// Engine settings as written. [`EngineSettings::check`] refuses values out of range by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct EngineSettings {
    /// Directory of everything the node keeps. Default `./tl-data`. One process at a time.
    pub data_dir: PathBuf,
    /// Name of the node, in readiness, metrics and logs. Default `node-1`.
    pub node_name: String,
    /// Groups of a new data directory; a present directory keeps its own number. Default 256;
    /// from 1 to 4096.
    pub groups: u16,
    /// Size of one log segment, bytes. Default 32 MiB; from 24 MiB to 256 MiB, so that the
    /// largest entry fits beside the state of all groups.
    pub log_segment_bytes: u64,
    /// Memory that the node may hold, bytes; everything below that holds memory is a share of it.
    /// Default 1 GiB here, and a quarter of the memory it may use for `tl serve`; from 128 MiB to
    /// 1 TiB.
    pub memory_budget_bytes: u64,
    /// Size at which the memtable is sealed and flushed, bytes; five may exist. Default a 48th of
    /// the budget and at most 16 MiB; from 1 MiB to 4 GiB. Smaller flushes stall the log's sync
    /// less.
    pub memtable_bytes: usize,
    /// Memory for rows and blocks of the sorted runs, bytes. Default an eighth of the budget; from
    /// 1 MiB to 64 GiB.
    pub cache_bytes: usize,
    /// Free bytes on disk below which clients' writes are refused, so that what is acknowledged
    /// can be written out and what frees space can be done. Default 256 MiB; from 0 to 1 TiB.
    pub disk_reserve_bytes: u64,
    /// Log that a member of a cluster keeps although its rows are durable, for others that lag,
    /// bytes. Default 256 MiB; from 0 to 1 TiB. A single node keeps none.
    pub log_keep_bytes: u64,
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            data_dir: PathBuf::from("tl-data"),
            node_name: "node-1".to_owned(),
            groups: 256,
            log_segment_bytes: 32 << 20,
            memory_budget_bytes: BUDGET_BYTES_DEFAULT,
            memtable_bytes: 0,
            cache_bytes: 0,
            disk_reserve_bytes: 256 << 20,
            log_keep_bytes: 256 << 20,
        }
        .within(BUDGET_BYTES_DEFAULT)
    }
}

impl EngineSettings {
    /// With this memory budget, and the sizes that are its shares.
    #[must_use]
    pub fn within(self, memory_budget_bytes: u64) -> EngineSettings {
        let shares = Shares::of(memory_budget_bytes);
        let bytes = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
        EngineSettings {
            memory_budget_bytes,
            memtable_bytes: bytes(shares.memtable_bytes),
            cache_bytes: bytes(shares.cache_bytes),
            ..self
        }
    }

    /// How the memory budget is divided.
    #[must_use]
    pub fn shares(&self) -> Shares {
        Shares {
            memtable_bytes: self.memtable_bytes as u64,
            cache_bytes: self.cache_bytes as u64,
            ..Shares::of(self.memory_budget_bytes)
        }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// A sentence per bad value, naming the key and the range.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let mut range = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                errors.push(format!("{key} is {value}; it must be from {low} to {high}"));
            }
        };
        range("groups", self.groups.into(), 1, 4096);
        range("log_segment_bytes", self.log_segment_bytes, 24 << 20, 256 << 20);
        let budget = self.memory_budget_bytes;
        range("memory_budget_bytes", budget, BUDGET_BYTES_MIN, BUDGET_BYTES_MAX);
        range("disk_reserve_bytes", self.disk_reserve_bytes, 0, 1 << 40);
        range("memtable_bytes", self.memtable_bytes as u64, 1 << 20, 4 << 30);
        range("cache_bytes", self.cache_bytes as u64, 1 << 20, 64 << 30);
        range("log_keep_bytes", self.log_keep_bytes, 0, 1 << 40);
        let (needed, usable) = (self.shares().total(), budget - budget / RESERVE_DIVISOR);
        if needed > usable {
            errors.push(format!(
                "memory_budget_bytes is {budget}; with these memtable_bytes and cache_bytes the \
                 shares take {needed}, and at most {usable} may be taken"
            ));
        }
        if self.node_name.is_empty() || self.node_name.len() > 64 {
            errors.push("node_name must have 1 to 64 bytes".to_owned());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_keep_their_own_ranges() {
        assert_eq!(EngineSettings::default().check(), Ok(()));
    }

    #[test]
    fn every_budget_gives_settings_that_fit_it_and_larger_parts_are_refused() {
        for budget in [BUDGET_BYTES_MIN, BUDGET_BYTES_DEFAULT, 64 << 30] {
            let settings = EngineSettings::default().within(budget);
            assert_eq!(settings.check(), Ok(()));
            let cache_bytes = settings.cache_bytes + budget as usize / 4 * 3;
            let errors = EngineSettings { cache_bytes, ..settings }.check().expect_err("too large");
            assert!(errors[0].starts_with("memory_budget_bytes is "), "{errors:?}");
        }
    }

    #[test]
    fn every_bad_value_is_named_at_once() {
        let settings = EngineSettings {
            groups: 0,
            memtable_bytes: 1,
            node_name: String::new(),
            ..EngineSettings::default()
        };
        let errors = settings.check().expect_err("three bad values");
        assert_eq!(errors.len(), 3);
        assert_eq!(errors[0], "groups is 0; it must be from 1 to 4096");
    }
}
