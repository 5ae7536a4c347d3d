//! Where work goes: by id, and found by the credential that pays for it.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Deref,
};

use crate::model::{
    id::{CredentialId, DestinationId},
    request::Destination,
};

use super::index::Index;

/// What a destination is never changes.
#[derive(Default)]
pub(in crate::engine) struct Destinations {
    known: HashMap<DestinationId, Destination>,
    credentials: Index<CredentialId, DestinationId>,
}

impl Deref for Destinations {
    type Target = HashMap<DestinationId, Destination>;

    fn deref(&self) -> &Self::Target {
        &self.known
    }
}

impl Destinations {
    pub fn know(&mut self, destination: &Destination) {
        let Destination { id, credential, .. } = *destination;
        self.known.entry(id).or_insert_with(|| {
            self.credentials.insert(credential, id);
            destination.clone()
        });
    }

    /// Those that the credential pays for, in the order of their ids.
    pub fn of(&self, credential: CredentialId) -> impl Iterator<Item = &Destination> {
        let ids = self.credentials.get(&credential);
        ids.filter_map(|id| self.known.get(id))
    }

    /// Forgets them.
    pub fn take(&mut self, credential: CredentialId) -> BTreeSet<DestinationId> {
        let ids = self.credentials.take(&credential);
        for id in &ids {
            self.known.remove(id);
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{endpoint::Endpoint, id::TenantId};

    fn destination(number: u8, credential: u8) -> Destination {
        Destination {
            id: DestinationId([number; 16]),
            tenant: TenantId([1; 16]),
            credential: CredentialId([credential; 16]),
            endpoint: Endpoint::ChatCompletions,
            model: format!("m{number}"),
        }
    }

    #[test]
    fn found_by_who_pays_until_they_are_forgotten() {
        let mut destinations = Destinations::default();
        for (number, credential) in [(3, 8), (1, 8), (2, 9), (1, 8)] {
            destinations.know(&destination(number, credential));
        }
        let of = |destinations: &Destinations, credential| -> Vec<String> {
            let of_it = destinations.of(CredentialId([credential; 16]));
            of_it.map(|it| it.model.clone()).collect()
        };
        assert_eq!(of(&destinations, 8), ["m1", "m3"]);
        let taken = destinations.take(CredentialId([8; 16]));
        assert_eq!(taken, [1, 3].map(|n| DestinationId([n; 16])).into());
        assert_eq!(of(&destinations, 8), [""; 0]);
        assert_eq!((of(&destinations, 9).len(), destinations.len()), (1, 1));
        // It comes back.
        destinations.know(&destination(1, 8));
        assert_eq!(of(&destinations, 8), ["m1"]);
    }
}
