//! A kernel that takes, refuses or loses orders, at once or late, and what the guard says to the world meanwhile.

use std::collections::VecDeque;

use super::*;

/// What the kernel makes of the next order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    Takes,
    TakesWithoutRoutes,
    Refuses,
    /// It takes the order, and its answer is lost.
    TakesInSilence,
    /// It refuses the order, and its answer is lost.
    RefusesInSilence,
}

/// The kernel, and orders on their way to it.
#[derive(Default)]
pub(super) struct Kernel {
    /// What it holds.
    pub(super) policy: Policy,
    /// Whether every link was set down and none came up since.
    pub(super) down: bool,
    under_way: VecDeque<Order>,
    /// The last outcome that the guard heard of: the number, and whether it was taken.
    pub(super) heard: Option<(u64, bool)>,
    /// Number of the newest order.
    newest: u64,
    /// What it held when the guard last heard that an order was in force.
    pub(super) confirmed: Policy,
}

impl Kernel {
    /// Does what the guard decided, and checks each answer against what was confirmed.
    pub(super) fn perform(&mut self, guard: &mut Guard, doing: Vec<Do>, now: Instant) {
        for it in doing {
            match it {
                Do::Enforce(order) => {
                    self.newest = order.number;
                    self.under_way.push_back(*order);
                }
                Do::LinksDown => {
                    self.down = true;
                    let links = vec!["eth0".parse().unwrap()];
                    let more = guard.handle(Event::LinksDown(links), now);
                    self.perform(guard, more, now);
                }
                Do::SetUp(_) => {
                    assert_eq!(
                        guard.blocked(),
                        None,
                        "a link comes up while all is blocked"
                    );
                    self.down = false;
                }
                Do::Answer(answer) => self.check(&answer),
                Do::Verify
                | Do::SetDown(_)
                | Do::Forgive
                | Do::Adopt
                | Do::DropEngine
                | Do::Tell(_)
                | Do::Note(_) => {}
            }
        }
    }

    /// Each confirmation is preceded by the kernel's.
    fn check(&self, answer: &Answer) {
        let confirmed = self.heard == Some((self.newest, true));
        match answer {
            Answer::Granted { way, .. } => {
                assert!(confirmed, "{answer:?}");
                assert_eq!(way.is_some(), is_open(&self.confirmed), "{answer:?}");
            }
            Answer::Done { .. } | Answer::Agreed => assert!(confirmed, "{answer:?}"),
            Answer::Reloaded(Reload::InForce { .. } | Reload::Unchanged { .. }) => {
                assert!(confirmed, "{answer:?}");
            }
            Answer::Welcome { .. } => {
                assert!(!is_open(&self.confirmed) || self.down, "{answer:?}");
            }
            Answer::Reloaded(Reload::EngineDiffers { .. } | Reload::Refused(_))
            | Answer::Refused { .. }
            | Answer::NotDone { .. }
            | Answer::Declined(_) => {}
        }
    }

    /// The kernel takes up the next order. Returns whether there was one.
    pub(super) fn step(&mut self, guard: &mut Guard, mood: Mood, now: Instant) -> bool {
        let Some(order) = self.under_way.pop_front() else {
            return false;
        };
        let number = order.number;
        let taken = matches!(
            mood,
            Mood::Takes | Mood::TakesWithoutRoutes | Mood::TakesInSilence
        );
        if taken {
            self.policy = order.policy.clone();
        }
        let why = "as the test has it".to_owned();
        let outcome = match mood {
            Mood::Takes | Mood::TakesWithoutRoutes => Event::Enforced(Enforced {
                number,
                routes: matches!(mood, Mood::TakesWithoutRoutes).then_some(why),
                bare: Vec::new(),
            }),
            Mood::Refuses => Event::Refused {
                number,
                refusal: Refusal::Refused(why),
            },
            Mood::TakesInSilence | Mood::RefusesInSilence => Event::Refused {
                number,
                refusal: Refusal::Unknown(why),
            },
        };
        let confirmed = matches!(outcome, Event::Enforced(_));
        let before = self.confirmed.clone();
        self.heard = Some((number, confirmed));
        let newest = number == self.newest;
        // An outcome that was overtaken is no news to the guard.
        if confirmed && newest {
            self.confirmed = self.policy.clone();
        }
        let doing = guard.handle(outcome, now);
        if newest && !confirmed {
            only_back(&doing, &before);
        }
        self.perform(guard, doing, now);
        true
    }
}

/// After a refusal follows what was in force before, deny-all, or no link at all: never more than was confirmed.
fn only_back(doing: &[Do], before: &Policy) {
    for order in orders(doing) {
        let less = order.policy == Policy::default() || !is_wider(&order.policy, before);
        assert!(
            less,
            "{:?} after a refusal; before: {before:?}",
            order.policy
        );
    }
}

/// Whether a policy opens a flow of our own or a LAN exception that the other does not.
fn is_wider(policy: &Policy, than: &Policy) -> bool {
    let Some(uplink) = &policy.uplink else {
        return false;
    };
    let Some(other) = &than.uplink else {
        return is_open(policy);
    };
    let flow = |new: Option<crate::policy::Hole>, old| new.is_some() && new != old;
    flow(uplink.endpoint, other.endpoint) || flow(uplink.resolver, other.resolver)
}
