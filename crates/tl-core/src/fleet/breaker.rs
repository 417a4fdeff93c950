//! A guard on calls to a database that may be away.
//!
//! ```text
//!   closed ──5 failures in a row, or half of 20 calls──> open ──its time is over──┐
//!     ^                                                   ^                       v
//!     └───────────────── success ──────────────── half-open: one probe <──────────┘
//!                                                         └── failure: open, twice as long
//! ```

/// When it opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub failures_in_row: u32,
    /// Calls that are looked back on, at most 64; it opens when half of them failed.
    pub window: u32,
    /// How long it is open at first, before jitter, milliseconds.
    pub open_ms: u64,
    /// How long at most, jitter included.
    pub open_ms_max: u64,
}

impl Default for BreakerSettings {
    fn default() -> BreakerSettings {
        BreakerSettings { failures_in_row: 5, window: 20, open_ms: 1_000, open_ms_max: 30_000 }
    }
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused until then.
    Open {
        /// Milliseconds of the monotonic clock.
        until_ms: u64,
    },
    /// One call is on its way to see whether the database is back; others are refused.
    HalfOpen,
}

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Pass,
    /// Yes, as the one probe; its outcome must be reported, also that there is none.
    Probe,
    /// No; ask again after this many milliseconds.
    Wait {
        /// At least one.
        after_ms: u64,
    },
}

