#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offpeak::fuzzing::store_values(data));
