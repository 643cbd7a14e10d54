//! What comes out of the tunnel at a VPN server, so that "through the tunnel" is seen, not inferred.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::Lab;
use super::canary::{self, Canary, Flow};
use super::capture::Capture;
use super::classify::packet_flow;

/// A running sensor behind one server; ends when dropped.
pub struct Inside {
    seen: Arc<Mutex<Seen>>,
    _capture: Capture,
}

#[derive(Default)]
struct Seen {
    canaries: HashSet<Canary>,
    flows: HashSet<Flow>,
}

impl Inside {
    /// Behind server `n`, 1 or 2. Returns once it receives.
    pub fn watch(lab: &Lab, n: usize) -> Self {
        let server = &lab.servers[n - 1];
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = seen.clone();
        let handle = move |frame: &super::capture::Frame<'_>| {
            let mut seen = shared.lock().unwrap();
            seen.canaries.extend(canary::find(frame.bytes));
            seen.flows.extend(packet_flow(frame.bytes));
        };
        let capture = Capture::start(&lab.ns, &server.namespace, &server.device, handle);
        Self {
            seen,
            _capture: capture,
        }
    }

    /// Whether the token or the flow was seen.
    pub fn saw(&self, token: &Canary, flow: Option<&Flow>) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.canaries.contains(token) || flow.is_some_and(|flow| seen.flows.contains(flow))
    }
}
