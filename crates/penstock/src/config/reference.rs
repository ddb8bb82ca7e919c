//! docs/configuration.md, written from the table of keys.

use std::fmt::{self, Write};

use super::keys::{ACCESS_KEYS, Default, KEYS, Key, Kind, SECTIONS};

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `penstock check --reference`; edit crates/penstock/src/config/keys.rs. -->

`penstock serve --config penstock.toml` reads one TOML file. `penstock check --config penstock.toml` reads it without
serving: it lists every mistake with the key, its value and what it must be, and exits with 0 or 2. A key that does not
exist is a mistake. Relative paths begin at the folder that the file is in. `check` also looks at what runs out: it refuses
certificates (`tls.certificate`, `kafka.certificate`) and revocation lists that have expired, and warns of certificates that
will within 14 days and of lists that will within one. `serve` starts with them, and says so.

Every key can be set by an environment variable instead, which wins over the file: `PENSTOCK_`, then the key's path in
capitals with `__` for each dot. Lists are comma separated.

    PENSTOCK_KAFKA__BOOTSTRAP_SERVERS=b-1.example:9092,b-2.example:9092
    PENSTOCK_LISTEN__IDLE_TIMEOUT=2m
    PENSTOCK_ACCESS__0__IDENTITY=anyone

Bytes are a whole number or text with a unit: `\"64MiB\"` (`KiB`, `MiB`, `GiB`, `TiB`; `kB`, `MB`, `GB` are decimal).
Durations are text with a unit: `\"5ms\"`, `\"300s\"`, `\"2m\"`, `\"1h\"`, `\"7d\"`.

A file that is enough for a first try, over plain HTTP on this host:

    [listen]
    address = \"127.0.0.1:8080\"

    [tls]
    mode = \"off\"

    [kafka]
    bootstrap_servers = [\"127.0.0.1:9092\"]
";

const ACCESS: &str = "
## [[access]]

One rule each; a request is served if any rule allows it. Without any rule a loopback listener serves everyone, and any
other address is refused at the start. `/healthz` needs no rule. In the environment the rules are numbered from 0.
";

/// The whole file.
pub(super) fn write() -> String {
    let mut out = INTRODUCTION.to_owned();
    for (section, about) in SECTIONS {
        let is_own = |key: &&Key| key.path.rsplit_once('.').is_some_and(|(parent, _)| parent == *section);
        write_section(&mut out, section, about, KEYS.iter().filter(is_own));
    }
    out.push_str(ACCESS);
    write_keys(&mut out, ACCESS_KEYS.iter());
    out
}

fn write_section(out: &mut String, section: &str, about: &str, keys: impl Iterator<Item = &'static Key>) {
    write!(out, "\n## [{section}]\n\n{about}\n").expect("a String takes any text");
    write_keys(out, keys);
}

fn write_keys(out: &mut String, keys: impl Iterator<Item = &'static Key>) {
    for key in keys {
        write_key(out, key).expect("a String takes any text");
    }
}

fn write_key(out: &mut String, key: &Key) -> fmt::Result {
    write!(out, "\n### `{}`\n\n", key.path)?;
    writeln!(out, "{}", key.doc)?;
    writeln!(out, "\nValue: {}.  ", key.kind)?;
    match (&key.default, key.kind) {
        (Default::Required, _) => out.push_str("Required.\n"),
        (Default::Unset(meaning), _) => writeln!(out, "Default: {meaning}.")?,
        (Default::Value(value), Kind::Boolean | Kind::Count { .. } | Kind::Bytes { .. }) => {
            writeln!(out, "Default: `{value}`.")?;
        }
        (Default::Value(value), _) => writeln!(out, "Default: `\"{value}\"`.")?,
    }
    Ok(())
}
