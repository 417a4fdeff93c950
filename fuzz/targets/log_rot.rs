#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tl_wal::fuzzing::log_rot(bytes));
