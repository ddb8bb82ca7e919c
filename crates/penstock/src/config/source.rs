//! Where values come from: the file, and the environment over it.

use std::{collections::BTreeMap, fmt};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Mistake,
    keys::{ACCESS_KEYS, KEYS, Key},
    values::Raw,
};

/// Variables that begin so and hold `__` are overrides. Others, `PENSTOCK_SERVICE_HOST` for one, are an orchestrator's.
const PREFIX: &str = "PENSTOCK_";

/// Whether an environment variable may be an override.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file's line, from 1.
    File { line: usize },
    /// The variable's name.
    Environment(String),
    /// Nobody wrote it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line } => write!(f, "line {line}"),
            Self::Environment(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value as it was written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// Values by their key's path; the first of two mistakes about a key is kept.
pub(super) type Values = BTreeMap<&'static str, Written>;

/// Everything that was written, under keys that exist.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) values: Values,
    /// `[[access]]` rules by their index, their keys' paths beginning with `access.`.
    pub(super) rules: BTreeMap<usize, Values>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Source {
    pub(super) fn read_file(&mut self, text: &str) {
        match DeTable::parse(text) {
            Ok(root) => self.table(text, "", root.get_ref()),
            Err(error) => {
                let line = line_of(text, error.span().map_or(0, |span| span.start));
                let problem = format!("is not TOML: {}", error.message());
                self.mistakes.push(Mistake::new("file", None, Origin::File { line }, problem));
            }
        }
    }

    fn table(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let line = line_of(text, name.span().start);
            let name: &str = name.get_ref();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let within = format!("{path}.");
            let origin = Origin::File { line };
            if path == "access" {
                self.access(text, value, origin);
            } else if let Some(key) = find(KEYS, &path) {
                self.values.insert(key.path, Written { raw: raw(text, value), origin });
            } else if !KEYS.iter().any(|key| key.path.starts_with(&within)) {
                self.mistakes.push(unknown(&path, origin));
            } else if let DeValue::Table(table) = value.get_ref() {
                self.table(text, &path, table);
            } else {
                let problem = format!("must be a section, [{path}]");
                self.mistakes.push(Mistake::new(path, Some(raw(text, value).to_string()), origin, problem));
            }
        }
    }

    fn access(&mut self, text: &str, value: &Spanned<DeValue<'_>>, origin: Origin) {
        let tables: Option<Vec<_>> =
            value.get_ref().as_array().and_then(|rules| rules.iter().map(|rule| rule.get_ref().as_table()).collect());
        let Some(tables) = tables else {
            let problem = "must be a list of rules, each under a line [[access]]";
            self.mistakes.push(Mistake::new("access", None, origin, problem));
            return;
        };
        for (index, table) in tables.into_iter().enumerate() {
            let mut values = Values::new();
            for (name, value) in table {
                let origin = Origin::File { line: line_of(text, name.span().start) };
                let path = format!("access.{}", name.get_ref());
                match find(ACCESS_KEYS, &path) {
                    Some(key) => drop(values.insert(key.path, Written { raw: raw(text, value), origin })),
                    None => self.mistakes.push(unknown(&path, origin)),
                }
            }
            self.rules.insert(index, values);
        }
    }

    /// `PENSTOCK_KAFKA__BOOTSTRAP_SERVERS` is `kafka.bootstrap_servers`; `PENSTOCK_ACCESS__0__IDENTITY` is the
    /// `identity` of the first rule.
    pub(super) fn read_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        // Sorted, so that mistakes come in the same order every time.
        let mut variables: Vec<_> = environment.into_iter().filter(|(name, _)| is_ours(name)).collect();
        variables.sort();
        for (name, value) in variables {
            let path = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            let written = Written { raw: Raw::Untyped(value), origin: Origin::Environment(name) };
            let rule = path.strip_prefix("access.").and_then(|rest| {
                let (index, name) = rest.split_once('.')?;
                Some((index.parse::<usize>().ok()?, find(ACCESS_KEYS, &format!("access.{name}"))?))
            });
            if let Some((index, key)) = rule {
                self.rules.entry(index).or_default().insert(key.path, written);
            } else if let Some(key) = find(KEYS, &path) {
                self.values.insert(key.path, written);
            } else if path.contains('.') {
                self.mistakes.push(unknown(&path, written.origin));
            }
        }
    }
}

fn find(keys: &'static [Key], path: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.path == path)
}

fn raw(text: &str, value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(string) => Raw::Text(string.as_ref().to_owned()),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Raw::Integer(integer),
            Err(_) => Raw::Other(integer.as_str().to_owned()),
        },
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(text, item)).collect()),
        _ => Raw::Other(text[value.span()].to_owned()),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

fn unknown(path: &str, origin: Origin) -> Mistake {
    let all = || KEYS.iter().chain(ACCESS_KEYS).map(|key| key.path);
    let name = path.rsplit('.').next().unwrap_or(path);
    let elsewhere = all().find(|known| known.rsplit('.').next() == Some(name));
    let near = || all().map(|known| (distance(path, known), known)).min().filter(|(distance, _)| *distance <= 3);
    let problem = match elsewhere.or_else(|| near().map(|(_, known)| known)) {
        Some(known) => format!("no such key; did you mean {known}?"),
        None => "no such key".to_owned(),
    };
    Mistake::new(path, None, origin, problem)
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
