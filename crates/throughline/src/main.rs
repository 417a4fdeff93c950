//! The binary `tl`: a node, a client and tools in one. Here is only the start; every command
//! family has its module.
//!
//! | Module | Answers |
//! |---|---|
//! | [`cli`] | what can be typed |
//! | [`serve`], [`dev`], [`node`], [`logs`] | a node in this process |
//! | [`settings`] | where settings come from and which are in force |
//! | [`session`], [`transfer`] | the client's words; import and export |
//! | [`demo`] | a tour that kills a node |
//! | [`fleet`] | shared work over a database alone |
//! | [`bench`] | how fast this computer and a node on it are |
//! | [`doctor`], [`debug`] | looking at this computer and at a data directory |
//! | [`sim`] | a cluster in trouble, simulated |
//! | [`output`], [`failure`] | how results and failures are said |

mod bench;
mod cli;
mod completions;
mod debug;
mod demo;
mod dev;
mod doctor;
mod failure;
mod fleet;
mod logs;
mod node;
mod ops;
mod output;
mod serve;
mod session;
mod settings;
mod sim;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

/// Appends allocate and free on different threads, which is where the system's allocator is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for work that may wait for a disk. Each costs about a MiB once it has worked: the
/// allocator keeps pages for it.
const BLOCKING_THREADS_MAX: usize = 24;

fn main() -> ExitCode {
    use_small_pages();
    let cli = cli::Cli::parse();
    let json = cli.json;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&anyhow::Error::new(error), json),
    };
    let outcome = runtime.block_on(Box::pin(cli::run(cli)));
    // Threads that block on stdin or a disk must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, json),
    }
}

/// Asks for memory in small pages. The allocator would have its arenas in huge ones, of which a
/// small node touches a part and pays for the whole: twice the memory at the start, and time to
/// clear what is never used. A hint that may be refused.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
