//! Fuzzes `ike_differential`; see `differential.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| hitless_fuzz::ike_differential(octets));
