#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tl_wire::fuzzing::session_body(bytes));
