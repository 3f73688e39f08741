//! Fragments: their limits, order and repetition.
