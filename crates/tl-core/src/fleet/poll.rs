//! How long a pod waits before it asks for work again.

/// Shortest wait, milliseconds.
pub const POLL_MS_MIN: u64 = 10;
/// Longest wait, milliseconds.
pub const POLL_MS_MAX: u64 = 2_000;

/// The wait after asking for `wanted` steps and getting `claimed`, when the wait before was
/// `last_ms`.
///
/// A full batch means that there is more: ask at once. Some means that work flows: the shortest
/// wait. None doubles the wait. A hint ends any wait, which is for the caller.
#[must_use]
pub fn next_poll_ms(last_ms: u64, wanted: u32, claimed: u32) -> u64 {
    if claimed > 0 && claimed >= wanted {
        0
    } else if claimed > 0 {
        POLL_MS_MIN
    } else {
        last_ms.saturating_mul(2).clamp(POLL_MS_MIN, POLL_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(claims: &[(u32, u32)], waits: &[u64]) {
        let mut last = POLL_MS_MIN;
        let mut seen = Vec::new();
        for (wanted, claimed) in claims {
            last = next_poll_ms(last, *wanted, *claimed);
            seen.push(last);
        }
        assert_eq!(seen, waits);
    }

    #[test]
    fn a_full_batch_is_followed_at_once() {
        check(&[(8, 8), (8, 8), (8, 3)], &[0, 0, 10]);
    }

    #[test]
    fn an_empty_queue_is_asked_ever_more_rarely_up_to_the_maximum() {
        let idle = [(8, 0); 9];
        check(&idle, &[20, 40, 80, 160, 320, 640, 1_280, 2_000, 2_000]);
    }

    #[test]
    fn work_brings_the_wait_back_down() {
        check(&[(8, 0), (8, 0), (8, 1), (8, 0)], &[20, 40, 10, 20]);
        check(&[(8, 8), (8, 0)], &[0, 10]);
    }
}