/// The guard itself.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    state: BreakerState,
    in_row: u32,
    /// The last calls, newest in the lowest bit, 1 for a failure.
    recent: u64,
    seen: u32,
    /// How often it has opened without closing in between.
    opened: u32,
    probe_sent_ms: u64,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Breaker {
        let state = BreakerState::Closed;
        Breaker { settings, state, in_row: 0, recent: 0, seen: 0, opened: 0, probe_sent_ms: 0 }
    }

    /// What it is now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// May a call go at `now_ms`?
    pub fn admit(&mut self, now_ms: u64) -> Admission {
        match self.state {
            BreakerState::Closed => Admission::Pass,
            BreakerState::Open { until_ms } if now_ms < until_ms => {
                Admission::Wait { after_ms: until_ms - now_ms }
            }
            BreakerState::Open { .. } => self.probe(now_ms),
            BreakerState::HalfOpen => {
                // A probe whose outcome never came must not lock the door for ever.
                let waited_ms = now_ms.saturating_sub(self.probe_sent_ms);
                if waited_ms >= self.settings.open_ms_max {
                    return self.probe(now_ms);
                }
                Admission::Wait { after_ms: self.settings.open_ms_max - waited_ms }
            }
        }
    }

    /// A call was answered.
    pub fn succeeded(&mut self) {
        match self.state {
            BreakerState::Closed => {
                self.in_row = 0;
                self.note(false);
            }
            // Also a late answer to a call from before: the database is there.
            BreakerState::Open { .. } | BreakerState::HalfOpen => {
                *self = Breaker::new(self.settings);
            }
        }
    }

    /// A call failed because of the database. `jitter` is drawn from 0 up to 1.
    pub fn failed(&mut self, now_ms: u64, jitter: f64) {
        match self.state {
            BreakerState::Closed => {
                self.in_row += 1;
                self.note(true);
                let half = self.seen >= self.settings.window
                    && self.recent.count_ones() * 2 >= self.settings.window;
                if self.in_row >= self.settings.failures_in_row || half {
                    self.open(now_ms, jitter);
                }
            }
            BreakerState::HalfOpen => self.open(now_ms, jitter),
            // Calls from before it opened; they tell nothing new.
            BreakerState::Open { .. } => {}
        }
    }

    /// The caller of the probe that was admitted at `sent_ms` went away, or what it asked says
    /// nothing of the database: the next call is the probe.
    pub fn abandoned(&mut self, sent_ms: u64, now_ms: u64) {
        if self.state == BreakerState::HalfOpen && self.probe_sent_ms == sent_ms {
            self.state = BreakerState::Open { until_ms: now_ms };
        }
    }

    fn probe(&mut self, now_ms: u64) -> Admission {
        self.state = BreakerState::HalfOpen;
        self.probe_sent_ms = now_ms;
        Admission::Probe
    }

    fn note(&mut self, failed: bool) {
        let window = self.settings.window.clamp(1, 64);
        let mask = u64::MAX >> (64 - window);
        self.recent = (self.recent << 1 | u64::from(failed)) & mask;
        self.seen = (self.seen + 1).min(window);
    }

    fn open(&mut self, now_ms: u64, jitter: f64) {
        self.opened = self.opened.saturating_add(1);
        let backoff =
            super::Backoff { base_ms: self.settings.open_ms, max_ms: self.settings.open_ms_max };
        let open_ms = super::retry_delay_ms(backoff, self.opened, jitter).max(1);
        self.state = BreakerState::Open { until_ms: now_ms.saturating_add(open_ms) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings::default())
    }

    fn opened() -> Breaker {
        let mut breaker = breaker();
        for _ in 0..5 {
            breaker.failed(0, 0.5);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let mut breaker = breaker();
        for _ in 0..4 {
            breaker.failed(0, 0.5);
        }
        assert_eq!(breaker.admit(0), Admission::Pass);
        breaker.failed(0, 0.5);
        assert_eq!(breaker.admit(0), Admission::Wait { after_ms: 1_000 });
    }

    #[test]
    fn half_of_the_last_twenty_open_it() {
        let mut breaker = breaker();
        for _ in 0..9 {
            breaker.succeeded();
            breaker.failed(0, 0.5);
        }
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker.failed(0, 0.5);
        assert_eq!(breaker.state(), BreakerState::Open { until_ms: 1_000 });
    }

    #[test]
    fn one_probe_goes_and_the_rest_waits_for_it() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(1_000), Admission::Probe);
        assert!(matches!(breaker.admit(1_000), Admission::Wait { .. }));
        breaker.succeeded();
        assert_eq!(breaker.admit(1_001), Admission::Pass);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_the_maximum() {
        let mut breaker = opened();
        let mut waits = Vec::new();
        let mut now_ms = 1_000;
        for _ in 0..7 {
            assert_eq!(breaker.admit(now_ms), Admission::Probe);
            breaker.failed(now_ms, 0.5);
            let Admission::Wait { after_ms } = breaker.admit(now_ms) else { panic!("open") };
            waits.push(after_ms);
            now_ms += after_ms;
        }
        assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn a_probe_that_never_reports_does_not_lock_the_door() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(1_000), Admission::Probe);
        assert_eq!(breaker.admit(30_999), Admission::Wait { after_ms: 1 });
        assert_eq!(breaker.admit(31_000), Admission::Probe);
    }

    #[test]
    fn a_probe_whose_caller_went_away_makes_room_for_the_next_at_once() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(1_000), Admission::Probe);
        breaker.abandoned(1_000, 1_001);
        assert_eq!(breaker.admit(1_001), Admission::Probe);
        // Of a probe that was overtaken nothing follows, nor of any call once it is closed.
        breaker.abandoned(1_000, 1_002);
        assert!(matches!(breaker.admit(1_002), Admission::Wait { .. }));
        breaker.succeeded();
        breaker.abandoned(1_001, 1_003);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    proptest! {
        #[test]
        fn it_is_never_shut_for_longer_than_the_maximum(
            calls in prop::collection::vec((0_u64..5_000, any::<bool>(), 0.0_f64..1.0), 1..300),
        ) {
            let (mut breaker, mut now_ms) = (breaker(), 0);
            for (later_ms, fails, jitter) in calls {
                now_ms += later_ms;
                match breaker.admit(now_ms) {
                    Admission::Wait { after_ms } => prop_assert!((1..=30_000).contains(&after_ms)),
                    Admission::Pass | Admission::Probe if fails => breaker.failed(now_ms, jitter),
                    Admission::Pass | Admission::Probe => breaker.succeeded(),
                }
            }
        }
    }
}
