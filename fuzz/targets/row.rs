#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tl_core::fuzzing::row(bytes));
