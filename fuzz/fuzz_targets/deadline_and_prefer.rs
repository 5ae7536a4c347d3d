#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offpeak::fuzzing::deadline_and_prefer(data));
