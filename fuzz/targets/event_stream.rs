#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tl_client::fuzzing::event_stream(bytes));
