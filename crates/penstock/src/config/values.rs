//! From raw values to typed ones: the parsers of every [`Kind`], and how its bounds are said.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use super::keys::{Choice, Kind};

/// A value as it was written, before anybody knows what it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// A string of the file.
    Text(String),
    /// An environment variable or a default: any scalar, or a comma separated list.
    Untyped(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Self>),
    /// What no setting is: a float, a date, a table. Held as it was written.
    Other(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Untyped(text) => write!(f, "{text:?}"),
            Self::Integer(number) => number.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Other(written) => f.write_str(written),
        }
    }
}

/// A value of its key's kind, inside its bounds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Word(&'static str),
    Boolean(bool),
    Number(u64),
    Duration(Duration),
    Ratio(f64),
    Address(SocketAddr),
    File(PathBuf),
    List(Vec<String>),
    Words(Vec<&'static str>),
}

impl Kind {
    /// The value, or what it must be.
    pub(super) fn parse(self, raw: &Raw) -> Result<Value, String> {
        let value = match self {
            Self::Text => text(raw).filter(|text| !text.is_empty()).map(|text| Value::Text(text.into())),
            Self::File => text(raw).filter(|text| !text.is_empty()).map(|text| Value::File(text.into())),
            Self::Choice(choices) => match text(raw) {
                Some(word) => Some(Value::Word(self.choose(choices, word)?)),
                None => None,
            },
            Self::Boolean => match raw {
                Raw::Boolean(value) => Some(Value::Boolean(*value)),
                Raw::Untyped(text) => text.parse().ok().map(Value::Boolean),
                _ => None,
            },
            Self::Count { min, max } => match raw {
                Raw::Integer(number) => u64::try_from(*number).ok(),
                Raw::Untyped(text) => text.parse().ok(),
                _ => None,
            }
            .filter(|number| (min..=max).contains(number))
            .map(Value::Number),
            Self::Bytes { min, max } => match raw {
                Raw::Integer(number) => u64::try_from(*number).ok(),
                _ => text(raw).and_then(parse_bytes),
            }
            .filter(|bytes| (min..=max).contains(bytes))
            .map(Value::Number),
            Self::Duration { min, max } => text(raw)
                .and_then(parse_duration)
                .filter(|duration| (min..=max).contains(duration))
                .map(Value::Duration),
            Self::Ratio => match raw {
                Raw::Integer(number) => Some(*number as f64),
                Raw::Untyped(text) | Raw::Other(text) => text.parse().ok(),
                _ => None,
            }
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .map(Value::Ratio),
            Self::Address => text(raw).and_then(|text| text.parse().ok()).map(Value::Address),
            Self::Networks => list_of(raw, |text| parse_network(text).is_some()).map(Value::List),
            Self::Origins => list_of(raw, is_origin).map(Value::List),
            Self::Servers => list_of(raw, is_host_port).map(Value::List),
            Self::Topics => list_of(raw, is_topic_pattern).map(Value::List),
            Self::Groups => list_of(raw, |text| !text.is_empty()).map(Value::List),
            Self::Choices(choices) => match list_of(raw, |_| true) {
                Some(words) => {
                    let chosen: Result<_, _> = words.iter().map(|word| self.choose(choices, word)).collect();
                    Some(Value::Words(chosen?))
                }
                None => None,
            },
        };
        value.ok_or_else(|| format!("must be {self}"))
    }

