//! The command line: what each command takes, and what its exit code means.
//!
//! | code | `serve`, `demo` | `check` | `upload` | `tail` |
//! |---|---|---|---|---|
//! | 0 | ended after a drain | no mistake | everything was written | ended by a signal |
//! | 1 | failed | | something was not written, or may not have been | refused |
//! | 2 | bad configuration or usage | bad configuration or usage, or something has expired | usage | usage |
//! | 3 | | | could not be finished | |

use std::{
    env, fs,
    io::{self, BufRead, IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use kafka_client::sasl::Secret;
use rustls::pki_types::UnixTime;
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

use crate::{
    client::{Endpoint, Login, Proof, Trust},
    config::{
        Config, Tls,
        expiry::Left,
        files,
        values::{parse_bytes, parse_duration},
    },
    credentials::read_secret,
    log, server, tail,
    upload::{self, Bar, Report, Source},
};

/// What the command line says.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, about = "An HTTP-to-Kafka bridge.", max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge until SIGTERM or SIGINT, then drain.
    Serve(ConfigArgs),
    /// Read the configuration and list every mistake in it.
    Check(CheckArgs),
    /// Stream files of JSON lines into a topic, through cuts, and say what was written.
    ///
    /// After a cut the upload goes on with the first line that is not settled. Lines that were on their way when the
    /// connection was cut are sent again and may be in the topic twice: delivery is at least once.
    ///
    /// Exit code: 0 everything was written; 1 something was not, or may not have been (it is listed); 2 wrong usage;
    /// 3 the upload could not be finished.
    Upload(UploadArgs),
    /// Print the records of a topic as they come, until Ctrl-C.
    Tail(TailArgs),
    /// Make a line for auth.users_file: reads a password from standard input, prints `NAME:hash`.
    HashPassword(HashPasswordArgs),
    /// Everything in one process: an in-process Kafka, a throw-away certificate, the bridge, and a file through it.
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
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

/// Which bridge, and which topic.
#[derive(Debug, Args)]
struct TargetArgs {
    /// The bridge: https://host:8443.
    #[arg(long)]
    url: String,
    /// The topic.
    #[arg(long, value_parser = topic)]
    topic: String,
    /// PEM file with the authorities that may sign the bridge's certificate, instead of the host's.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Believe any certificate: whoever answers may be anyone.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    proof: ProofArgs,
}

/// Who we are. Secrets come from files or the environment: other users of the host can read command lines.
#[derive(Debug, Args)]
struct ProofArgs {
    /// Log in as this user; the password is in --password-file or in PENSTOCK_PASSWORD.
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    user: Option<String>,
    /// File with the password of --user; one line end at its end does not count.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// File with a bearer token, read anew for every request. Without it, PENSTOCK_TOKEN is sent if it is set.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the certificate to show, then its intermediates; needs --cert-key.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert: Option<PathBuf>,
    /// PEM file with the private key of --cert.
    #[arg(long = "cert-key", value_name = "FILE", requires = "cert")]
    key_file: Option<PathBuf>,
}

impl ProofArgs {
    fn proof(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Proof, String> {
        let secret = |name| variable(name).filter(|secret| !secret.is_empty()).map(Secret::new);
        let login = match (&self.user, &self.password_file, &self.token_file) {
            (Some(user), Some(file), _) => Some(Login::user(user, &read_secret(file)?)?),
            (Some(user), None, _) => {
                let password =
                    secret("PENSTOCK_PASSWORD").ok_or("--user needs --password-file or PENSTOCK_PASSWORD")?;
                Some(Login::user(user, &password)?)
            }
            (None, _, Some(file)) => Some(Login::token_file(file)?),
            (None, _, None) => secret("PENSTOCK_TOKEN").map(|token| Login::token(&token)).transpose()?,
        };
        let certificate = match (&self.cert, &self.key_file) {
            (Some(cert), Some(key)) => Some(files::certified_key(cert, key).map_err(|error| error.to_string())?),
            _ => None,
        };
        Ok(Proof { certificate, login })
    }
}

impl TargetArgs {
    fn endpoint(&self) -> Result<Endpoint, String> {
        let trust = match &self.ca {
            _ if self.insecure => Trust::Anyone,
            Some(file) => Trust::File(file),
            None => Trust::System,
        };
        Endpoint::with_proof(&self.url, trust, self.proof.proof(|name| env::var(name).ok())?)
    }
}

#[derive(Debug, Args)]
struct UploadArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Files with a JSON document a line; gzip and zstd are decoded. `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// JSON pointer to the member that is each record's key: /user/id.
    #[arg(long, value_name = "POINTER")]
    key: Option<String>,
    /// Write every record to this partition.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// A header of every record; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = record_header)]
    headers: Vec<String>,
    /// Compress the body on its way to the bridge.
    #[arg(long, value_enum)]
    compress: Option<upload::Compress>,
    /// Bytes of standard input that are kept until they are settled; then it is read no further.
    #[arg(long, default_value = "64MiB", value_name = "BYTES", value_parser = window)]
    window: usize,
    /// Give up when no further line was settled for this long.
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
    give_up_after: Duration,
    /// Print what was written as JSON, a line a file.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TailArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Read as a member of this consumer group: partitions are shared with its other members, and what was printed is
    /// committed.
    #[arg(long, conflicts_with = "partition")]
    group: Option<String>,
    /// Only this partition.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Where to begin: earliest, latest, or an offset. With --group, where the group has committed nothing.
    #[arg(long, default_value = "latest", value_parser = start)]
    from: String,
    /// Print the bridge's JSON line of each record, or its value alone.
    #[arg(long, value_enum, default_value_t)]
    format: tail::Format,
}

#[derive(Debug, Args)]
struct HashPasswordArgs {
    /// The user's name.
    #[arg(value_parser = user_name)]
    name: String,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
struct DemoArgs {
    /// End after the file went through, instead of serving on.
    #[arg(long)]
    once: bool,
}

fn topic(text: &str) -> Result<String, String> {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let fits = letters && (1..=249).contains(&text.len()) && text != "." && text != "..";
    if fits { Ok(text.to_owned()) } else { Err("a topic has 1 to 249 letters, digits, '.', '_' or '-'".to_owned()) }
}

fn user_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && !text.starts_with('#') && text.trim() == text;
    let fits = fits && !text.contains(|c: char| c == ':' || c.is_control());
    if fits { Ok(text.to_owned()) } else { Err("a user's name has no colon, and no space at its ends".to_owned()) }
}

fn record_header(text: &str) -> Result<String, String> {
    let fits = text.contains('=') && text.bytes().all(|byte| !byte.is_ascii_control());
    if fits { Ok(text.to_owned()) } else { Err("a header is NAME=VALUE".to_owned()) }
}

fn window(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text).and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "bytes are a number, or text like 64MiB".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a duration is text like 90s or 10m".to_owned())
}

fn start(text: &str) -> Result<String, String> {
    let fits = ["earliest", "latest"].contains(&text) || text.parse::<i64>().is_ok_and(|offset| offset >= 0);
    if fits { Ok(text.to_owned()) } else { Err("earliest, latest, or an offset".to_owned()) }
}

/// Exit code of a bad configuration, and of a bad command line.
const BAD_USAGE: u8 = 2;
/// Exit code of a failure.
const FAILED: u8 = 1;
/// Exit code of an upload that could not be finished.
const UNFINISHED: u8 = 3;

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(args) => match load(&args) {
            Ok(config) => {
                let _log = log::init(&config.log);
                server::run(config).map_or_else(|error| fail(FAILED, &error), |()| ExitCode::SUCCESS)
            }
            Err(code) => code,
        },
        Command::Check(args) if args.reference => {
            print!("{}", Config::reference());
            ExitCode::SUCCESS
        }
        Command::Check(args) => load(&args.config).map_or_else(|code| code, |config| check(&config)),
        Command::Upload(args) => upload(&args),
        Command::Tail(args) => tail(args),
        Command::HashPassword(args) => hash_password(&args.name),
        #[cfg(feature = "demo")]
        Command::Demo(args) => match runtime().block_on(crate::demo::run(args.once)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(FAILED, &error),
        },
    }
}

/// Says what the configuration comes to, and what of it runs out.
fn check(config: &Config) -> ExitCode {
    let expiries = match config.expiries() {
        Ok(expiries) => expiries,
        Err(error) => return fail(BAD_USAGE, &error),
    };
    let now = UnixTime::now();
    let mut has_expired = false;
    for expiry in expiries {
        let left = expiry.left(now);
        match left {
            Left::Enough => {}
            Left::Soon(_) => eprintln!("warning: {}", expiry.show(left)),
            Left::None(_) => {
                has_expired = true;
                eprintln!("{}", expiry.show(left));
            }
        }
    }
    if has_expired {
        return ExitCode::from(BAD_USAGE);
    }
    println!("OK: {}", summary(config));
    ExitCode::SUCCESS
}

fn upload(args: &UploadArgs) -> ExitCode {
    let endpoint = match args.target.endpoint() {
        Ok(endpoint) => endpoint,
        Err(error) => return fail(BAD_USAGE, &error),
    };
    // A wrong name is found before the first line of the first file is sent.
    for file in args.files.iter().filter(|file| **file != Path::new("-")) {
        if let Err(error) = fs::metadata(file) {
            return fail(BAD_USAGE, &format_args!("{}: {error}", file.display()));
        }
    }
    let options = upload::Options {
        key: args.key.clone(),
        partition: args.partition,
        headers: args.headers.clone(),
        compress: args.compress,
        give_up_after: args.give_up_after,
        ..upload::Options::new(endpoint, &args.target.topic)
    };
    let runtime = runtime();
    let mut code = ExitCode::SUCCESS;
    for file in &args.files {
        let source = match Source::open(file, args.window) {
            Ok(source) => source,
            Err(error) => return fail(UNFINISHED, &format_args!("{}: {error}", file.display())),
        };
        let bar = Bar::new(source.name(), source.size());
        let report = runtime.block_on(upload::upload(&options, source, &bar));
        bar.clear();
        if args.json {
            println!("{}", serde_json::to_string(&report).expect("a report has string keys"));
        } else {
            print_report(&report);
        }
        if let Some(error) = &report.error {
            return fail(UNFINISHED, &format_args!("{}: not finished: {error}", report.source));
        }
        if !report.is_complete() {
            code = ExitCode::from(FAILED);
        }
    }
    code
}

fn print_report(report: &Report) {
    let Report { source, lines, written, not_written, unknown, resumed, .. } = report;
    print!("{source}: {lines} lines, {written} written");
    for (count, what) in [(not_written, "not written"), (unknown, "unknown"), (resumed, "times resumed")] {
        if *count > 0 {
            print!(", {count} {what}");
        }
    }
    println!();
    for failure in &report.failures {
        let code = failure.error_code.map(|code| format!(" ({code})")).unwrap_or_default();
        let outcome = failure.outcome.replace('_', " ");
        println!("  lines {} to {}: {outcome}{code}: {}", failure.first_line, failure.last_line, failure.message);
    }
    if report.failures_truncated {
        println!("  and more");
    }
}

fn tail(args: TailArgs) -> ExitCode {
    let endpoint = match args.target.endpoint() {
        Ok(endpoint) => endpoint,
        Err(error) => return fail(BAD_USAGE, &error),
    };
    if args.group.is_some() && args.from.parse::<i64>().is_ok() {
        return fail(
            BAD_USAGE,
            &"a group begins at earliest or latest; offsets are set by POST /v1/groups/{group}/offsets",
        );
    }
    let options = tail::Options {
        group: args.group,
        endpoint,
        topic: args.target.topic,
        partition: args.partition,
        from: args.from,
        format: args.format,
    };
    let out = io::BufWriter::new(io::stdout());
    runtime().block_on(async {
        tokio::select! {
            ended = tail::tail(options, out) => match ended {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(FAILED, &error),
            },
            _ = tokio::signal::ctrl_c() => ExitCode::SUCCESS,
        }
    })
}

fn hash_password(name: &str) -> ExitCode {
    if io::stdin().is_terminal() {
        eprintln!("The password of {name}, then Enter (it is shown):");
    }
    let mut line = Zeroizing::new(String::with_capacity(4096));
    if let Err(error) = io::stdin().lock().take(4096).read_line(&mut line) {
        return fail(FAILED, &error);
    }
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return fail(BAD_USAGE, &"the password on standard input is empty");
    }
    println!("{name}:{}", crate::auth::hash_password(password.as_bytes()));
    ExitCode::SUCCESS
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("the system has room for one more epoll instance")
}

/// Says on standard error why a command failed.
fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("penstock: {error}");
    ExitCode::from(code)
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_are_checked_where_they_are_typed() {
        let parse = |args: &str| Cli::try_parse_from(format!("penstock {args}").split(' ')).map(drop);
        let upload = "upload --url https://b:8443 --topic logs";
        for good in [
            "serve --config penstock.toml",
            "check --config penstock.toml",
            &format!("{upload} --header a=b --header a= --window 1MiB --give-up-after 30s --json - x.gz"),
            "tail --url http://b --topic t --from 17 --partition 0 --format value",
            "tail --url https://b --topic t --user u --password-file p --cert c.pem --cert-key k.pem",
            "hash-password alice",
            "tail --url http://b --topic t --group g --from earliest",
        ] {
            parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            upload.to_owned(),
            format!("{upload} --partition=-1 f"),
            format!("{upload} --header a f"),
            format!("{upload} --window many f"),
            format!("{upload} --give-up-after 5 f"),
            format!("{upload} --insecure --ca a.pem f"),
            "upload --url https://b --topic a/b f".to_owned(),
            "tail --url http://b --topic t --from yesterday".to_owned(),
            "tail --url https://b --topic t --user u --token-file t".to_owned(),
            "tail --url https://b --topic t --password-file p".to_owned(),
            "tail --url https://b --topic t --cert c.pem".to_owned(),
            "tail --url https://b --topic t --password secret".to_owned(),
            "hash-password a:b".to_owned(),
            "hash-password".to_owned(),
            "tail --url http://b --topic t --group g --partition 0".to_owned(),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
