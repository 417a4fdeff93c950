//! Every ceiling of the fleet, with its unit. At the limit the request is taken, one past it
//! is refused with [`crate::InvalidInput`], which names the field and the limit.

/// Longest kind, bytes; letters, digits, `_` and `-`.
pub const KIND_BYTES_MAX: usize = 128;
/// Largest JSON of kind, arguments and metadata of one step together, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// Largest result of a step, bytes of JSON.
pub const RESULT_BYTES_MAX: usize = 1_048_576;
/// Longest error text that is kept, bytes; what is longer is cut and ends in `…`.
pub const ERROR_BYTES_MAX: usize = 16 * 1024;
/// Largest progress note of a running step, bytes of JSON.
pub const PROGRESS_BYTES_MAX: usize = 4 * 1024;
/// Most retries of one step after its first attempt.
pub const RETRIES_MAX: u32 = 10;
/// Retries of a step whose submission names none.
pub const RETRIES_DEFAULT: u32 = 3;
/// Highest priority; the lowest is its negative. Larger is sooner.
pub const PRIORITY_MAX: i32 = 1_000_000;
/// Longest wait before a step may run, milliseconds: 366 days.
pub const DELAY_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// Longest time-out of one attempt, milliseconds: 7 days.
pub const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Longest unique key or effect key, bytes.
pub const KEY_BYTES_MAX: usize = 255;
/// Largest value kept with an effect, bytes of JSON.
pub const EFFECT_BYTES_MAX: usize = 64 * 1024;
/// Longest pod id or name of a pull worker, bytes.
pub const POD_ID_BYTES_MAX: usize = 128;
/// Largest description that a pod gives of itself, bytes of JSON.
pub const POD_META_BYTES_MAX: usize = 16 * 1024;
/// Shortest lease of a step, a pod or the leader, milliseconds.
pub const LEASE_MS_MIN: u64 = 100;
/// Longest lease, milliseconds: one hour.
pub const LEASE_MS_MAX: u64 = 3_600_000;
/// Most steps, claims or ids in one call to a store.
pub const BATCH_MAX: usize = 1_000;
/// Most bytes of payloads or results in one call to a store. One item of the largest size
/// always fits.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most steps looked up by id in one call: each may be megabytes.
pub const LOOKUP_MAX: usize = 16;
/// Attempts of one step that are shown, the newest; a step that is given back again and again has
/// more.
pub const ATTEMPTS_SHOWN_MAX: usize = 1_000;
/// Most kinds in one claim.
pub const KINDS_MAX: usize = 64;
/// Most rows of one page of a list.
pub const PAGE_MAX: usize = 1_000;
/// Rows looked at for one page; a selective filter may so give a short page with a token.
pub const LIST_ROWS_EXAMINED_MAX: usize = 10_000;
/// Bytes of payloads and results looked at for one page, and bytes that one page has; it always
/// has at least one whole step.
pub const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest text looked for in arguments and metadata, bytes.
pub const SEARCH_BYTES_MAX: usize = 255;
/// Rows that one call to recover, reap or retain changes at most.
pub const SWEEP_MAX: usize = 10_000;
/// Pods that a list of them has at most: first those that live, then the youngest of the rest.
pub const PODS_MAX: usize = 10_000;
/// Effects that one step may note, over all its attempts.
pub const EFFECTS_MAX: u64 = 1_000;
/// Scheduled steps that one claim makes pending at most; what is left waits for the next.
pub const PROMOTE_MAX: usize = 10_000;
/// Different kinds or priorities that [`crate::Counts`] tells apart; the rest is not listed.
pub const COUNTS_GROUPS_MAX: usize = 1_000;
