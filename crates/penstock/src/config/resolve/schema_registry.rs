//! `[schema_registry]`: where schemas come from.

use super::Settings;
use crate::{
    client::{Login, Proof},
    config::{SchemaRegistry, SubjectNames},
};

pub(super) fn schema_registry(settings: &mut Settings<'_>) -> Option<SchemaRegistry> {
    let Some(url) = settings.text("schema_registry.url") else {
        let others = [
            "schema_registry.ca",
            "schema_registry.username",
            "schema_registry.password_file",
            "schema_registry.token_file",
            "schema_registry.register",
            "schema_registry.subject_names",
        ];
        settings.unused(&others, "needs schema_registry.url");
        return None;
    };
    let proof = Proof { login: registry_login(settings)?, certificate: None };
    let endpoint = settings.endpoint_with("schema_registry.url", &url, "schema_registry.ca", proof)?;
    let subject_names = match settings.word("schema_registry.subject_names") {
        "record" => SubjectNames::Record,
        "topic_record" => SubjectNames::TopicRecord,
        _ => SubjectNames::Topic,
    };
    Some(SchemaRegistry { endpoint, register: settings.boolean("schema_registry.register"), subject_names })
}

/// How the bridge logs in to the registry, if it does. `None`: the settings say something that cannot be.
fn registry_login(settings: &mut Settings<'_>) -> Option<Option<Login>> {
    const USER: &str = "schema_registry.username";
    const PASSWORD: &str = "schema_registry.password_file";
    const TOKEN: &str = "schema_registry.token_file";
    let (path, login) = match (settings.text(USER), settings.file(PASSWORD), settings.file(TOKEN)) {
        (None, None, None) => return Some(None),
        (Some(name), Some(file), None) => (PASSWORD, Login::password_file(&name, &file)),
        (None, None, Some(file)) => (TOKEN, Login::token_file(&file)),
        (None, Some(_), None) => return settings.missing(USER, "is required with schema_registry.password_file"),
        (Some(_), None, None) => return settings.missing(PASSWORD, "is required with schema_registry.username"),
        (_, _, Some(_)) => return settings.missing(TOKEN, "excludes a login by name and password"),
    };
    match login {
        Ok(login) => Some(Some(login)),
        Err(problem) => settings.missing(path, &problem),
    }
}
