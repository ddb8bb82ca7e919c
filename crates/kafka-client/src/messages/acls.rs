//! DescribeAcls (key 29), CreateAcls (key 30) and DeleteAcls (key 31): who may do what in Kafka.

use super::{Api, Request, Response, millis};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use std::time::Duration;

/// One of Kafka's numbers with a name. Those from the future are kept.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($text:literal = $number:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i8);

        impl $name {
            /// Any, in a filter.
            pub const ANY: Self = Self(1);

            /// The name in Kafka's documentation, `UNKNOWN` for a number that this table lacks.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "UNKNOWN",
                }
            }

            /// What has this name, in any case of letters.
            pub fn named(name: &str) -> Option<Self> {
                [$(($text, $number)),*]
                    .into_iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, number)| Self(number))
            }
        }
    };
}

numbered! {
    /// A kind of resource.
    AclResourceType {
        "ANY" = 1, "TOPIC" = 2, "GROUP" = 3, "CLUSTER" = 4, "TRANSACTIONAL_ID" = 5, "DELEGATION_TOKEN" = 6, "USER" = 7,
    }
}
numbered! {
    /// How a resource's name is meant (KIP-290).
    AclPatternType { "ANY" = 1, "MATCH" = 2, "LITERAL" = 3, "PREFIXED" = 4 }
}
numbered! {
    /// What is done.
    AclOperation {
        "ANY" = 1, "ALL" = 2, "READ" = 3, "WRITE" = 4, "CREATE" = 5, "DELETE" = 6, "ALTER" = 7, "DESCRIBE" = 8,
        "CLUSTER_ACTION" = 9, "DESCRIBE_CONFIGS" = 10, "ALTER_CONFIGS" = 11, "IDEMPOTENT_WRITE" = 12,
        "CREATE_TOKENS" = 13, "DESCRIBE_TOKENS" = 14, "TWO_PHASE_COMMIT" = 15,
    }
}
numbered! {
    /// Whether it is allowed.
    AclPermission { "ANY" = 1, "DENY" = 2, "ALLOW" = 3 }
}

impl AclPatternType {
    /// Every pattern that is about a name, in a filter.
    pub const MATCH: Self = Self(2);
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// The kind of resource.
    pub resource_type: AclResourceType,
    /// Its name, or how its name begins.
    pub resource_name: SharedStr,
    /// Which of the two.
    pub pattern_type: AclPatternType,
    /// For whom: `User:alice`.
    pub principal: String,
    /// From where: an address or `*`.
    pub host: String,
    /// What.
    pub operation: AclOperation,
    /// Whether it may be done.
    pub permission: AclPermission,
}

/// Which rules are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclFilter {
    /// The kind of resource.
    pub resource_type: AclResourceType,
    /// `None`: any.
    pub resource_name: Option<String>,
    /// The pattern.
    pub pattern_type: AclPatternType,
    /// `None`: any.
    pub principal: Option<String>,
    /// `None`: any.
    pub host: Option<String>,
    /// What is done.
    pub operation: AclOperation,
    /// Whether it may be done.
    pub permission: AclPermission,
}

impl AclFilter {
    fn encode(&self, out: &mut Writer) {
        out.i8(self.resource_type.0);
        out.nullable_string(self.resource_name.as_deref());
        out.i8(self.pattern_type.0);
        out.nullable_string(self.principal.as_deref());
        out.nullable_string(self.host.as_deref());
        out.i8(self.operation.0);
        out.i8(self.permission.0);
    }
}

/// Asks for rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeAclsRequest {
    /// Which.
    pub filter: AclFilter,
}

impl Request for DescribeAclsRequest {
    const API: Api = Api { key: 29, name: "DescribeAcls", min: 1, max: 3, first_flexible: 2 };
    type Response = DescribeAclsResponse;

    fn encode(&self, _version: i16, out: &mut Writer) {
        self.filter.encode(out);
        out.no_tags();
    }
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeAclsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// Why there are none.
    pub error: ErrorCode,
    /// The broker's words on it.
    pub message: Option<SharedStr>,
    /// The rules.
    pub acls: Vec<Acl>,
}

