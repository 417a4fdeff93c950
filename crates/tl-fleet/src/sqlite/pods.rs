//! Pods live and die, and one of them leads.

use rusqlite::{OptionalExtension, params};
use tl_core::fleet::{Asker, Lead, LeadRow, lead as decide};

use super::fault::Fault;
use super::rows::{self, POD_COLUMNS, int, uint};
use super::worker::{Done, Tx};
use crate::error::StoreError;
use crate::ids::{Epoch, Incarnation, PodId, PodLife};
use crate::json::JsonText;
use crate::limits::PODS_MAX;
use crate::pods::{
    Beat, DrainAsked, Heartbeat, Leader, LeaderWrite, Leadership, Pod, PodInfo, ReapedPod,
    Registered,
};
use crate::time::StoreTime;

/// Whether a life goes on: its row stands, is up, and its lease has not run out.
pub(super) fn is_alive(tx: &Tx<'_>, life: &PodLife) -> Result<bool, Fault> {
    let mut found = tx.conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM fleet_pods
                        WHERE pod = ?1 AND incarnation = ?2 AND state = 0 AND lease_until > ?3)",
    )?;
    let found = found
        .query_row(params![life.pod.as_str(), int(life.incarnation.0), int(tx.at.0)], |row| {
            row.get(0)
        })?;
    Ok(found)
}

pub(super) fn register(tx: &Tx<'_>, info: &PodInfo, lease_ms: u64) -> Result<Registered, Fault> {
    // Also larger than the calendar's time: after a restore from an older copy no number is
    // given out that a pod bears which the copy does not know.
    let incarnation: i64 = tx.conn.query_row(
        "INSERT INTO fleet_meta (name, value) VALUES ('incarnation', ?1)
         ON CONFLICT (name) DO UPDATE
           SET value = max(CAST(value AS INTEGER) + 1, CAST(excluded.value AS INTEGER))
         RETURNING CAST(value AS INTEGER)",
        [int(tx.wall.0)],
        |row| row.get(0),
    )?;
    let kinds: Vec<&str> = info.kinds.iter().map(crate::step::Kind::as_str).collect();
    let kinds = serde_json::to_string(&kinds).map_err(|_| Fault::unreadable("kinds"))?;
    let lease_until = StoreTime(tx.at.0 + lease_ms);
    tx.conn
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO fleet_pods ({POD_COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?4, ?5, 0, 0, ?6, 0, 0, ?7, ?8)"
        ))?
        .execute(params![
            info.pod.as_str(),
            incarnation,
            int(tx.at.0),
            int(tx.wall.0),
            int(lease_until.0),
            info.capacity,
            kinds,
            info.meta.as_str(),
        ])?;
    Ok(Registered { incarnation: Incarnation(uint(incarnation)), birth: tx.at, lease_until })
}

