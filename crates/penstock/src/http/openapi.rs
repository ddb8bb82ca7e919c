//! `GET /openapi.json` and the page at `/docs` that shows it.
//!
//! The description is written by area, and put together once: [`AREAS`] are documents that have different paths and
//! components. The page is our own, a script and a style sheet that come from the same address and load nothing from
//! anywhere else; its headers see to that.

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use serde_json::{Map, Value};

use super::respond::{JSON, Response};
use crate::http1::ResponseBody;

/// The native API and Confluent's version 2; Confluent's version 3.
const AREAS: [&str; 2] = [include_str!("openapi.json"), include_str!("openapi/v3.json")];

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut document = Map::new();
    for area in AREAS {
        let area: Value = serde_json::from_str(area).expect("the description is JSON: a test reads it");
        merge(&mut document, area);
    }
    serde_json::to_vec(&document).expect("what was JSON is JSON").into()
});

/// Adds the members of one object to another, and those of the objects in it.
fn merge(into: &mut Map<String, Value>, from: Value) {
    let Value::Object(from) = from else { return };
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(Value::Object(known)), value @ Value::Object(_)) => merge(known, value),
            (_, value) => drop(into.insert(name, value)),
        }
    }
}

/// The description of everything that the data listener serves.
pub(crate) fn document() -> Bytes {
    DOCUMENT.clone()
}

pub(crate) fn answer() -> Response {
    let mut response = Response::new(ResponseBody::whole(document()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// `/docs`
    Html,
    /// `/docs.js`
    Script,
    /// `/docs.css`
    Style,
}

/// Everything comes from here, and nothing of it may be put into another page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

impl Page {
    pub(crate) fn answer(self) -> Response {
        let (media_type, text) = match self {
            Self::Html => ("text/html; charset=utf-8", include_str!("openapi/docs.html")),
            Self::Script => ("text/javascript; charset=utf-8", include_str!("openapi/docs.js")),
            Self::Style => ("text/css; charset=utf-8", include_str!("openapi/docs.css")),
        };
        let mut response = Response::new(ResponseBody::whole(text));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Another version of the bridge has another page.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::Operation;
    use hyper::Method;

    fn parsed() -> Value {
        serde_json::from_slice(&document()).expect("JSON")
    }

    #[test]
    fn areas_have_nothing_in_common_but_what_holds_them() {
        let mut seen = std::collections::HashSet::new();
        for area in AREAS {
            let area: Value = serde_json::from_str(area).expect("JSON");
            for kind in ["/paths", "/components/schemas", "/components/parameters", "/components/responses"] {
                for name in area.pointer(kind).and_then(Value::as_object).into_iter().flat_map(Map::keys) {
                    assert!(seen.insert(format!("{kind}/{name}")), "{kind}/{name} is described twice");
                }
            }
        }
    }

    #[test]
    fn the_description_has_every_operation_and_no_other() {
        let document = parsed();
        let mut described = Vec::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            let path = path
                .replace("{partition}", "0")
                .replace("{partition_id}", "0")
                .replace("{broker_id}", "0")
                .replace(['{', '}'], "");
            for method in methods.as_object().expect("methods").keys().filter(|name| *name != "parameters") {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
                let operation = Operation::find(&method, &path).unwrap_or_else(|error| panic!("{path}: {error:?}"));
                described.push(operation.name());
            }
        }
        let mut served = Operation::NAMES.to_vec();
        served.retain(|name| *name != "none");
        described.sort_unstable();
        served.sort_unstable();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|value| references(value, found));
                }
                Value::Array(elements) => elements.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = parsed();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document = parsed();
        let mut seen = std::collections::HashSet::new();
        for methods in document["paths"].as_object().expect("paths").values() {
            for (method, operation) in methods.as_object().expect("methods") {
                if method != "parameters" {
                    let id = operation["operationId"].as_str().expect("a name");
                    assert!(seen.insert(id), "{id} is there twice");
                    assert!(operation["summary"].is_string() && operation["responses"].is_object(), "{id}");
                }
            }
        }
    }
}
