#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tl_gateway::fuzzing::http_head(bytes));
