//! What an append costs behind the front: `Node::turn` over a store on disk, and the flush.
//!
//! - `cargo bench -p tl-engine --bench turn`: Criterion, wall time;
//! - the same with `-- --plain TURNS`: processor time of this thread per append, for machines that
//!   others use too;
//! - the program itself under `valgrind --tool=callgrind --toggle-collect='*Workload*turn*'` with
//!   `--plain TURNS`: instructions, which do not depend on who else is there.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group};

use self::workload::{PER_TURN, Workload};

mod workload;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(PER_TURN as u64));
    let workload = std::cell::RefCell::new(Workload::new());
    group.bench_function("appends", |bencher| {
        bencher.iter_batched(
            || workload.borrow_mut().gather(PER_TURN),
            |()| {
                let turned = workload.borrow_mut().turn();
                workload.borrow_mut().finish(turned);
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Processor time of this thread, as Linux tells it: the one clock that `valgrind` leaves alone.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn plain(turns: u64) {
    let mut workload = Workload::new();
    let (mut in_turns, mut in_flushes) = (Duration::ZERO, Duration::ZERO);
    let (answered, flushes) = (workload.answered(), flushes(&workload));
    for _ in 0..turns {
        workload.gather(PER_TURN);
        let before = spent();
        let turned = workload.turn();
        in_turns += spent() - before;
        let is_flush = turned.sealed;
        let before = spent();
        workload.finish(turned);
        if is_flush {
            in_flushes += spent() - before;
        }
    }
    let appends = (workload.answered() - answered) as f64;
    println!("appends {appends}, flushes {}", self::flushes(&workload) - flushes);
    println!("turn   {:8.0} ns per append", in_turns.as_nanos() as f64 / appends);
    println!("flush  {:8.0} ns per append", in_flushes.as_nanos() as f64 / appends);
}

fn flushes(workload: &Workload) -> u64 {
    tl_store::OrderedStore::stats(&**workload.store()).flushes
}

criterion_group!(benches, turns);

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--plain");
    match arguments.nth(1) {
        Some(turns) => plain(turns.parse().expect("--plain TURNS, a number")),
        None => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}
