//! Pods live and die, one of them leads, and the leader clears up.

use std::collections::HashSet;

use super::fault::{Call, unreadable};
use super::pool::Pool;
use super::rows::{self, get, int, small, timed, uint};
use crate::error::StoreError;
use crate::ids::{Epoch, Incarnation, PodId, PodLife};
use crate::json::JsonText;
use crate::pods::{
    Beat, DrainAsked, Heartbeat, Leader, LeaderWrite, Leadership, Pod, PodInfo, ReapedPod,
    Registered,
};
use crate::recover::{Forgotten, Retention};
use crate::time::{StoreTime, Timed};

/// The number of a life is also larger than the clock: after a restore from an older copy none
/// is given out that a pod bears which the copy does not know.
const REGISTER: &str = "
    WITH clock AS MATERIALIZED (SELECT @fleet_clock() AS now),
    life AS (
      UPDATE @fleet_lives AS l SET incarnation = greatest(l.incarnation + 1, clock.now) FROM clock
      RETURNING l.incarnation)
    INSERT INTO @fleet_pods AS p (pod, incarnation, birth, heartbeat, lease_until, state, draining,
        capacity, running, prefetched, kinds, meta)
      SELECT $1, life.incarnation, clock.now, clock.now, clock.now + $2, 0, false, $3, 0, 0, $4, $5
      FROM clock, life
    ON CONFLICT (pod) DO UPDATE SET
      incarnation = excluded.incarnation, birth = excluded.birth, heartbeat = excluded.heartbeat,
      lease_until = excluded.lease_until, state = 0, draining = false,
      capacity = excluded.capacity, running = 0, prefetched = 0, kinds = excluded.kinds,
      meta = excluded.meta, drain_asked = false
    RETURNING p.birth, p.incarnation, p.lease_until";

pub(super) async fn register(
    pool: &Pool,
    info: &PodInfo,
    lease_ms: u64,
) -> Result<Timed<Registered>, StoreError> {
    let kinds: Vec<&str> = info.kinds.iter().map(crate::step::Kind::as_str).collect();
    let found = pool
        .rows(
            Call::Write,
            REGISTER,
            &[
                &info.pod.as_str(),
                &int(lease_ms),
                &i64::from(info.capacity),
                &kinds,
                &info.meta.as_str(),
            ],
        )
        .await?;
    let answer = timed(&found, ())?;
    let registered = Registered {
        incarnation: Incarnation(uint(get(&found[0], 1)?)),
        birth: answer.at,
        lease_until: StoreTime(uint(get(&found[0], 2)?)),
    };
    Ok(answer.map(|()| registered))
}

const HEARTBEAT: &str = "
    WITH clock AS MATERIALIZED (SELECT @fleet_clock() AS now),
    beat AS (
      UPDATE @fleet_pods AS p
      SET lease_until = clock.now + $3, heartbeat = clock.now, running = $4, prefetched = $5,
          draining = $6, meta = coalesce($7, p.meta)
      FROM clock
      WHERE p.pod = $1 AND p.incarnation = $2 AND p.state = 0 AND p.lease_until > clock.now
      RETURNING p.lease_until, p.drain_asked)
    SELECT clock.now, beat.lease_until, beat.drain_asked FROM clock LEFT JOIN beat ON true";

pub(super) async fn heartbeat(pool: &Pool, beat: &Heartbeat) -> Result<Timed<Beat>, StoreError> {
    let found = pool
        .rows(
            Call::Write,
            HEARTBEAT,
            &[
                &beat.life.pod.as_str(),
                &int(beat.life.incarnation.0),
                &int(beat.lease_ms),
                &i64::from(beat.running),
                &i64::from(beat.prefetched),
                &beat.draining,
                &beat.meta.as_ref().map(JsonText::as_str),
            ],
        )
        .await?;
    let answer = timed(&found, ())?;
    let lease_until: Option<i64> = get(&found[0], 1)?;
    let drain_asked: Option<bool> = get(&found[0], 2)?;
    Ok(answer.map(|()| match (lease_until, drain_asked) {
        (Some(until), Some(drain_asked)) => {
            Beat::Alive { lease_until: StoreTime(uint(until)), drain_asked }
        }
        _ => Beat::Reaped,
    }))
}

const ASK_DRAIN: &str = "
    WITH clock AS MATERIALIZED (SELECT @fleet_clock() AS now),
    asked AS (
      UPDATE @fleet_pods AS p SET drain_asked = true FROM clock
      WHERE p.pod = ANY ($1) AND p.state = 0 AND p.lease_until > clock.now
      RETURNING p.pod)
    SELECT clock.now, asked.pod FROM clock LEFT JOIN asked ON true";

pub(super) async fn ask_drain(
    pool: &Pool,
    pods: &[PodId],
) -> Result<Timed<Vec<DrainAsked>>, StoreError> {
    let names: Vec<&str> = pods.iter().map(PodId::as_str).collect();
    let found = pool.rows(Call::Write, ASK_DRAIN, &[&names]).await?;
    let mut asked = HashSet::new();
    for row in &found {
        asked.extend(get::<Option<String>>(row, 1)?);
    }
    let one = |pod: &PodId| match asked.contains(pod.as_str()) {
        true => DrainAsked::Asked,
        false => DrainAsked::NotUp,
    };
    timed(&found, pods.iter().map(one).collect())
}