impl Response for DescribeAclsResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let error = ErrorCode(from.i16()?);
        let message = from.nullable_string()?;
        let resources = from.array(4, |from| {
            let resource_type = AclResourceType(from.i8()?);
            let resource_name: SharedStr = from.string()?; // shared by its rules
            let pattern_type = AclPatternType(from.i8()?);
            let rules = from.array(4, |from| {
                let rule = (from.string()?, from.string()?, AclOperation(from.i8()?), AclPermission(from.i8()?));
                from.skip_tagged()?;
                Ok(rule)
            })?;
            from.skip_tagged()?;
            Ok((resource_type, resource_name, pattern_type, rules))
        })?;
        from.skip_tagged()?;
        let acls = resources.into_iter().flat_map(|(resource_type, resource_name, pattern_type, rules)| {
            rules.into_iter().map(move |(principal, host, operation, permission)| Acl {
                resource_type,
                resource_name: resource_name.clone(),
                pattern_type,
                principal,
                host,
                operation,
                permission,
            })
        });
        Ok(Self { throttle, error, message, acls: acls.collect() })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Adds rules. Those that are there already stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateAclsRequest {
    /// The rules.
    pub acls: Vec<Acl>,
}

impl Request for CreateAclsRequest {
    const API: Api = Api { key: 30, name: "CreateAcls", min: 1, max: 3, first_flexible: 2 };
    type Response = CreateAclsResponse;

    fn encode(&self, _version: i16, out: &mut Writer) {
        out.array(self.acls.len());
        for acl in &self.acls {
            out.i8(acl.resource_type.0);
            out.string(&acl.resource_name);
            out.i8(acl.pattern_type.0);
            out.string(&acl.principal);
            out.string(&acl.host);
            out.i8(acl.operation.0);
            out.i8(acl.permission.0);
            out.no_tags();
        }
        out.no_tags();
    }
}

/// The answer to [`CreateAclsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateAclsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// What became of each rule, in the request's order, and the broker's words on it.
    pub results: Vec<(ErrorCode, Option<SharedStr>)>,
}

impl Response for CreateAclsResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let results = from.array(3, |from| {
            let result = (ErrorCode(from.i16()?), from.nullable_string()?);
            from.skip_tagged()?;
            Ok(result)
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, results })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Takes rules away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteAclsRequest {
    /// Which.
    pub filter: AclFilter,
}

impl Request for DeleteAclsRequest {
    const API: Api = Api { key: 31, name: "DeleteAcls", min: 1, max: 3, first_flexible: 2 };
    type Response = DeleteAclsResponse;

    fn encode(&self, _version: i16, out: &mut Writer) {
        out.array(1);
        self.filter.encode(out);
        out.no_tags();
        out.no_tags();
    }
}

/// The answer to [`DeleteAclsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteAclsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// What became of each filter of the request.
    pub results: Vec<DeletedAcls>,
}

/// What a filter took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedAcls {
    /// Why nothing was taken away.
    pub error: ErrorCode,
    /// The broker's words on it.
    pub message: Option<SharedStr>,
    /// The rules that it matched, and what became of each.
    pub acls: Vec<(ErrorCode, Acl)>,
}

impl Response for DeleteAclsResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let results = from.array(4, |from| {
            let error = ErrorCode(from.i16()?);
            let message = from.nullable_string()?;
            let acls = from.array(10, |from| {
                let error = ErrorCode(from.i16()?);
                from.skip_string()?; // error_message
                let acl = Acl {
                    resource_type: AclResourceType(from.i8()?),
                    resource_name: from.string()?,
                    pattern_type: AclPatternType(from.i8()?),
                    principal: from.string()?,
                    host: from.string()?,
                    operation: AclOperation(from.i8()?),
                    permission: AclPermission(from.i8()?),
                };
                from.skip_tagged()?;
                Ok((error, acl))
            })?;
            from.skip_tagged()?;
            Ok(DeletedAcls { error, message, acls })
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, results })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}
