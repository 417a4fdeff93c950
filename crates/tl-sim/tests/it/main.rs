//! The simulator held to its own promises: every seed passes, one seed is one run, and the
//! faults that runs are made of do happen.

use tl_sim::{Options, run};

#[test]
fn one() {
    let a: u64 = std::env::var("A").unwrap().parse().unwrap();
    let b: u64 = std::env::var("B").unwrap().parse().unwrap();
    for seed in a..b {
        let t = std::time::Instant::now();
        let report = run(seed, &Options::default());
        println!("{report} {:?}", t.elapsed());
        if report.violation.is_some() {
            for l in &report.recent {
                println!("{l}");
            }
            panic!();
        }
        if b - a < 3 {
            println!("{:?}", report.coverage.counts());
        }
    }
}
