//! The alerts that came last, by uuid: what comes again is the same alert.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

/// How many are remembered. An exec session is seen when it begins and when it ends, hours later: so many alerts may come in
/// between.
pub(crate) const RECENT: usize = 65_536;

/// The uuids that came last.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    known: HashSet<Uuid, foldhash::fast::RandomState>,
    order: VecDeque<Uuid>,
}

impl Recent {
    /// False if the uuid is known.
    pub(crate) fn insert(&mut self, uuid: Uuid) -> bool {
        if !self.known.insert(uuid) {
            return false;
        }
        self.order.push_back(uuid);
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl FromIterator<Uuid> for Recent {
    fn from_iter<I: IntoIterator<Item = Uuid>>(uuids: I) -> Recent {
        let mut recent = Recent::default();
        for uuid in uuids {
            recent.insert(uuid);
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_known() {
        let uuid = |n: usize| Uuid::from_u128(n as u128);
        let mut recent: Recent = (0..RECENT).map(uuid).collect();
        assert!(!recent.insert(uuid(0)) && !recent.insert(uuid(RECENT - 1)));
        assert!(recent.insert(uuid(RECENT)));
        assert!(recent.insert(uuid(0)), "the oldest had to go");
    }
}
