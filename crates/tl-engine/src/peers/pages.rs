//! Room for what is read here for other nodes, from before it is read until the transport has it: many
//! that ask at once must not bring more into memory than that.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::peer::Read;

/// Bytes of pages, over all nodes that ask. Further ones wait, and are answered "not taken" when
/// whoever asked has stopped waiting.
const PAGES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The room is counted in these, bytes.
const UNIT_BYTES: usize = 1_024;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Pages(Arc<Semaphore>);

impl Default for Pages {
    fn default() -> Self {
        Pages(Arc::new(Semaphore::new(PAGES_BYTES_MAX / UNIT_BYTES)))
    }
}

impl Pages {
    /// Waits for room for what is found, as much as it may be; `None` when there is none in time.
    pub(super) async fn room(&self, read: &Read, until: Instant) -> Option<OwnedSemaphorePermit> {
        let units = read.found_bytes_max().div_ceil(UNIT_BYTES);
        let units = u32::try_from(units).expect("a page is far smaller");
        let room = Arc::clone(&self.0).acquire_many_owned(units);
        tokio::time::timeout_at(until.into(), room).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tl_types::limits::PAGE_BYTES_MAX;
    use tl_types::{GroupId, ResourceNumber, Seq, Tenant};

    use super::*;

    fn lines(bytes_max: usize) -> Read {
        Read::Lines {
            group: GroupId(1),
            number: ResourceNumber(1),
            tenant: Tenant::new("t").expect("tenant"),
            after: Seq(0),
            upto: Seq(9),
            limit: 9,
            bytes_max: u32::try_from(bytes_max).expect("fits"),
        }
    }

    #[tokio::test]
    async fn pages_have_so_much_room_together_and_the_next_one_waits() {
        let (pages, now) = (Pages::default(), Instant::now());
        let mut held = Vec::new();
        while let Some(room) = pages.room(&lines(PAGE_BYTES_MAX), now).await {
            held.push(room);
        }
        assert_eq!(held.len(), PAGES_BYTES_MAX / PAGE_BYTES_MAX);
        assert!(pages.room(&lines(1), now).await.is_none(), "one past");
        let far = now + Duration::from_secs(3_600);
        let small = lines(usize::from(u16::MAX));
        let (room, ()) = tokio::join!(pages.room(&small, far), async {
            held.pop();
        });
        assert!(room.is_some());
        drop((held, room));
        // More than a page is never given.
        assert!(pages.room(&lines(u32::MAX as usize), now).await.is_some());
        assert_eq!(pages.0.available_permits(), PAGES_BYTES_MAX / UNIT_BYTES);
    }
}
