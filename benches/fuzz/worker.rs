#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vpngw::link::hostile_worker(bytes));
