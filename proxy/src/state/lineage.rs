//! The chain a delegation hangs on: what is checked each time something is minted or used through it.

use std::sync::Arc;

use super::State;
use super::desk::MAX_CHAIN;
use super::model::Delegation;

impl State {
    /// The chain from its root down to `edge`, or none when any part of it does not stand: every edge active and
    /// unexpired, both sessions of each live, each edge issued by what the one above it received, and no edge
    /// with more edges from itself down than its hops allow. At most ten edges.
    ///
    /// Cost: three look-ups per edge.
    #[must_use]
    pub fn lineage(&self, zone: &str, edge: &str, now: i64) -> Option<Vec<Arc<Delegation>>> {
        let mut chain: Vec<Arc<Delegation>> = Vec::new();
        let mut next = Some(Arc::<str>::from(edge));
        while let Some(id) = next.take() {
            let edge = self.live_delegation(zone, &id, now)?;
            let source = self.live_session(zone, &edge.source_session, now)?;
            let target = self.live_session(zone, &edge.target_session, now)?;
            let below = chain.last();
            let joined = below.is_none_or(|below| {
                below.source_session == edge.target_session
                    && below.issuer_application == edge.receiver_application
            });
            let length = chain.len().saturating_add(1);
            let hops = usize::try_from(edge.constraints.hops()).unwrap_or(usize::MAX);
            if !joined
                || source.application != edge.issuer_application
                || target.application != edge.receiver_application
                || length > hops
                || length > MAX_CHAIN
            {
                return None;
            }
            next = edge.parent.clone();
            chain.push(edge);
        }
        chain.reverse();
        Some(chain)
    }
}