    fn choose(self, choices: &'static [Choice], word: &str) -> Result<&'static str, String> {
        match choices.iter().find(|choice| choice.word == word) {
            Some(choice) => Ok(choice.word),
            None => Err(format!("must be {self}")),
        }
    }
}

/// What a value must be, with its bounds: follows "must be".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text that is not empty"),
            Self::File => f.write_str("a file's path"),
            Self::Choice(choices) => write_words(f, choices),
            Self::Choices(choices) => {
                f.write_str("a list of ")?;
                write_words(f, choices)
            }
            Self::Boolean => f.write_str("true or false"),
            Self::Count { min, max } => write!(f, "a whole number {}", Range(*min, *max, u64::to_string)),
            Self::Bytes { min, max } => {
                write!(f, "bytes (a whole number, or text like \"64MiB\") {}", Range(*min, *max, |bytes| show_bytes(*bytes)))
            }
            Self::Duration { min, max } => {
                write!(f, "a duration like \"300s\", \"5ms\" or \"2m\" {}", Range(*min, *max, |time| show_duration(*time)))
            }
            Self::Ratio => f.write_str("a number from 0 to 1"),
            Self::Address => f.write_str("an IP address and a port, like \"0.0.0.0:8443\" or \"[::1]:8443\""),
            Self::Networks => f.write_str("a list of at least one IP network, like \"10.0.0.0/16\" or \"fd00::/8\""),
            Self::Origins => f.write_str("a list of at least one origin, like \"https://app.example\", or \"*\""),
            Self::Servers => f.write_str("a list of at least one \"host:port\""),
            Self::Topics => f.write_str(
                "a list of at least one topic name (letters, digits, '.', '_', '-'; at most 249), each with or without a \
                 '*' at its end",
            ),
            Self::Groups => {
                f.write_str("a list of at least one consumer group's name, each with or without a '*' at its end")
            }
        }
    }
}

fn write_words(f: &mut fmt::Formatter<'_>, choices: &[Choice]) -> fmt::Result {
    for (index, choice) in choices.iter().enumerate() {
        let before = match index {
            0 => "",
            _ if index + 1 == choices.len() => " or ",
            _ => ", ",
        };
        write!(f, "{before}\"{}\"", choice.word)?;
    }
    Ok(())
}

/// Bounds in words.
struct Range<T>(T, T, fn(&T) -> String);

impl<T> fmt::Display for Range<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (self.2(&self.0), self.2(&self.1));
        if max == u64::MAX.to_string() { write!(f, "of at least {min}") } else { write!(f, "from {min} to {max}") }
    }
}

fn text(raw: &Raw) -> Option<&str> {
    match raw {
        Raw::Text(text) | Raw::Untyped(text) => Some(text),
        _ => None,
    }
}

fn list(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::List(items) => items.iter().map(|item| text(item).map(str::to_owned)).collect(),
        Raw::Untyped(text) if text.trim().is_empty() => Some(Vec::new()),
        Raw::Untyped(text) => Some(text.split(',').map(|item| item.trim().to_owned()).collect()),
        _ => None,
    }
}

fn list_of(raw: &Raw, is_item: fn(&str) -> bool) -> Option<Vec<String>> {
    list(raw).filter(|items| !items.is_empty() && items.iter().all(|item| is_item(item)))
}

/// Scheme, host, and the port if it is not the scheme's (RFC 6454 section 6.2): what browsers send.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return text == "*" };
    let usual = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !authority.is_empty() && authority.bytes().all(fits) && !authority.ends_with(usual)
}

/// `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets.
fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_fits = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    host_fits && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// "10.0.0.0/16", or one address.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Kafka's own rule for topic names, with `*` at the end allowed.
fn is_topic_pattern(text: &str) -> bool {
    let (name, is_prefix) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (text, false),
    };
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    letters && name.len() <= 249 && (is_prefix || !name.is_empty())
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// "64MiB", "1000000".
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match BYTE_UNITS.iter().find(|(unit, _)| text.ends_with(unit)) {
        Some((unit, bytes)) => (text[..text.len() - unit.len()].trim_end(), *bytes),
        None => (text, 1),
    };
    parse_digits(digits)?.checked_mul(unit)
}

/// As it is written: the largest binary unit that divides it.
pub(super) fn show_bytes(bytes: u64) -> String {
    let unit = BYTE_UNITS[..4].iter().rev().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// Milliseconds of each unit; `ms` before `m` and `s`, whose ends it shares.
const TIME_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// "300s", "5ms", "2m".
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (unit, milliseconds) = TIME_UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = parse_digits(text[..text.len() - unit.len()].trim_end())?;
    number.checked_mul(*milliseconds).map(Duration::from_millis)
}

/// As it is written: the largest unit that divides it.
pub(super) fn show_duration(duration: Duration) -> String {
    let total = duration.as_millis();
    let unit = TIME_UNITS.iter().rev().find(|(_, unit)| total > 0 && total.is_multiple_of(u128::from(*unit)));
    match unit {
        Some((name, unit)) => format!("{}{name}", total / u128::from(*unit)),
        None => "0s".to_owned(),
    }
}

/// `str::parse` would take a sign, too.
fn parse_digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