const LEAVE: &str = "
    WITH clock AS MATERIALIZED (SELECT @fleet_clock() AS now),
    gone AS (
      UPDATE @fleet_pods AS p SET state = 1, heartbeat = clock.now FROM clock
      WHERE p.pod = $1 AND p.incarnation = $2 AND p.state = 0),
    free AS (
      UPDATE @fleet_leader AS l SET lease_until = least(l.lease_until, clock.now) FROM clock
      WHERE l.pod = $1 AND l.incarnation = $2)
    SELECT clock.now FROM clock";

pub(super) async fn leave(pool: &Pool, life: &PodLife) -> Result<Timed<()>, StoreError> {
    let incarnation = int(life.incarnation.0);
    let found = pool.rows(Call::Write, LEAVE, &[&life.pod.as_str(), &incarnation]).await?;
    timed(&found, ())
}

const PODS: &str = "
    SELECT clock.now, p.* FROM (SELECT @fleet_clock() AS now) AS clock LEFT JOIN (
      SELECT pod, incarnation, birth, heartbeat, lease_until, state, draining, capacity, running,
             prefetched, kinds, meta
      FROM @fleet_pods
      ORDER BY state = 0 AND lease_until > @fleet_clock() DESC, birth DESC, pod LIMIT $1) AS p ON true
    ORDER BY p.birth, p.pod COLLATE \"C\"";

pub(super) async fn pods(pool: &Pool) -> Result<Timed<Vec<Pod>>, StoreError> {
    let limit = i64::from(small(crate::limits::PODS_MAX));
    let found = pool.rows(Call::Read, PODS, &[&limit]).await?;
    let mut pods = Vec::new();
    for row in &found {
        if get::<Option<&str>>(row, 1)?.is_some() {
            pods.push(rows::pod(row)?);
        }
    }
    timed(&found, pods)
}

fn a_leader(row: &tokio_postgres::Row, first: usize) -> Result<Leader, StoreError> {
    Ok(Leader {
        life: rows::life(row, first, first + 1)?,
        epoch: Epoch(uint(get(row, first + 2)?)),
        lease_until: StoreTime(uint(get(row, first + 3)?)),
    })
}

const LEADER: &str = "
    SELECT clock.now, l.pod, l.incarnation, l.epoch, l.lease_until
    FROM (SELECT @fleet_clock() AS now) AS clock LEFT JOIN @fleet_leader AS l ON l.epoch > 0";

pub(super) async fn leader(pool: &Pool) -> Result<Timed<Option<Leader>>, StoreError> {
    let found = pool.rows(Call::Read, LEADER, &[]).await?;
    let answer = timed(&found, ())?;
    let leader = match get::<Option<&str>>(&found[0], 1)? {
        Some(_) => Some(a_leader(&found[0], 1)?),
        None => None,
    };
    Ok(answer.map(|()| leader))
}

pub(super) async fn lead(
    pool: &Pool,
    life: &PodLife,
    lease_ms: u64,
) -> Result<Timed<Leadership>, StoreError> {
    let (incarnation, lease_ms) = (int(life.incarnation.0), int(lease_ms));
    let sql = "SELECT * FROM @fleet_lead($1, $2, $3)";
    let found = pool.rows(Call::Write, sql, &[&life.pod.as_str(), &incarnation, &lease_ms]).await?;
    let answer = timed(&found, ())?;
    let (led, leader) = (get::<bool>(&found[0], 1)?, a_leader(&found[0], 2)?);
    Ok(answer.map(|()| match led {
        true => Leadership::Led { epoch: leader.epoch, lease_until: leader.lease_until },
        false => Leadership::Other(leader),
    }))
}

pub(super) async fn reap(
    pool: &Pool,
    epoch: Epoch,
    pods_max: usize,
) -> Result<Timed<LeaderWrite<Vec<ReapedPod>>>, StoreError> {
    let sql = "SELECT * FROM @fleet_reap($1, $2)";
    let found = pool.rows(Call::Write, sql, &[&int(epoch.0), &small(pods_max)]).await?;
    let answer = timed(&found, ())?;
    if !get::<bool>(&found[0], 1)? {
        return Ok(answer.map(|()| LeaderWrite::Deposed));
    }
    let mut reaped = Vec::new();
    for row in &found[1..] {
        let lease_until = StoreTime(uint(get(row, 4)?));
        reaped.push(ReapedPod { life: rows::life(row, 2, 3)?, lease_until });
    }
    Ok(answer.map(|()| LeaderWrite::Done(reaped)))
}

pub(super) async fn retain(
    pool: &Pool,
    epoch: Epoch,
    keep: &Retention,
) -> Result<Timed<LeaderWrite<Forgotten>>, StoreError> {
    let found = pool
        .rows(
            Call::Write,
            "SELECT * FROM @fleet_retain($1, $2, $3, $4, $5)",
            &[
                &int(epoch.0),
                &int(keep.finished_ms),
                &int(keep.dead_ms),
                &int(keep.pods_ms),
                &small(keep.steps_max),
            ],
        )
        .await?;
    let answer = timed(&found, ())?;
    let row = found.first().ok_or_else(|| unreadable("an answer of retention"))?;
    let forgotten =
        Forgotten { steps: uint(get(row, 2)?), pods: uint(get(row, 3)?), more: get(row, 4)? };
    let leads: bool = get(row, 1)?;
    Ok(answer.map(|()| if leads { LeaderWrite::Done(forgotten) } else { LeaderWrite::Deposed }))
}
