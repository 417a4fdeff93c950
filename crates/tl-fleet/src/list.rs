//! Looking at many steps: pages and counts.

use tl_types::UnixMs;

use crate::error::InvalidInput;
use crate::ids::PodId;
use crate::limits::{KEY_BYTES_MAX, PAGE_MAX, SEARCH_BYTES_MAX};
use crate::step::{Kind, Step, StepState};

/// Which steps. What is absent or empty lets all pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepFilter {
    /// Standing so.
    pub states: Vec<StepState>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// Held by this one, or last held by it.
    pub pod: Option<PodId>,
    /// Submitted under this name.
    pub unique_key: Option<String>,
    /// Submitted then or later.
    pub created_from: Option<UnixMs>,
    /// Submitted before then.
    pub created_before: Option<UnixMs>,
    /// With this text somewhere in arguments or metadata, byte for byte.
    pub contains: Option<String>,
}

/// Where the next page begins: the store's own, opaque to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(pub String);

/// One page wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// From [`Page::next`] of the page before.
    pub after: Option<PageToken>,
    /// How many at most.
    pub limit: usize,
}

impl PageRequest {
    /// The first page.
    #[must_use]
    pub fn first(limit: usize) -> PageRequest {
        PageRequest { after: None, limit }
    }

    /// Holds the limits of a page.
    ///
    /// # Errors
    /// [`InvalidInput`] when it is empty or too long.
    pub fn check(&self) -> Result<(), InvalidInput> {
        if self.limit == 0 || self.limit > PAGE_MAX {
            return Err(InvalidInput::new("limit", format!("must be from 1 to {PAGE_MAX}")));
        }
        Ok(())
    }
}

impl StepFilter {
    /// Holds every limit of a filter.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the first field that is past its limit.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let wrong = |field, problem| Err(InvalidInput::new(field, problem));
        if self.contains.as_ref().is_some_and(|text| text.len() > SEARCH_BYTES_MAX) {
            return wrong("contains", format!("must be at most {SEARCH_BYTES_MAX} bytes"));
        }
        if self.unique_key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
            return wrong("unique_key", format!("must be at most {KEY_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    /// Whether this step passes.
    #[must_use]
    pub fn passes(&self, step: &Step) -> bool {
        let text =
            |text: &str| step.args.as_str().contains(text) || step.metadata.as_str().contains(text);
        (self.states.is_empty() || self.states.contains(&step.state))
            && self.kind.as_ref().is_none_or(|kind| step.kind == *kind)
            && self.pod.as_ref().is_none_or(|pod| step.claimed_by.as_ref() == Some(pod))
            && self
                .unique_key
                .as_ref()
                .is_none_or(|key| step.unique.as_ref().is_some_and(|unique| unique.key == *key))
            && self.created_from.is_none_or(|from| step.created_at >= from)
            && self.created_before.is_none_or(|before| step.created_at < before)
            && self.contains.as_deref().is_none_or(text)
    }
}

/// One page, newest submissions first. An empty page with a token is not the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; absent at the end.
    pub next: Option<PageToken>,
}

/// Waiting and held steps of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindCount {
    /// What sort of work.
    pub kind: Kind,
    /// Those that wait for their time.
    pub scheduled: u64,
    /// Those that may be claimed.
    pub pending: u64,
    /// Those that are held.
    pub claimed: u64,
    /// When the longest waiting of the pending was first allowed to run.
    pub oldest_pending: Option<UnixMs>,
}

/// How many steps stand where. Waiting and held steps are counted; finished ones are known
/// from a running total.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Waiting for their time.
    pub scheduled: u64,
    /// May be claimed.
    pub pending: u64,
    /// Held.
    pub claimed: u64,
    /// Completed and still kept.
    pub completed: u64,
    /// Given up and still kept.
    pub failed: u64,
    /// Called off and still kept.
    pub cancelled: u64,
    /// By kind, for kinds with unfinished steps.
    pub by_kind: Vec<KindCount>,
    /// Pending steps by priority, highest first.
    pub pending_by_priority: Vec<(i32, u64)>,
}
