//! AWS credentials by the SDK's own chain: environment, profile, web identity (EKS), ECS, EC2 (IMDSv2).
//!
//! The SDK is here for this alone. What a role, a profile or a pod's identity is changes faster than we would follow, and
//! operators know the chain from every other program.

use std::{error::Error, time::Duration};

use aws_config::{Region, default_provider::credentials::DefaultCredentialsChain};
use aws_credential_types::provider::ProvideCredentials;
use kafka_client::sasl::{AwsCredentials, Credentials, CredentialsError, Obtaining, Secret};

use super::{Kept, until};

/// Credentials that name no end (an access key in the environment or a profile) are looked up again after this.
const WITHOUT_END: Duration = Duration::from_secs(300);

/// The SDK's chain. Built anew for each fetch, so that a changed profile is seen.
#[derive(Debug)]
pub struct AwsChain {
    region: String,
    kept: Kept<AwsCredentials>,
}

impl AwsChain {
    /// `region`: where web identities are exchanged.
    pub fn new(region: String) -> Self {
        Self { region, kept: Kept::new() }
    }

    async fn fetch(&self) -> Result<(AwsCredentials, Duration), CredentialsError> {
        let chain = DefaultCredentialsChain::builder().region(Region::new(self.region.clone())).build().await;
        let found = chain.provide_credentials().await.map_err(|error| {
            // The SDK's own text is a category; what happened is at the end of its sources.
            let mut reason: &dyn Error = &error;
            while let Some(source) = reason.source() {
                reason = source;
            }
            CredentialsError::from(format!("no AWS credentials: {error}: {reason}"))
        })?;
        let lifetime = found.expiry().map_or(WITHOUT_END, until);
        let credentials = AwsCredentials {
            access_key_id: found.access_key_id().to_owned(),
            secret_access_key: Secret::new(found.secret_access_key()),
            session_token: found.session_token().map(Secret::new),
        };
        Ok((credentials, lifetime))
    }
}

impl Credentials<AwsCredentials> for AwsChain {
    fn credentials(&self) -> Obtaining<'_, AwsCredentials> {
        Box::pin(self.kept.get(self.fetch()))
    }

    fn refused(&self) {
        self.kept.forget();
    }
}
