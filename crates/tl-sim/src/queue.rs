//! Events in order of virtual time; those of one instant in the order they were put in.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use bytes::Bytes;
use tl_raft::PeerId;

/// Number of a machine, from 0.
pub(crate) type MachineNo = usize;

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// The machine's clock ticks. Events with a `life` are for that process only.
    Tick { machine: MachineNo, life: u64 },
    /// The machine's driver runs.
    Turn { machine: MachineNo, life: u64 },
    /// The log thread takes what waits and writes it.
    LogWrite { machine: MachineNo, life: u64 },
    /// The log thread's sync ends.
    LogSync { machine: MachineNo, life: u64 },
    /// The log has been idle for a while since its `batch`th batch.
    LogIdle { machine: MachineNo, life: u64, batch: u64 },
    /// A segment is made ahead.
    Prepare { machine: MachineNo, life: u64 },
    /// A memtable becomes durable.
    Flush { machine: MachineNo, life: u64 },
    /// The oldest entry beside the driver has its rows.
    Beside { machine: MachineNo, life: u64 },
    /// The oldest work for a transfer of rows is done.
    Aside { machine: MachineNo, life: u64 },
    /// A message about rows arrives.
    Bulk { to: PeerId, from: PeerId, bytes: Bytes },
    /// A frame arrives.
    Frame { to: PeerId, from: PeerId, bytes: Bytes },
    /// A machine that is down starts again.
    Start { machine: MachineNo, life: u64 },
    /// A client acts: it begins an operation or tries its open one again.
    Client { client: usize },
    /// A request arrives at a machine.
    Request { client: usize, attempt: u64, machine: MachineNo },
    /// A client has waited long enough for this attempt.
    Patience { client: usize, attempt: u64 },
    /// A tail looks for events.
    Tail { tail: usize },
    /// A fault of this kind is due.
    Fault { kind: crate::world::faults::Fault },
    /// A split of the network ends.
    Rejoin { split: u64 },
    /// A machine's disk is lost while another one lags.
    Lose { lost: MachineNo, lags: MachineNo, split: u64 },
    /// Whoever leads a group looks at who belongs to it.
    Operate,
    /// An operator looks for rows that rot.
    Mend,
    /// Machines compare their wall clocks.
    Clocks,
    /// There is room on the disk again.
    Room { machine: MachineNo },
    /// All rows of all machines are looked at.
    Audit,
}

#[derive(Debug)]
struct Item {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    /// The earliest is the greatest, which is what a heap gives out first.
    fn cmp(&self, other: &Item) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

/// What is going to happen, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Item>,
    made: u64,
}

impl Queue {
    pub(crate) fn put(&mut self, at_us: u64, event: Event) {
        self.made += 1;
        self.heap.push(Item { at_us, number: self.made, event });
    }

    pub(crate) fn take(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|item| (item.at_us, item.event))
    }
}
