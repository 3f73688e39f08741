//! What an operator asks for on a running gateway, in swanctl's words.

use serde::{Deserialize, Serialize};

/// Which SAs are meant: by the name of their connection or child, or by number as `list-sas` shows
/// it. `child` with `ike` is the child of that connection.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike_id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_id: Option<u64>,
}

impl Choice {
    /// Whether Child SAs are meant, and not the IKE SAs that carry them.
    pub fn is_of_children(&self) -> bool {
        self.child.is_some() || self.child_id.is_some()
    }
}
