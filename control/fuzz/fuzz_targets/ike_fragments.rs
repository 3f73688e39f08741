//! Fuzzes `ike_fragments`; see `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| hitless_fuzz::ike_fragments(octets));
