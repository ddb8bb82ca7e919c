//! ApiVersions (key 18): the first thing said on a connection.

use super::{Api, Request, Response};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, Writer};

/// Which versions does the broker speak? Carries who asks (KIP-511).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersionsRequest {
    /// The client's name, as the broker's metrics show it.
    pub software_name: &'static str,
    /// The client's version.
    pub software_version: &'static str,
}

impl Request for ApiVersionsRequest {
    // Version 4 differs in features that this client does not read, and a broker before 4.0 would refuse it: one round
    // trip lost.
    const API: Api = Api { key: 18, name: "ApiVersions", min: 0, max: 3, first_flexible: 3 };
    type Response = ApiVersionsResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        if version >= 3 {
            out.string(self.software_name);
            out.string(self.software_version);
        }
        out.no_tags();
    }
}

/// One API's versions at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiRange {
    /// The API's number.
    pub key: i16,
    /// The oldest version.
    pub min: i16,
    /// The newest version.
    pub max: i16,
}

/// What the broker speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersionsResponse {
    /// `UNSUPPORTED_VERSION` where the request's own version was unknown to the broker.
    pub error: ErrorCode,
    /// May be empty with an error, or hold ApiVersions alone.
    pub apis: Vec<ApiRange>,
}

impl ApiVersionsResponse {
    /// The newest version of `api` that both sides speak.
    pub fn agree(&self, api: &Api) -> Option<i16> {
        let theirs = self.apis.iter().find(|range| range.key == api.key)?;
        let version = api.max.min(theirs.max);
        (version >= api.min && version >= theirs.min).then_some(version)
    }
}

impl Response for ApiVersionsResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let error = ErrorCode(from.i16()?);
        // A broker that does not know the version answers in version 0, whatever was asked (KIP-511).
        let version = if error == ErrorCode::UNSUPPORTED_VERSION { 0 } else { version };
        from.set_flexible(version >= ApiVersionsRequest::API.first_flexible);
        let apis = from.array(6, |from| {
            let range = ApiRange { key: from.i16()?, min: from.i16()?, max: from.i16()? };
            from.skip_tagged()?;
            Ok(range)
        })?;
        if version >= 1 {
            // Throttling does not begin before authentication.
            let _throttle_ms = from.i32()?;
        }
        // Features and their epoch: nothing here depends on them.
        from.skip_tagged()?;
        Ok(Self { error, apis })
    }
}
