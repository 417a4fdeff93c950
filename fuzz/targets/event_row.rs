#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tl_types::fuzzing::event_row(bytes));
