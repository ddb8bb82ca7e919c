//! The checker at work, as often as all tests run: one schedule of short faults, and the proof that it can fail.
//!
//! A test target of its own, and one run at a time: three brokers, a bridge and ten writers are enough for a small
//! machine.

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
};

/// Runs the checker to its end; panics, with everything it said, when a bar was missed.
fn checker(arguments: &[&str]) -> String {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_penstock-checker")).args(arguments).output();
    let output = output.expect("cargo has built it");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn every_line_becomes_what_was_told_of_it_under_faults() {
    checker(&["--quick", "--seed", "3"]);
}

#[test]
fn without_idempotence_duplicates_are_found() {
    checker(&["--quick", "--seed", "3", "--idempotence", "off"]);
}
