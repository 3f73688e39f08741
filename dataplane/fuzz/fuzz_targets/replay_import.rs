//! Fuzzes `replay_import`; see `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| hitless_dataplane_fuzz::replay_import(octets));
