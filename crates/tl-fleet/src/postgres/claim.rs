//! Steps go out to who asks for them.

use super::fault::Call;
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

const CLAIM: &str = "SELECT * FROM @fleet_claim_many($1, $2, $3, $4, $5, $6, $7)";

/// Claims as they share statements.
#[derive(Debug)]
pub(super) struct Claims;

impl Freight for Claims {
    type Ask = ClaimRequest;
    type Reply = Vec<Claim>;

    fn weight(ask: &ClaimRequest) -> Weight {
        Weight { items: ask.steps_max, bytes: 0 }
    }

    /// Workers who can run the same. The life of a pod is looked at for the pod alone.
    fn may_share(first: &ClaimRequest, next: &ClaimRequest) -> bool {
        let is_worker = |ask: &ClaimRequest| matches!(ask.claimant, Claimant::Worker(_));
        is_worker(first)
            && is_worker(next)
            && first.lease_ms == next.lease_ms
            && first.kinds == next.kinds
    }

    async fn run(pool: &Pool, asks: &[ClaimRequest]) -> Result<Timed<Vec<Vec<Claim>>>, StoreError> {
        claim(pool, asks).await
    }

    /// Steps claimed for somebody who has gone are given back, rather than held until their lease
    /// is over.
    async fn undo(pool: &Pool, claims: Vec<Claim>) {
        let release = |claim: &Claim| Finish { key: claim.key, outcome: Outcome::Released };
        let releases: Vec<Finish> = claims.iter().map(release).collect();
        if !releases.is_empty() {
            // Where this fails the lease ends it.
            drop(finish(pool, &releases.iter().collect::<Vec<_>>()).await);
        }
    }
}

/// All asks but the first are of workers, for the same kinds and as long.
async fn claim(pool: &Pool, asks: &[ClaimRequest]) -> Result<Timed<Vec<Vec<Claim>>>, StoreError> {
    let first = &asks[0];
    let life = match &first.claimant {
        Claimant::Pod(life) => Some(int(life.incarnation.0)),
        Claimant::Worker(_) => None,
    };
    let owners: Vec<&str> = asks.iter().map(|ask| ask.claimant.name().as_str()).collect();
    let takes: Vec<i32> = asks.iter().map(|ask| small(ask.steps_max)).collect();
    let kinds: Vec<&str> = first.kinds.iter().map(Kind::as_str).collect();
    let room = int((BATCH_BYTES_MAX - PAYLOAD_BYTES_MAX) as u64);
    let (lease_ms, promote_max) = (int(first.lease_ms), small(PROMOTE_MAX));
    let found = pool
        .rows(Call::Write, CLAIM, &[&owners, &takes, &life, &kinds, &lease_ms, &promote_max, &room])
        .await?;
    let answer = timed(&found, ())?;
    let mut claims = Vec::with_capacity(found.len() - 1);
    for row in &found[1..] {
        let turn: i64 = get(row, 12)?;
        let claim = Claim {
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
        };
        claims.push((turn, claim));
    }
    claims.sort_unstable_by_key(|(turn, _)| *turn);
    let mut claims = claims.into_iter().peekable();
    let mut last_turn = 0;
    let mut shares = Vec::with_capacity(asks.len());
    for ask in asks {
        last_turn += i64::from(small(ask.steps_max));
        let mut share = Vec::new();
        while let Some((_, claim)) = claims.next_if(|(turn, _)| *turn <= last_turn) {
            share.push(claim);
        }
        shares.push(share);
    }
    Ok(answer.map(|()| shares))
}
