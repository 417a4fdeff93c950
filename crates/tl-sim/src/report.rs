//! What a run gave, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::coverage::Coverage;
use crate::invariants::Violation;

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Repeats the run.
    pub seed: u64,
    /// Groups it had.
    pub groups: u16,
    /// Machines it had.
    pub machines: usize,
    /// Fingerprint of all that happened; equal for equal seeds.
    pub trace: u64,
    /// How long it lasted, virtual milliseconds.
    pub virtual_ms: u64,
    /// What it went through.
    pub coverage: Coverage,
    /// The first promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// The last things that happened, oldest first.
    pub recent: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.virtual_ms as f64 / 1e3;
        write!(
            f,
            "seed {}: {} machines, {} groups, {seconds:.1} s, {} operations, trace {:016x}: ",
            self.seed, self.machines, self.groups, self.coverage.operations, self.trace
        )?;
        match &self.violation {
            None => f.write_str("every promise kept"),
            Some(violation) => write!(f, "BROKEN, {violation}"),
        }
    }
}

/// Several runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Runs made.
    pub runs: u64,
    /// What they went through together.
    pub coverage: Coverage,
    /// The run that broke a promise, if one did.
    pub broken: Option<Report>,
}

impl Summary {
    pub(crate) fn add(&mut self, report: Report) {
        self.runs += 1;
        self.coverage.add(&report.coverage);
        if report.violation.is_some() {
            self.broken = Some(report);
        }
    }
}
