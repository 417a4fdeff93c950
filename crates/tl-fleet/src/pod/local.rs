//! What a pod keeps for itself: a journal of reports that could not be delivered, and the
//! ledger of the recoveries that it made.
//!
//! The journal is no promise: a step whose report is lost with it is run again when its lease
//! runs out. It saves work, not correctness; what it replays is fenced like any report. The
//! ledger is for people: what was found and done in each recovery cycle. Dead letters
//! themselves are in the shared database.

use std::fs::File;
use std::path::Path;

use parking_lot::Mutex;
use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::claim::{ClaimKey, Finish, Outcome};
use crate::ids::{ClaimToken, StepId};
use crate::json::JsonText;
use crate::recover::Recovered;
use crate::step::StepState;

/// Reports that the journal holds at most; one past is dropped and counted.
pub const JOURNAL_REPORTS_MAX: i64 = 10_000;
/// Bytes of results and errors that it holds at most.
pub const JOURNAL_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// Rows that the ledger keeps, the newest.
pub const LEDGER_ROWS_MAX: i64 = 100_000;

const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -1024;
    CREATE TABLE IF NOT EXISTS journal (
      number INTEGER PRIMARY KEY,
      step_id TEXT NOT NULL,
      token BLOB NOT NULL,
      outcome INTEGER NOT NULL,
      text TEXT,
      retry_in_ms INTEGER,
      UNIQUE (step_id, token)
    );
    CREATE TABLE IF NOT EXISTS ledger (
      number INTEGER PRIMARY KEY,
      cycle_id TEXT NOT NULL,
      step_id TEXT NOT NULL,
      claimed_by TEXT NOT NULL,
      claim_timestamp INTEGER NOT NULL,
      recovery_timestamp INTEGER NOT NULL,
      reason TEXT NOT NULL,
      retry_count INTEGER NOT NULL,
      max_retries INTEGER NOT NULL,
      action TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS ledger_cycle ON ledger (cycle_id);";

/// Why the pod's own folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Another pod works with this folder, or did and has not ended.
    #[error("another pod uses the folder")]
    InUse,
    /// The folder or its lock cannot be made.
    #[error("the folder cannot be used")]
    Folder(#[source] std::io::Error),
    /// The file in it cannot be used.
    #[error("the local file cannot be used")]
    File(#[from] rusqlite::Error),
}

/// The file.
#[derive(Debug)]
pub struct Local {
    conn: Mutex<Connection>,
    _lock: File,
}

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// Which cycle.
    pub cycle_id: String,
    /// Which step, as it was written.
    pub step_id: String,
    /// Who held it.
    pub claimed_by: String,
    /// Why it was taken back: `dead_pod` and `poison` and `max_retries_exceeded`, or
    /// `cancelled`.
    pub reason: String,
    /// Retries charged before.
    pub retry_count: i64,
    /// Retries it may have.
    pub max_retries: i64,
    /// `requeue` or `terminal`.
    pub action: String,
}

impl Local {
    pub(super) fn open(folder: &Path) -> Result<Local, LocalError> {
        std::fs::create_dir_all(folder).map_err(LocalError::Folder)?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(folder.join("pod.lock"))
            .map_err(LocalError::Folder)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(LocalError::InUse),
            Err(std::fs::TryLockError::Error(error)) => return Err(LocalError::Folder(error)),
        }
        let conn = Connection::open(folder.join("pod.db"))?;
        conn.execute_batch(TABLES)?;
        Ok(Local { conn: Mutex::new(conn), _lock: lock })
    }

    /// Keeps reports; gives those that found no room.
    pub(super) fn journal(&self, finishes: &[Finish]) -> Result<Vec<ClaimKey>, rusqlite::Error> {
        let mut conn = self.conn.lock();
        let tx = conn.transaction()?;
        let (mut reports, mut bytes): (i64, i64) = tx.query_row(
            "SELECT count(*), coalesce(sum(octet_length(text)), 0) FROM journal",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mut dropped = Vec::new();
        for finish in finishes {
            let (outcome, text, retry_in_ms) = outcome_columns(&finish.outcome);
            let its_bytes = text.map_or(0, |text| text.len() as i64);
            // One that is too large for the room that is left takes none from smaller ones.
            if reports == JOURNAL_REPORTS_MAX || bytes + its_bytes > JOURNAL_BYTES_MAX {
                dropped.push(finish.key);
                continue;
            }
            bytes += its_bytes;
            reports += 1;
            tx.prepare_cached(
                "INSERT OR REPLACE INTO journal (step_id, token, outcome, text, retry_in_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                finish.key.id.to_string(),
                finish.key.token.0.as_bytes(),
                outcome,
                text,
                retry_in_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            ])?;
        }
        tx.commit()?;
        Ok(dropped)
    }

    pub(super) fn journal_len(&self) -> Result<u64, rusqlite::Error> {
        let conn = self.conn.lock();
        let reports: i64 = conn.query_row("SELECT count(*) FROM journal", [], |row| row.get(0))?;
        Ok(reports.unsigned_abs())
    }

    /// The oldest reports, with the number up to which they go. Results are large at times, so
    /// few at a time.
    pub(super) fn oldest(&self) -> Result<Option<(i64, Vec<Finish>)>, rusqlite::Error> {
        let conn = self.conn.lock();
        let mut statement = conn.prepare_cached(
            "SELECT number, step_id, token, outcome, text, retry_in_ms FROM journal
             ORDER BY number LIMIT 15",
        )?;
        let mut rows = statement.query([])?;
        let (mut upto, mut finishes) = (None, Vec::new());
        while let Some(row) = rows.next()? {
            upto = Some(row.get(0)?);
            let id: String = row.get(1)?;
            let token: [u8; 16] = row.get(2)?;
            let text = row.get::<_, Option<String>>(4)?.unwrap_or_default();
            let retry_in_ms: Option<i64> = row.get(5)?;
            let outcome = match row.get(3)? {
                0 => Outcome::Completed { result: JsonText::from_store(&text) },
                1 => Outcome::Failed {
                    error: text,
                    retry_in_ms: retry_in_ms.unwrap_or(0).unsigned_abs(),
                },
                2 => Outcome::Fatal { error: text },
                3 => Outcome::Cancelled,
                4 => Outcome::Released,
                // Of a later version of this program: it cannot be told, and is let go.
                5_i64.. | i64::MIN..0 => continue,
            };
            let Ok(id) = id.parse::<StepId>() else { continue };
            let key = ClaimKey { id, token: ClaimToken(Uuid::from_bytes(token)) };
            finishes.push(Finish { key, outcome });
        }
        Ok(upto.map(|upto| (upto, finishes)))
    }

    pub(super) fn delivered(&self, upto: i64) -> Result<(), rusqlite::Error> {
        self.conn.lock().execute("DELETE FROM journal WHERE number <= ?1", [upto])?;
        Ok(())
    }

    /// Notes what one recovery cycle did.
    pub(super) fn ledger(
        &self,
        cycle_id: &str,
        at_ms: u64,
        recovered: &[Recovered],
    ) -> Result<(), rusqlite::Error> {
        let mut conn = self.conn.lock();
        let tx = conn.transaction()?;
        for one in recovered {
            let (reason, action) = match (one.reason, one.state) {
                (Some(reason), _) => (reason.word(), "terminal"),
                (None, StepState::Cancelled) => ("cancelled", "terminal"),
                (None, _) => ("dead_pod", "requeue"),
            };
            tx.prepare_cached(
                "INSERT INTO ledger (cycle_id, step_id, claimed_by, claim_timestamp,
                     recovery_timestamp, reason, retry_count, max_retries, action)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                cycle_id,
                one.id.to_string(),
                one.claimed_by.as_str(),
                i64::try_from(one.claimed_at.0).unwrap_or(i64::MAX),
                i64::try_from(at_ms).unwrap_or(i64::MAX),
                reason,
                one.charged.saturating_sub(1),
                one.attempts_max - 1,
                action,
            ])?;
        }
        tx.execute(
            "DELETE FROM ledger WHERE number <= (SELECT max(number) FROM ledger) - ?1",
            [LEDGER_ROWS_MAX],
        )?;
        tx.commit()
    }

    pub(super) fn ledger_rows(&self, rows_max: usize) -> Result<Vec<LedgerRow>, rusqlite::Error> {
        let conn = self.conn.lock();
        let mut statement = conn.prepare_cached(
            "SELECT cycle_id, step_id, claimed_by, reason, retry_count, max_retries, action
             FROM ledger ORDER BY number DESC LIMIT ?1",
        )?;
        let rows = statement.query_map([i64::try_from(rows_max).unwrap_or(i64::MAX)], |row| {
            Ok(LedgerRow {
                cycle_id: row.get(0)?,
                step_id: row.get(1)?,
                claimed_by: row.get(2)?,
                reason: row.get(3)?,
                retry_count: row.get(4)?,
                max_retries: row.get(5)?,
                action: row.get(6)?,
            })
        })?;
        rows.collect()
    }
}

fn outcome_columns(outcome: &Outcome) -> (i64, Option<&str>, Option<u64>) {
    match outcome {
        Outcome::Completed { result } => (0, Some(result.as_str()), None),
        Outcome::Failed { error, retry_in_ms } => (1, Some(error), Some(*retry_in_ms)),
        Outcome::Fatal { error } => (2, Some(error), None),
        Outcome::Cancelled => (3, None, None),
        Outcome::Released => (4, None, None),
    }
}

#[cfg(test)]
mod tests;
