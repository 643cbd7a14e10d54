#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vpngw_fuzz::coalesce(bytes));
