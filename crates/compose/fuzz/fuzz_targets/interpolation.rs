#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shiplap_compose_fuzz::interpolation(data));
