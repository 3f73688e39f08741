//! Hostile and ordinary messages.
