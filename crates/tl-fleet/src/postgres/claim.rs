//! Steps go out to who asks for them.

use tokio_postgres::types::ToSql;

use super::fault::{Call, done_but};
use super::finish::finish;
use super::lane::{Freight, Weight};
use super::pool::Pool;
use super::rows::{self, get, int, small, timed, uint};
use crate::claim::{Claim, ClaimKey, ClaimRequest, Claimant, Finish, Outcome};
use crate::error::StoreError;
use crate::ids::{Attempt, ClaimToken, StepId};
use crate::limits::{BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX, PROMOTE_MAX};
use crate::step::Kind;
use crate::time::{StoreTime, Timed};

pub(super) const CLAIM: &str = "SELECT * FROM @fleet_claim_many($1, $2, $3, $4, $5, $6, $7)";

/// Claims as they share statements.
#[derive(Debug)]
pub(super) struct Claims;

impl Freight for Claims {
    type Ask = ClaimRequest;
    type Reply = Vec<Claim>;

    fn weight(ask: &ClaimRequest) -> Weight {
        Weight { items: ask.steps_max, bytes: 0 }
    }

    fn may_join(group: &[ClaimRequest], next: &ClaimRequest) -> bool {
        group.first().is_none_or(|first| may_share(first, next))
    }

    async fn run(pool: &Pool, asks: &[ClaimRequest]) -> Result<Timed<Vec<Vec<Claim>>>, StoreError> {
        claim(pool, &asks.iter().collect::<Vec<_>>()).await
    }

    async fn undo(pool: &Pool, claims: Vec<Claim>) {
        give_back(pool, claims).await;
    }
}

/// Workers who can run the same may share. The life of a pod is looked at for the pod alone.
pub(super) fn may_share(first: &ClaimRequest, next: &ClaimRequest) -> bool {
    is_worker(first)
        && is_worker(next)
        && first.lease_ms == next.lease_ms
        && first.kinds == next.kinds
}

pub(super) fn is_worker(ask: &ClaimRequest) -> bool {
    matches!(ask.claimant, Claimant::Worker(_))
}

/// Steps claimed for somebody who has gone are given back, rather than held until their lease is
/// over.
pub(super) async fn give_back(pool: &Pool, claims: Vec<Claim>) {
    let release = |claim: &Claim| Finish { key: claim.key, outcome: Outcome::Released };
    let releases: Vec<Finish> = claims.iter().map(release).collect();
    if !releases.is_empty() {
        // Where this fails the lease ends it.
        drop(finish(pool, &releases.iter().collect::<Vec<_>>()).await);
    }
}

pub(super) async fn claim(
    pool: &Pool,
    asks: &[&ClaimRequest],
) -> Result<Timed<Vec<Vec<Claim>>>, StoreError> {
    let arrays = ClaimArrays::new(asks);
    let found = pool.rows(Call::Write, CLAIM, &arrays.params()).await?;
    // What was claimed for the others must not be claimed once more for them.
    let is_shared = asks.len() > 1;
    arrays.shares(&found).map_err(|error| if is_shared { done_but(error) } else { error })
}

/// The columns of claims that share a statement.
pub(super) struct ClaimArrays<'a> {
    owners: Vec<&'a str>,
    takes: Vec<i32>,
    life: Option<i64>,
    kinds: Vec<&'a str>,
    lease_ms: i64,
    promote_max: i32,
    bytes_before_last: i64,
}

impl<'a> ClaimArrays<'a> {
    /// At least one; all but the first are of workers, for the same kinds and as long.
    pub(super) fn new(asks: &[&'a ClaimRequest]) -> ClaimArrays<'a> {
        let first = asks[0];
        ClaimArrays {
            owners: asks.iter().map(|ask| ask.claimant.name().as_str()).collect(),
            takes: asks.iter().map(|ask| small(ask.steps_max)).collect(),
            life: match &first.claimant {
                Claimant::Pod(life) => Some(int(life.incarnation.0)),
                Claimant::Worker(_) => None,
            },
            kinds: first.kinds.iter().map(Kind::as_str).collect(),
            lease_ms: int(first.lease_ms),
            promote_max: small(PROMOTE_MAX),
            bytes_before_last: int((BATCH_BYTES_MAX - PAYLOAD_BYTES_MAX) as u64),
        }
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 7] {
        [
            &self.owners,
            &self.takes,
            &self.life,
            &self.kinds,
            &self.lease_ms,
            &self.promote_max,
            &self.bytes_before_last,
        ]
    }

    /// What each gets, most urgent first.
    pub(super) fn shares(
        &self,
        found: &[tokio_postgres::Row],
    ) -> Result<Timed<Vec<Vec<Claim>>>, StoreError> {
        let answer = timed(found, ())?;
        let mut claims = Vec::with_capacity(found.len() - 1);
        for row in &found[1..] {
            claims.push((get::<i64>(row, 12)?, a_claim(row)?));
        }
        claims.sort_unstable_by_key(|(turn, _)| *turn);
        let mut claims = claims.into_iter().peekable();
        let mut last_turn = 0;
        let mut shares = Vec::with_capacity(self.takes.len());
        for take in &self.takes {
            last_turn += i64::from(*take);
            let mut share = Vec::new();
            while let Some((_, claim)) = claims.next_if(|(turn, _)| *turn <= last_turn) {
                share.push(claim);
            }
            shares.push(share);
        }
        Ok(answer.map(|()| shares))
    }
}

fn a_claim(row: &tokio_postgres::Row) -> Result<Claim, StoreError> {
    Ok(Claim {
        key: ClaimKey { id: StepId(get(row, 1)?), token: ClaimToken(get(row, 2)?) },
        attempt: Attempt(uint(get(row, 3)?)),
        charged: rows::count(get(row, 4)?),
        attempts_max: rows::count(get(row, 5)?),
        kind: rows::kind(row, 6)?,
        priority: get(row, 7)?,
        timeout_ms: get::<Option<i64>>(row, 8)?.map(uint),
        lease_until: StoreTime(uint(get(row, 9)?)),
        args: rows::json(row, 10)?,
        metadata: rows::json(row, 11)?,
    })
}
