//! How fast batches may be created and looked at, by organization.

use std::{collections::HashMap, time::Duration};

use crate::{
    engine::scope::{Organizations, Owner, regroup_owner},
    model::{id::CredentialId, request::Cohort, time::Timestamp},
    policy::{limits::Rate, pack, poll},
};

use super::Summary;

pub(super) struct Rates {
    creates: HashMap<Owner, Rate>,
    polls: HashMap<Owner, Rate>,
    /// That of one not seen before.
    create_rate: Rate,
    poll_rate: Rate,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Rates {
    pub fn new(packing: &pack::Settings, watch: &poll::Settings) -> Rates {
        let kept = 1.0 - packing.creates_reserve.clamp(0.0, 1.0);
        let creates = (f64::from(packing.creates_per_hour) * kept) as u32;
        let polls = watch.polls_per_second.max(0.001);
        Rates {
            creates: HashMap::new(),
            polls: HashMap::new(),
            create_rate: Rate::of(creates, HOUR),
            poll_rate: Rate::new(Duration::from_secs_f64(1.0 / polls), polls.ceil() as u32),
        }
    }
}

impl Rates {
    /// What the credential has used up by itself, its organization has.
    pub fn regroup(
        &mut self,
        credential: CredentialId,
        organizations: &Organizations,
        now: Timestamp,
    ) {
        for rates in [&mut self.creates, &mut self.polls] {
            let merge = |whole: &mut Rate, part: &Rate| whole.absorb(part, now);
            regroup_owner(rates, credential, organizations, merge);
        }
    }
}

impl Summary {
    /// When the next batch of the cohort may be created.
    pub fn create_at(&mut self, cohort: &Cohort, credential: CredentialId) -> Timestamp {
        let held_back = self.setbacks.held_back(cohort);
        self.creates(credential).ready_at().max(held_back)
    }

    pub fn creates(&mut self, credential: CredentialId) -> &mut Rate {
        let Rates {
            creates,
            create_rate,
            ..
        } = &mut self.rates;
        let rate = creates.entry(self.organizations.owner(credential));
        rate.or_insert_with(|| create_rate.clone())
    }

    pub fn polls(&mut self, credential: CredentialId) -> &mut Rate {
        let Rates {
            polls, poll_rate, ..
        } = &mut self.rates;
        let rate = polls.entry(self.organizations.owner(credential));
        rate.or_insert_with(|| poll_rate.clone())
    }
}
