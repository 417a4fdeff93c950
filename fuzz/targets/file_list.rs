#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tl_store::fuzzing::file_list(bytes));
