//! The bridge's binary.

use std::process::ExitCode;

use clap::Parser;
use penstock::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
