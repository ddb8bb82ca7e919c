//! What is wrong with a value, told without the value itself.

/// A problem's place in front of it. One within the value, which the problem begins with, follows its name:
/// `records[0].value.id`.
pub(crate) fn within(place: &str, problem: &str) -> String {
    let gap = if problem.starts_with(['.', '[']) { "" } else { " " };
    format!("{place}{gap}{problem}")
}

pub(super) fn too_deep() -> String {
    "is nested too deeply".to_owned()
}

pub(super) fn too_long(most: usize) -> String {
    format!("is longer than {most} bytes")
}
