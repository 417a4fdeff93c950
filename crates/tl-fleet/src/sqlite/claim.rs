//! Steps are taken and held.

use rusqlite::{OptionalExtension, params};

use super::fault::Fault;
use super::pods::is_alive;
use super::rows::{count, int, step_id, token_bytes, uint};
use super::worker::{Done, Tx};
use crate::claim::{Claim, ClaimKey, ClaimRequest, Claimant, Renewal, Renewed};
use crate::error::StoreError;
use crate::ids::{Attempt, ClaimToken};
use crate::json::JsonText;
use crate::limits::{BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX, PROMOTE_MAX};
use crate::step::Kind;
use crate::time::StoreTime;

/// Makes those pending whose time has come.
fn promote(tx: &Tx<'_>) -> Result<(), Fault> {
    let mut due = tx.conn.prepare_cached(
        "UPDATE fleet_steps SET state = 1
         WHERE seq IN (SELECT seq FROM fleet_steps WHERE state = 0 AND run_at <= ?1
                       ORDER BY run_at LIMIT ?2)",
    )?;
    due.execute(params![int(tx.wall.0), count(PROMOTE_MAX)])?;
    Ok(())
}

pub(super) fn claim(tx: &Tx<'_>, request: &ClaimRequest) -> Done<Vec<Claim>> {
    if let Claimant::Pod(life) = &request.claimant
        && !is_alive(tx, life)?
    {
        return Ok(Err(StoreError::Reaped));
    }
    promote(tx)?;
    let mut claims = Vec::new();
    let mut bytes = 0;
    for seq in next_in_rank(tx, &request.kinds, request.steps_max)? {
        let Some(claim) = take(tx, request, seq)? else { continue };
        bytes += claim.args.len_bytes() + claim.metadata.len_bytes();
        claims.push(claim);
        if bytes + PAYLOAD_BYTES_MAX > BATCH_BYTES_MAX {
            break;
        }
    }
    Ok(Ok(claims))
}

/// The pending steps of these kinds that come first. Each kind is a stretch of the index, so
/// steps that nobody here can run cost nothing.
fn next_in_rank(tx: &Tx<'_>, kinds: &[Kind], steps_max: usize) -> Result<Vec<i64>, Fault> {
    let mut first = tx.conn.prepare_cached(
        "SELECT rank, seq FROM fleet_steps WHERE state = 1 AND kind = ?1
         ORDER BY rank, seq LIMIT ?2",
    )?;
    let mut found: Vec<(i64, i64)> = Vec::new();
    for (position, kind) in kinds.iter().enumerate() {
        if kinds[..position].contains(kind) {
            continue;
        }
        let rows = first.query_map(params![kind.as_str(), count(steps_max)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        for row in rows {
            found.push(row?);
        }
    }
    found.sort_unstable();
    found.truncate(steps_max);
    Ok(found.into_iter().map(|(_, seq)| seq).collect())
}

const TAKE: &str = "
    UPDATE fleet_steps
    SET state = 2, attempt = attempt + 1, token = ?2, claimed_by = ?3, claimed_at = ?4,
        lease_until = ?5, updated_at = ?4
    WHERE seq = ?1 AND state = 1
    RETURNING id, attempt, charged, attempts_max, kind, priority, timeout_ms";

fn take(tx: &Tx<'_>, request: &ClaimRequest, seq: i64) -> Result<Option<Claim>, Fault> {
    let token = ClaimToken::fresh();
    let lease_until = StoreTime(tx.at.0 + request.lease_ms);
    let mut take = tx.conn.prepare_cached(TAKE)?;
    let mut rows = take.query(params![
        seq,
        token_bytes(&token),
        request.claimant.name().as_str(),
        int(tx.wall.0),
        int(lease_until.0),
    ])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let id = step_id(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
    let mut claim = Claim {
        key: ClaimKey { id, token },
        attempt: Attempt(uint(row.get(1)?)),
        charged: row.get(2)?,
        attempts_max: row.get(3)?,
        kind: Kind::new(row.get::<_, String>(4)?)?,
        args: JsonText::null(),
        metadata: JsonText::null(),
        priority: row.get(5)?,
        timeout_ms: row.get::<_, Option<i64>>(6)?.map(uint),
        lease_until,
    };
    // An UPDATE that gives rows is done only when it was read to its end.
    if rows.next()?.is_some() {
        return Err(Fault::unreadable("two steps in one place"));
    }
    let mut payload =
        tx.conn.prepare_cached("SELECT args, metadata FROM fleet_payloads WHERE seq = ?1")?;
    (claim.args, claim.metadata) = payload.query_row([seq], |row| {
        let json =
            |index| Ok::<_, rusqlite::Error>(JsonText::from_store(row.get_ref(index)?.as_str()?));
        Ok((json(0)?, json(1)?))
    })?;
    Ok(Some(claim))
}

/// Goes on holding one claim.
pub(super) fn renew(tx: &Tx<'_>, lease_ms: u64, renewal: &Renewal) -> Result<Renewed, Fault> {
    let lease_until = StoreTime(tx.at.0 + lease_ms);
    let mut renew = tx.conn.prepare_cached(
        "UPDATE fleet_steps SET lease_until = ?3, progress = coalesce(?4, progress)
         WHERE id = ?1 AND token = ?2 AND state = 2
         RETURNING cancel_asked",
    )?;
    let cancel_asked = renew
        .query_row(
            params![
                super::rows::id_text(&renewal.key.id),
                token_bytes(&renewal.key.token),
                int(lease_until.0),
                renewal.progress.as_ref().map(JsonText::as_str),
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(match cancel_asked {
        Some(cancel_asked) => Renewed::Held { lease_until, cancel_asked },
        None => Renewed::Fenced,
    })
}
