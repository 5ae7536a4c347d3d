//! What a start would refuse before it takes a call, found without starting.

use super::{Secrets, Settings, StartError, passthrough};
use crate::{delivery, edge::UpstreamEvents, provider::OpenAi, store::vault::MasterKey};

/// Everything that is wrong, not only what a start would trip over first. Asks neither
/// the disk nor the network.
pub fn check(settings: &Settings, secrets: &Secrets) -> Vec<StartError> {
    let keys = [&secrets.master_key, &secrets.previous_master_key];
    let keys = keys.into_iter().flatten();
    let keys = keys.filter_map(|key| MasterKey::parse(key).err().map(StartError::from));
    let rest = [
        passthrough(settings).err(),
        OpenAi::over_tcp(&settings.provider).err().map(Into::into),
        settings
            .auth
            .upstreams(&secrets.upstream_keys)
            .err()
            .map(Into::into),
        delivery::Sender::new(settings.delivery.clone())
            .err()
            .map(Into::into),
        UpstreamEvents::new(secrets.upstream_webhooks.as_ref())
            .err()
            .map(Into::into),
    ];
    rest.into_iter().flatten().chain(keys).collect()
}