pub(super) fn heartbeat(tx: &Tx<'_>, beat: &Heartbeat) -> Result<Beat, Fault> {
    let lease_until = StoreTime(tx.at.0 + beat.lease_ms);
    let drain_asked: Option<bool> = tx
        .conn
        .prepare_cached(
            "UPDATE fleet_pods
             SET lease_until = ?4, heartbeat_wall = ?5, running = ?6, prefetched = ?7,
                 draining = ?8, meta = coalesce(?9, meta)
             WHERE pod = ?1 AND incarnation = ?2 AND state = 0 AND lease_until > ?3
             RETURNING drain_asked",
        )?
        .query_row(
            params![
                beat.life.pod.as_str(),
                int(beat.life.incarnation.0),
                int(tx.at.0),
                int(lease_until.0),
                int(tx.wall.0),
                beat.running,
                beat.prefetched,
                beat.draining,
                beat.meta.as_ref().map(JsonText::as_str),
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(match drain_asked {
        Some(drain_asked) => Beat::Alive { lease_until, drain_asked },
        None => Beat::Reaped,
    })
}

pub(super) fn ask_drain(tx: &Tx<'_>, pod: &PodId) -> Result<DrainAsked, Fault> {
    let rows = tx
        .conn
        .prepare_cached(
            "UPDATE fleet_pods SET drain_asked = 1
             WHERE pod = ?1 AND state = 0 AND lease_until > ?2",
        )?
        .execute(params![pod.as_str(), int(tx.at.0)])?;
    Ok(if rows == 1 { DrainAsked::Asked } else { DrainAsked::NotUp })
}

pub(super) fn leave(tx: &Tx<'_>, life: &PodLife) -> Result<(), Fault> {
    tx.conn.execute(
        "UPDATE fleet_pods SET state = 1, heartbeat_wall = ?3
         WHERE pod = ?1 AND incarnation = ?2 AND state = 0",
        params![life.pod.as_str(), int(life.incarnation.0), int(tx.wall.0)],
    )?;
    tx.conn.execute(
        "UPDATE fleet_leader SET lease_until = min(lease_until, ?3)
         WHERE pod = ?1 AND incarnation = ?2",
        params![life.pod.as_str(), int(life.incarnation.0), int(tx.at.0)],
    )?;
    Ok(())
}

pub(super) fn pods(tx: &Tx<'_>) -> Result<Vec<Pod>, Fault> {
    // However many are gone, those that live are among them.
    let mut all = tx.conn.prepare_cached(&format!(
        "SELECT {POD_COLUMNS} FROM fleet_pods
         ORDER BY state = 0 AND lease_until > ?1 DESC, birth DESC, pod LIMIT ?2"
    ))?;
    let mut rows = all.query(params![int(tx.at.0), rows::count(PODS_MAX)])?;
    let mut pods = Vec::new();
    while let Some(row) = rows.next()? {
        pods.push(rows::pod(row)?);
    }
    pods.sort_by(|one, other| (one.birth, &one.life.pod).cmp(&(other.birth, &other.life.pod)));
    Ok(pods)
}

pub(super) fn leader(tx: &Tx<'_>) -> Result<Option<Leader>, Fault> {
    let mut found =
        tx.conn.prepare_cached("SELECT pod, incarnation, epoch, lease_until FROM fleet_leader")?;
    let row = found
        .query_row([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    row.map(|(pod, incarnation, epoch, lease_until)| {
        Ok(Leader {
            life: PodLife { pod: PodId::new(pod)?, incarnation: Incarnation(uint(incarnation)) },
            epoch: Epoch(uint(epoch)),
            lease_until: StoreTime(uint(lease_until)),
        })
    })
    .transpose()
}

pub(super) fn lead(tx: &Tx<'_>, life: &PodLife, lease_ms: u64) -> Done<Leadership> {
    let row = leader(tx)?;
    let asker = Asker { incarnation: life.incarnation.0, alive: is_alive(tx, life)? };
    let held = row.as_ref().map(|leader| LeadRow {
        incarnation: leader.life.incarnation.0,
        epoch: leader.epoch.0,
        lease_until_ms: leader.lease_until.0,
    });
    let epoch = match (decide(held, asker, tx.at.0), row) {
        (Lead::Granted { epoch }, _) => Epoch(epoch),
        (Lead::Other, Some(leader)) => return Ok(Ok(Leadership::Other(leader))),
        (Lead::Other, None) => return Err(Fault::unreadable("fleet_leader")),
        (Lead::Ended, _) => return Ok(Err(StoreError::Reaped)),
    };
    let lease_until = StoreTime(tx.at.0 + lease_ms);
    tx.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO fleet_leader (one, pod, incarnation, epoch, lease_until)
             VALUES (1, ?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            life.pod.as_str(),
            int(life.incarnation.0),
            int(epoch.0),
            int(lease_until.0)
        ])?;
    Ok(Ok(Leadership::Led { epoch, lease_until }))
}

/// Whether this epoch leads now.
pub(super) fn is_current(tx: &Tx<'_>, epoch: Epoch) -> Result<bool, Fault> {
    let mut found = tx.conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM fleet_leader WHERE epoch = ?1 AND lease_until > ?2)",
    )?;
    Ok(found.query_row(params![int(epoch.0), int(tx.at.0)], |row| row.get(0))?)
}

pub(super) fn reap(
    tx: &Tx<'_>,
    epoch: Epoch,
    pods_max: usize,
) -> Done<LeaderWrite<Vec<ReapedPod>>> {
    if !is_current(tx, epoch)? {
        return Ok(Ok(LeaderWrite::Deposed));
    }
    let mut dead = tx.conn.prepare_cached(
        "UPDATE fleet_pods SET state = 1
         WHERE pod IN (SELECT pod FROM fleet_pods WHERE state = 0 AND lease_until <= ?1 LIMIT ?2)
         RETURNING pod, incarnation, lease_until",
    )?;
    let mut rows = dead.query(params![int(tx.at.0), rows::count(pods_max)])?;
    let mut reaped = Vec::new();
    while let Some(row) = rows.next()? {
        reaped.push(ReapedPod {
            life: PodLife {
                pod: PodId::new(row.get::<_, String>(0)?)?,
                incarnation: Incarnation(uint(row.get(1)?)),
            },
            lease_until: StoreTime(uint(row.get(2)?)),
        });
    }
    Ok(Ok(LeaderWrite::Done(reaped)))
}
