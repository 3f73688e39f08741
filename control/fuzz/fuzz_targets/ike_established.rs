//! Fuzzes `ike_established`; see `established.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| hitless_fuzz::ike_established(octets));
