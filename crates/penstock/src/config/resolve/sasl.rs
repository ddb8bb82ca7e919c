//! `[kafka.sasl]`: which keys a mechanism needs, and which it has no use for.

use std::{path::PathBuf, sync::Arc};

use kafka_client::sasl::{Credentials, Login, Sasl, ScramHash};

use super::Settings;
use crate::{
    client::Trust,
    credentials::{AwsChain, PasswordFile, TokenServer, read_secret},
};

/// Every key of the section but the mechanism itself.
pub(super) const KEYS_OF_MECHANISMS: &[&str] = &[
    "kafka.sasl.username",
    "kafka.sasl.password_file",
    "kafka.sasl.region",
    "kafka.sasl.token_url",
    "kafka.sasl.token_ca",
    "kafka.sasl.client_id",
    "kafka.sasl.client_secret_file",
    "kafka.sasl.scope",
];

/// How to log in; `None` after a mistake. Secrets' files are read once, so that one that is not there is known at the start.
pub(super) fn sasl(settings: &mut Settings<'_>) -> Option<Sasl> {
    let Some(mechanism) = settings.choice("kafka.sasl.mechanism") else {
        return settings.missing("kafka.sasl.mechanism", "is required with kafka.security = \"sasl_…\"");
    };
    let used: &[&str] = match mechanism {
        "OAUTHBEARER" => &[
            "kafka.sasl.token_url",
            "kafka.sasl.token_ca",
            "kafka.sasl.client_id",
            "kafka.sasl.client_secret_file",
            "kafka.sasl.scope",
        ],
        "AWS_MSK_IAM" => &["kafka.sasl.region"],
        _ => &["kafka.sasl.username", "kafka.sasl.password_file"],
    };
    let of_others: Vec<_> = KEYS_OF_MECHANISMS.iter().copied().filter(|key| !used.contains(key)).collect();
    settings.unused(&of_others, &format!("is not used by kafka.sasl.mechanism = \"{mechanism}\""));
    match mechanism {
        "PLAIN" => user(settings, mechanism).map(Sasl::Plain),
        "SCRAM-SHA-256" => user(settings, mechanism).map(|user| Sasl::Scram(ScramHash::Sha256, user)),
        "SCRAM-SHA-512" => user(settings, mechanism).map(|user| Sasl::Scram(ScramHash::Sha512, user)),
        "OAUTHBEARER" => token_server(settings, mechanism),
        _ => aws(settings, mechanism),
    }
}

fn user(settings: &mut Settings<'_>, mechanism: &str) -> Option<Arc<dyn Credentials<Login>>> {
    let username = required_text(settings, "kafka.sasl.username", mechanism);
    let password = secret_file(settings, "kafka.sasl.password_file", mechanism);
    Some(Arc::new(PasswordFile::new(username?, password?)))
}

fn token_server(settings: &mut Settings<'_>, mechanism: &str) -> Option<Sasl> {
    let url = required_text(settings, "kafka.sasl.token_url", mechanism);
    let client_id = required_text(settings, "kafka.sasl.client_id", mechanism);
    let client_secret = secret_file(settings, "kafka.sasl.client_secret_file", mechanism);
    let ca = settings.text("kafka.sasl.token_ca").filter(|ca| ca != "system").map(|ca| settings.folder.join(ca));
    if let Some(ca) = &ca
        && let Err(error) = super::files::authorities(Some(ca))
    {
        return settings.missing("kafka.sasl.token_ca", &error.to_string());
    }
    let trust = ca.as_deref().map_or(Trust::System, Trust::File);
    match TokenServer::new(&url?, trust, client_id?, client_secret?, settings.text("kafka.sasl.scope")) {
        Ok(server) => Some(Sasl::OAuthBearer(Arc::new(server))),
        Err(problem) => settings.missing("kafka.sasl.token_url", &problem),
    }
}

fn aws(settings: &mut Settings<'_>, mechanism: &str) -> Option<Sasl> {
    if settings.word("kafka.security") != "sasl_tls" {
        settings.mistake("kafka.security", "must be \"sasl_tls\" with AWS_MSK_IAM: a signature is good for 15 minutes");
    }
    let region = required_text(settings, "kafka.sasl.region", mechanism)?;
    // It goes into a signature's scope, whose parts are separated by slashes.
    if !region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return settings.missing("kafka.sasl.region", "must be a region's name, like \"eu-west-1\"");
    }
    Some(Sasl::AwsMskIam { region: region.as_str().into(), credentials: Arc::new(AwsChain::new(region)) })
}

fn required_text(settings: &mut Settings<'_>, path: &'static str, mechanism: &str) -> Option<String> {
    match settings.text(path) {
        Some(text) => Some(text),
        None => settings.missing(path, &format!("is required by kafka.sasl.mechanism = \"{mechanism}\"")),
    }
}

fn secret_file(settings: &mut Settings<'_>, path: &'static str, mechanism: &str) -> Option<PathBuf> {
    let file = settings.required(path, &format!("is required by kafka.sasl.mechanism = \"{mechanism}\""))?;
    match read_secret(&file) {
        Ok(_) => Some(file),
        Err(problem) => settings.missing(path, &problem),
    }
}
