//! Random policies on random hosts: what is accepted is without a mistake, and where a plan reaches its end on an imagined
//! kernel, whatever call failed on the way, every required item is there. The fuzz targets `compile` and `mounts` do the same.

#[cfg(test)]
#[path = "support/oracle.rs"]
mod oracle;

#[cfg(test)]
mod tests {
    use std::env;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use crate::oracle::spec::About;
    use crate::oracle::{Seen, examine};

    /// Seeds `1..=rounds()`; `RINGFENCE_PLANS_ROUNDS` for more.
    fn rounds() -> u64 {
        let wanted = env::var("RINGFENCE_PLANS_ROUNDS").ok();
        wanted.map_or(1_500, |text| text.parse().expect("RINGFENCE_PLANS_ROUNDS is a number"))
    }

    /// xorshift64*: the same bytes in each run.
    fn bytes(seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut word = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
        };
        (0..48).flat_map(|_| word()).collect()
    }

    fn all(about: About) -> Seen {
        let mut sum = Seen::default();
        for seed in 1..=rounds() {
            let seen = catch_unwind(AssertUnwindSafe(|| examine(&bytes(seed), about)));
            let seen =
                seen.unwrap_or_else(|_| panic!("seed {seed} of {about:?}: see the panic before this one"));
            sum.mistaken += seen.mistaken;
            sum.refused += seen.refused;
            sum.plans += seen.plans;
            sum.ended += seen.ended;
            sum.ended_all_the_same += seen.ended_all_the_same;
        }
        sum
    }

    #[test]
    fn every_required_item_of_a_random_policy_has_its_calls() {
        let seen = all(About::Everything);
        assert!(seen.mistaken > 50 && seen.refused > 20, "{seen:?}");
        assert!(seen.plans > 100 && seen.ended > 100 && seen.ended_all_the_same > 10, "{seen:?}");
    }

    #[test]
    fn on_a_root_of_the_host_no_mount_point_is_made_in_a_tmpfs() {
        // The fuzz target's corpus has the same bytes: `compile/below-a-tmpfs-on-the-host`.
        let seen = examine(&bytes(3_075), About::Everything);
        assert_eq!((seen.plans, seen.ended), (1, 0), "a plan that gives up for want of the mount point");
    }

    #[test]
    fn a_preferred_dev_that_is_attached_is_completed_or_nothing_runs() {
        // `compile/dev-attached-and-not-closed`: the call behind the attaching fails.
        let seen = examine(&bytes(4_643), About::Everything);
        assert_eq!((seen.plans, seen.ended), (1, 1));
    }

    #[test]
    fn a_host_that_copies_mounts_and_lacks_the_calls_to_attach_them_is_one_without() {
        // `compile/copies-without-calls`.
        let seen = examine(&bytes(7_919), About::Everything);
        assert_eq!((seen.plans, seen.ended), (1, 1));
    }

    #[test]
    fn a_random_mount_tree_is_refused_or_stands_as_it_was_asked_for() {
        let seen = all(About::Mounts);
        assert!(seen.mistaken > 100 && seen.plans > 100 && seen.ended > 50, "{seen:?}");
    }
}
