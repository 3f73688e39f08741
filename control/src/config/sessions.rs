//! What a connection says of its session.

use super::document::Section;
use super::value;
use crate::ike::sessions::SessionSettings;

pub(super) fn read(section: &Section<'_>) -> SessionSettings {
    SessionSettings {
        crash_detection: section.or("crash_detection", false, value::boolean),
    }
}
