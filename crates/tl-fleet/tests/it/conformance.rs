//! What every store must hold, whatever lies under it.
//!
//! Each case is an async function of a [`World`]: a store with nothing in it and a way to let
//! time pass by its clock. `conformance!` makes one test of each case for one kind of world.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tl_fleet::{
    Claim, ClaimKey, ClaimRequest, Claimant, Finish, Finished, JsonText, Kind, NewStep, Outcome,
    PodId, PodInfo, PodLife, RecoverRequest, Recovered, Renewal, Step, StepId, StepState, Store,
};

pub mod claim;
pub mod finish;
pub mod look;
pub mod pods;
pub mod recover;
pub mod submit;

/// A store of its own for one case.
pub trait World: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn Store>;
    /// Lets this much time pass by the store's clock, for leases and for `run_at`.
    fn pass(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The lease that cases claim with.
pub const LEASE_MS: u64 = 30_000;

/// One test per case. `$world` is an async function that makes a world.
#[macro_export]
macro_rules! conformance {
    ($world:path) => {
        $crate::conformance!(@ $world,
            submit: a_submitted_step_is_pending_and_found_as_it_was_given,
            submit: a_repeat_of_a_submission_is_answered_with_the_step_that_stands,
            submit: one_of_many_submitters_with_one_id_wins,
            submit: a_unique_key_is_held_until_forgotten_or_until_finished,
            submit: twins_in_one_batch_are_one_step,
            submit: limits_hold_at_and_one_past,
            submit: text_that_looks_like_sql_is_only_text,
            claim: claims_come_by_priority_then_age,
            claim: waiting_makes_up_for_priority,
            claim: a_step_waits_for_its_time,
            claim: steps_of_other_kinds_stay_pending_and_are_counted,
            claim: claims_made_at_once_share_no_step,
            claim: more_is_asked_for_than_there_is,
            claim: every_claim_has_a_new_token_and_a_larger_attempt,
            claim: a_renewal_keeps_the_lease_and_shows_progress,
            finish: a_result_is_kept_with_its_attempt,
            finish: a_failure_is_tried_again_after_its_wait_until_attempts_are_used_up,
            finish: a_fatal_failure_is_a_dead_letter_at_once,
            finish: a_released_step_is_pending_in_its_place_with_nothing_charged,
            finish: who_has_lost_the_claim_can_do_nothing_to_the_step,
            finish: a_name_is_no_proof,
            finish: a_report_may_come_twice,
            finish: one_fenced_report_does_not_hinder_the_others,
            finish: an_effect_is_noted_once_over_all_attempts,
            finish: effects_of_one_step_have_a_limit,
            finish: calling_off_stops_what_waits_and_asks_what_runs,
            recover: a_lost_lease_is_taken_back_with_one_attempt_charged,
            recover: the_last_retry_really_runs,
            recover: a_step_given_up_is_failed_and_a_dead_letter_at_once,
            recover: steps_are_found_by_their_lease_whatever_became_of_their_pod,
            recover: what_was_reported_before_is_left_alone,
            recover: two_that_recover_at_once_take_each_step_once,
            recover: a_step_that_loses_its_leases_is_poison,
            recover: a_called_off_step_of_a_dead_pod_is_cancelled,
            recover: a_hung_step_is_taken_back_though_its_pod_lives,
            recover: a_dead_letter_is_redriven_with_all_attempts_before_it,
            recover: limits_of_recovery_hold,
            pods: a_life_is_kept_by_heartbeats,
            pods: a_life_whose_lease_ran_out_is_over_and_the_next_is_younger,
            pods: a_name_registered_again_ends_the_earlier_life,
            pods: a_pod_is_told_to_drain_with_its_next_heartbeat,
            pods: one_leads_at_a_time_and_the_epoch_grows,
            pods: who_was_deposed_writes_nothing,
            pods: a_leader_that_leaves_makes_room_at_once,
            pods: the_dead_are_reaped_and_the_living_are_not,
            pods: retention_forgets_what_is_old_and_keeps_the_rest,
            look: pages_hold_every_step_once_newest_first,
            look: filters_let_pass_what_they_say,
            look: counts_say_how_many_stand_where,
            look: unknown_ids_are_answered_and_not_errors,
            look: a_foreign_page_token_is_refused,
            look: a_page_and_a_lookup_have_a_limit_of_bytes,
            look: of_many_attempts_the_newest_are_shown,
            look: a_store_apart_sees_the_same,
            look: who_waits_for_work_is_told,
        );
    };
    (@ $world:path, $($area:ident: $case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                let world = $world().await;
                $crate::conformance::$area::$case(&world).await;
            }
        )*
    };
}

pub fn kind(word: &str) -> Kind {
    Kind::new(word).unwrap()
}

pub fn pod(name: &str) -> PodId {
    PodId::new(name).unwrap()
}

pub fn json(text: &str) -> JsonText {
    JsonText::value("json", text).unwrap()
}

/// A step of kind `work` with its number as argument.
pub fn numbered(number: usize) -> NewStep {
    NewStep { args: json(&format!(r#"{{"n":{number}}}"#)), ..NewStep::new(kind("work")) }
}

pub async fn submit(store: &Arc<dyn Store>, step: NewStep) -> StepId {
    store.submit(vec![step]).await.unwrap().value[0].id
}

/// Steps of kind `work` for a worker of this name.
pub async fn claim_as(store: &Arc<dyn Store>, name: &str, steps_max: usize) -> Vec<Claim> {
    let request = ClaimRequest {
        claimant: Claimant::Worker(pod(name)),
        kinds: vec![kind("work")],
        steps_max,
        lease_ms: LEASE_MS,
    };
    store.claim(request).await.unwrap().value
}

pub async fn claim_one(store: &Arc<dyn Store>) -> Claim {
    let mut claims = claim_as(store, "w", 1).await;
    claims.pop().expect("there is a step to claim")
}

pub async fn finish(store: &Arc<dyn Store>, key: ClaimKey, outcome: Outcome) -> Finished {
    store.finish(vec![Finish { key, outcome }]).await.unwrap().value[0]
}

pub fn completed(text: &str) -> Outcome {
    Outcome::Completed { result: json(text) }
}

pub fn failed(error: &str, retry_in_ms: u64) -> Outcome {
    Outcome::Failed { error: error.to_owned(), retry_in_ms }
}

pub fn renewal(key: ClaimKey) -> Renewal {
    Renewal { key, progress: None }
}

/// Recovery without a wait before the next attempt.
pub async fn recover(store: &Arc<dyn Store>) -> Vec<Recovered> {
    store.recover(at_once()).await.unwrap().value
}

pub fn at_once() -> RecoverRequest {
    RecoverRequest { steps_max: 1_000, retry_in_ms: vec![0], poison_after: 100 }
}

pub async fn step(store: &Arc<dyn Store>, id: StepId) -> Step {
    store.steps(vec![id]).await.unwrap().value.remove(0).expect("the step is there")
}

pub async fn state(store: &Arc<dyn Store>, id: StepId) -> StepState {
    step(store, id).await.state
}

pub fn info(name: &str) -> PodInfo {
    PodInfo { pod: pod(name), capacity: 8, kinds: vec![kind("work")], meta: json("{}") }
}

pub async fn register(store: &Arc<dyn Store>, name: &str) -> PodLife {
    let registered = store.register(info(name), LEASE_MS).await.unwrap().value;
    PodLife { pod: pod(name), incarnation: registered.incarnation }
}
