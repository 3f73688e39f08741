//! The lease rules as a model: sound with all of them, and not without any one.

use hitless_testbeds::model::{self, Depth};

#[test]
fn every_rule_of_the_lease_protocol_is_needed_and_together_they_are_enough() {
    let summary = model::run(Depth::Quick, |search| println!("{search}"));
    assert!(summary.as_expected(), "{summary}");
}
