//! Fuzzes `eap`; see `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| hitless_fuzz::eap(octets));
