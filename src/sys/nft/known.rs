//! Whether our tables are certain to hold what they held when we last knew. Pure.

use crate::ruleset::Ruleset;

/// The rules in our tables, as far as they are certain. `Default` is not at all.
#[derive(Debug, Default)]
pub(super) struct Known(Option<Certain>);

#[derive(Debug)]
struct Certain {
    ruleset: Ruleset,
    /// Number of the kernel's ruleset that held them, if no other change can have come between.
    generation: Option<u32>,
}

impl Known {
    /// The kernel took `ruleset` from us; the numbers were asked for before and afterwards. Each transaction of anybody
    /// counts one (`nf_tables_commit`, net/netfilter/nf_tables_api.c), so with ours alone they are neighbours.
    pub(super) fn loaded(ruleset: &Ruleset, before: Option<u32>, after: Option<u32>) -> Self {
        let alone = before.zip(after).filter(|(before, after)| {
            // 0 is left out.
            let next = before.wrapping_add(1).max(1);
            *after == next
        });
        Self(Some(Certain {
            ruleset: ruleset.clone(),
            generation: alone.map(|(_, after)| after),
        }))
    }

    /// They were read back and are those of `ruleset`; the numbers are from before and afterwards.
    pub(super) fn read(ruleset: &Ruleset, before: Option<u32>, after: Option<u32>) -> Self {
        Self(Some(Certain {
            ruleset: ruleset.clone(),
            generation: before.filter(|_| before == after),
        }))
    }

    /// Whether our tables hold `ruleset` for certain: nobody but `owner`, who we are, may change them, or nobody changed
    /// anything since (`now` is the number of the kernel's ruleset).
    pub(super) fn is(&self, ruleset: &Ruleset, owner: Option<u32>, now: Option<u32>) -> bool {
        let Some(known) = &self.0 else { return false };
        let unchanged = now.is_some() && known.generation == now;
        (owner.is_some() || unchanged) && known.ruleset == *ruleset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Kernel;

    fn rules(device: &str) -> Ruleset {
        Ruleset::deny_all(&[device.parse().unwrap()], Kernel::FULL)
    }

    #[test]
    fn what_we_loaded_is_known_until_anybody_changes_anything() {
        let ours = rules("eth0");
        let known = Known::loaded(&ours, Some(7), Some(8));
        assert!(known.is(&ours, None, Some(8)));
        assert!(!known.is(&ours, None, Some(9)));
        assert!(!known.is(&ours, None, None));
        assert!(!known.is(&rules("wlan0"), None, Some(8)));
        let wrapped = Known::loaded(&ours, Some(u32::MAX), Some(1));
        assert!(wrapped.is(&ours, None, Some(1)));
    }

    #[test]
    fn a_change_beside_ours_leaves_nothing_known() {
        let ours = rules("eth0");
        for (before, after) in [
            (Some(7), Some(9)),
            (Some(7), Some(7)),
            (None, Some(8)),
            (Some(7), None),
            (None, None),
        ] {
            let known = Known::loaded(&ours, before, after);
            for now in [None, before, after, Some(8)] {
                assert!(!known.is(&ours, None, now), "{before:?} {after:?} {now:?}");
            }
        }
        assert!(!Known::default().is(&ours, Some(1), Some(1)));
    }

    #[test]
    fn what_was_read_is_known_if_nothing_changed_meanwhile() {
        let ours = rules("eth0");
        assert!(Known::read(&ours, Some(7), Some(7)).is(&ours, None, Some(7)));
        for (before, after) in [(Some(7), Some(8)), (None, None), (None, Some(8))] {
            let known = Known::read(&ours, before, after);
            assert!(!known.is(&ours, None, after), "{before:?} {after:?}");
        }
    }

    #[test]
    fn nobody_changes_what_only_we_may_change() {
        let ours = rules("eth0");
        let known = Known::loaded(&ours, Some(7), Some(12));
        assert!(known.is(&ours, Some(4711), Some(99)));
        assert!(!known.is(&rules("wlan0"), Some(4711), Some(12)));
    }
}
