//! The command line: what each command takes, and what its exit code means.
//!
//! | code | `serve`, `demo` | `check` | `upload` | `tail` |
//! |---|---|---|---|---|
//! | 0 | ended after a drain | no mistake | everything was written | ended by a signal |
//! | 1 | failed | | something was not written, or may not have been | refused |
//! | 2 | bad configuration or usage | bad configuration or usage | usage | usage |
//! | 3 | | | could not be finished | |

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Tls};

/// What the command line says.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, about = "An HTTP-to-Kafka bridge.", max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the configuration and list every mistake in it.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The TOML file. Without one, the environment alone (PENSTOCK_…) is the configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the reference of all keys instead: docs/configuration.md.
    #[arg(long)]
    reference: bool,
}

/// Exit code of a bad configuration, and of a bad command line.
const BAD_USAGE: u8 = 2;

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Check(args) if args.reference => {
            print!("{}", Config::reference());
            ExitCode::SUCCESS
        }
        Command::Check(args) => match load(&args.config) {
            Ok(config) => {
                println!("OK: {}", summary(&config));
                ExitCode::SUCCESS
            }
            Err(code) => code,
        },
    }
}

/// The configuration; or its mistakes are on standard error, and this is the exit code.
fn load(args: &ConfigArgs) -> Result<Config, ExitCode> {
    // A name or value that is not Unicode cannot be one of ours, or fails as a value.
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = env::vars_os().map(|(name, value)| (text(name), text(value)));
    Config::load(args.config.as_deref(), environment).map_err(|error| {
        let file = args.config.as_deref().unwrap_or(Path::new("environment"));
        eprintln!("{}: not a valid configuration\n{error}", file.display());
        ExitCode::from(BAD_USAGE)
    })
}

/// One line that tells an operator whether this is the file that was meant.
fn summary(config: &Config) -> String {
    let scheme = if matches!(config.tls, Tls::Off) { "http" } else { "https" };
    let brokers = config.kafka.bootstrap_servers.join(", ");
    let kafka = if config.kafka.tls.is_some() { "TLS" } else { "plaintext" };
    let rules = match config.access.len() {
        0 => "everyone on this host".to_owned(),
        rules => format!("{rules} access rule(s)"),
    };
    format!(
        "{scheme}://{} for {rules}, management on {}, Kafka at {brokers} ({kafka}), {} worker(s), {} MiB for records",
        config.listen.address,
        config.management.address,
        config.runtime.workers,
        config.producer.memory_bytes >> 20,
    )
}
