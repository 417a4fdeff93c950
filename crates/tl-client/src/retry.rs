//! When to try again: waits that double up to a ceiling, jitter, and a bound given by the caller.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ClientError;

/// Longest time spent on one write when the caller names no other bound.
pub const RETRY_DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// Longest wait that a server may ask for; a longer `Retry-After` is cut to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Part of a deadline that one attempt may use up.
const ATTEMPT_SHARE: f64 = 0.4;

/// Waits of `first · 2^n`, at most `max`, each moved by up to `± jitter_ratio`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
    /// How far a wait may be moved, as a part of it (0 to 1).
    pub jitter_ratio: f64,
}

impl Backoff {
    /// For writes: 250 ms doubling to 5 s.
    pub const WRITE: Backoff = Backoff {
        first: Duration::from_millis(250),
        max: Duration::from_secs(5),
        jitter_ratio: 0.2,
    };
    /// For tails: 500 ms doubling to 15 s.
    pub const TAIL: Backoff = Backoff {
        first: Duration::from_millis(500),
        max: Duration::from_secs(15),
        jitter_ratio: 0.2,
    };

    /// The wait after failure number `failures` (from 1); `random` lies in `0..1`.
    #[must_use]
    pub fn wait(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let plain = self.first.saturating_mul(1 << doublings).min(self.max);
        plain.mul_f64(1.0 + self.jitter_ratio.clamp(0.0, 1.0) * (2.0 * random - 1.0))
    }
}

/// How long and how often a write is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Most attempts; `None` leaves it to the deadline.
    pub attempts_max: Option<u32>,
    /// Longest time for all attempts; `None` leaves it to the attempts.
    pub deadline: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            backoff: Backoff::WRITE,
            attempts_max: None,
            deadline: Some(RETRY_DEADLINE_DEFAULT),
        }
    }
}

impl RetryPolicy {
    /// One attempt only.
    #[must_use]
    pub fn once() -> Self {
        RetryPolicy { attempts_max: Some(1), ..RetryPolicy::default() }
    }

    /// As often as it takes: whoever waits bounds it by dropping the future.
    #[must_use]
    pub fn until_dropped(backoff: Backoff) -> Self {
        RetryPolicy { backoff, attempts_max: None, deadline: None }
    }

    /// The same policy with an end no later than `most`.
    #[must_use]
    pub fn within(self, most: Duration) -> RetryPolicy {
        RetryPolicy { deadline: Some(self.deadline.map_or(most, |own| own.min(most))), ..self }
    }

    /// Longest wait for the answer to one attempt: `most`, or so much less that a peer which takes
    /// the first attempt and hangs leaves time for another one.
    #[must_use]
    pub fn attempt_within(&self, most: Duration) -> Duration {
        let share = |deadline: Duration| deadline.mul_f64(ATTEMPT_SHARE);
        match (self.attempts_max, self.deadline) {
            (Some(1), _) | (_, None) => most,
            (_, Some(deadline)) => most.min(share(deadline)),
        }
    }

    /// Starts counting attempts and time.
    #[must_use]
    pub fn start(&self) -> Attempts {
        Attempts { policy: *self, started: Instant::now(), failures: 0, open: None }
    }
}

/// The attempts of one request.
#[derive(Debug)]
pub struct Attempts {
    policy: RetryPolicy,
    started: Instant,
    failures: u32,
    /// The last failure that leaves open whether the request took effect: a later one that is sure
    /// of itself says nothing about that.
    open: Option<Box<ClientError>>,
}

impl Attempts {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure itself when it is not one to retry; [`ClientError::GaveUp`] around it when the
    /// policy allows no further attempt.
    pub async fn again(&mut self, failure: ClientError) -> Result<(), ClientError> {
        if !failure.is_retryable() {
            return Err(failure);
        }
        self.failures += 1;
        let backoff = self.policy.backoff.wait(self.failures, fastrand::f64());
        let asked = failure.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
        let wait = backoff.max(asked);
        let elapsed = self.started.elapsed();
        let attempts_used = self.policy.attempts_max.is_some_and(|max| self.failures >= max);
        let time_used = self.policy.deadline.is_some_and(|most| elapsed + wait > most);
        if attempts_used && self.failures == 1 {
            return Err(failure);
        }
        let last = Box::new(failure);
        if attempts_used || time_used {
            let last = if last.changed_nothing() { self.open.take().unwrap_or(last) } else { last };
            return Err(ClientError::GaveUp { attempts: self.failures, elapsed, last });
        }
        if !last.changed_nothing() {
            self.open = Some(last);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_leaves_time_for_another_one() {
        let most = Duration::from_secs(30);
        let policy = |seconds| RetryPolicy::default().within(Duration::from_secs(seconds));
        assert_eq!(policy(20).attempt_within(most), Duration::from_secs(8));
        assert_eq!(policy(60).attempt_within(most), Duration::from_secs(24));
        assert_eq!(policy(600).deadline, Some(RETRY_DEADLINE_DEFAULT), "never later than it was");
        assert_eq!(RetryPolicy::once().attempt_within(most), most);
        assert_eq!(RetryPolicy::until_dropped(Backoff::WRITE).attempt_within(most), most);
    }

    #[test]
    fn waits_double_up_to_the_ceiling() {
        let waits: Vec<u128> = (1..=7).map(|n| Backoff::WRITE.wait(n, 0.5).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(Backoff::TAIL.wait(u32::MAX, 0.5).as_millis(), 15_000);
    }

    #[test]
    fn jitter_moves_a_wait_by_a_fifth_at_most() {
        assert_eq!(Backoff::TAIL.wait(1, 0.0).as_millis(), 400);
        assert_eq!(Backoff::TAIL.wait(1, 1.0).as_millis(), 600);
    }

    fn refused(status: u16, wait_s: Option<u64>) -> ClientError {
        crate::Refusal::from_reply(status, wait_s.map(Duration::from_secs), b"{}").into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_wait_asked_for_by_the_server_is_honoured() {
        let mut attempts = RetryPolicy::default().start();
        attempts.again(refused(503, Some(7))).await.expect("goes on");
        assert_eq!(attempts.started.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_and_the_attempt_limit_end_it() {
        let deadline = Some(Duration::from_secs(3));
        let mut attempts = RetryPolicy { deadline, ..RetryPolicy::default() }.start();
        let mut given_up = None;
        for _ in 0..10 {
            if let Err(end) = attempts.again(refused(503, None)).await {
                given_up = Some(end);
                break;
            }
        }
        // 250 + 500 + 1000 ms fit into 3 s, another 2000 ms do not.
        assert!(matches!(given_up, Some(ClientError::GaveUp { attempts: 4, .. })));
        assert!(attempts.started.elapsed() < Duration::from_secs(3));

        let policy = RetryPolicy { attempts_max: Some(2), ..RetryPolicy::default() };
        let mut attempts = policy.start();
        attempts.again(refused(429, None)).await.expect("one more");
        let end = attempts.again(refused(429, None)).await.err();
        assert_eq!(end.as_ref().and_then(ClientError::code), Some("http_429"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_refusal_comes_through_as_it_is() {
        let mut attempts = RetryPolicy::default().start();
        let end = attempts.again(refused(409, None)).await.err();
        assert!(matches!(end, Some(ClientError::Refused(refusal)) if refusal.status == 409));
    }
}
