//! Cross-origin requests: which web pages of other origins may call, and read the answers (Fetch standard, section 3.3).
//!
//! Browsers ask first, with an OPTIONS request, the preflight, for all but the simplest requests. It carries no
//! credentials, so it is answered before anything else is looked at; what the page then sends goes through every check.
//! Without `listen.cors_origins` there is none of this: no answer has a word of CORS in it.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, StatusCode};

use super::error::ApiError;
use super::respond::{self, Response};
use crate::config::Cors;
use crate::http1::ResponseBody;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// What a page may read of an answer's head beside what the standard lets it: the names that the interface gives.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Allow, Kafka-High-Watermark, Kafka-Next-Offset, Location, Retry-After, WWW-Authenticate");
/// A browser may remember a preflight for so many seconds; most make that two hours at the most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// The answer to a preflight. `None`: the request is none.
pub(super) fn preflight(cors: &Cors, method: &Method, headers: &HeaderMap) -> Option<Response> {
    if *method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let origin = headers.get(ORIGIN)?;
    let mut response = if cors.allows(origin.as_bytes()) {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let told = response.headers_mut();
        told.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        told.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        // `*` would leave out Authorization, and all of them with credentials.
        if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            told.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        response
    } else {
        respond::error(&ApiError::denied("listen.cors_origins does not name this origin"))
    };
    share(cors, origin, &mut response);
    Some(response)
}

/// Lets the page that asked read the answer, if its origin is one that may.
pub(super) fn share(cors: &Cors, origin: &HeaderValue, response: &mut Response) {
    let told = response.headers_mut();
    if !cors.any {
        // The answer to another origin would be another: caches must not mix them up.
        told.append(VARY, VARY_ORIGIN);
    }
    if !cors.allows(origin.as_bytes()) {
        return;
    }
    let shown = if cors.any { HeaderValue::from_static("*") } else { origin.clone() };
    told.insert(ACCESS_CONTROL_ALLOW_ORIGIN, shown);
    told.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if cors.credentials {
        told.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}
