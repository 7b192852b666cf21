//! Whether a weight of block devices is heeded: a file takes it whether or not any device is divided by it. It must not change
//! a device.

use std::fs;
use std::path::Path;

use crate::plan::LimitRung;

const UNHEEDED: &str =
    "no block device here is divided by weights: none has the scheduler bfq, and io.cost.qos enables none";
const UNKNOWN: &str = "whether a block device is divided by weights cannot be seen from here";

/// What a device is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heed {
    /// At least one is.
    Some,
    None,
    Unknown,
}

impl Heed {
    /// BFQ is a scheduler of a device (the kernel's block/bfq-iosched). The division by the controller itself is turned on for
    /// a device in a file of the root group (admin-guide/cgroup-v2), which a container does not see.
    pub(super) fn look(rung: LimitRung) -> Self {
        let Ok(devices) = fs::read_dir("/sys/block") else { return Self::Unknown };
        let schedulers = devices.map(|device| fs::read_to_string(device?.path().join("queue/scheduler")));
        let schedulers: Vec<String> = schedulers.filter_map(Result::ok).collect();
        let cost = (rung != LimitRung::CgroupV1).then(|| {
            let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
            places.iter().find_map(|place| fs::read_to_string(Path::new(place).join("io.cost.qos")).ok())
        });
        Self::judge(&schedulers, cost.as_ref().map(Option::as_deref))
    }

    /// `cost`: what is in that file, where it matters and is seen.
    fn judge(schedulers: &[String], cost: Option<Option<&str>>) -> Self {
        let enabled = |text: &str| text.split_whitespace().any(|word| word == "enable=1");
        if schedulers.iter().any(|text| text.contains("[bfq]")) || cost.flatten().is_some_and(enabled) {
            Self::Some
        } else if cost == Some(None) {
            Self::Unknown
        } else {
            Self::None
        }
    }

    pub(super) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Some => None,
            Self::None => Some(UNHEEDED),
            Self::Unknown => Some(UNKNOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_heeded_by_a_scheduler_or_by_the_controller() {
        let plain = ["[none] mq-deadline bfq\n".to_owned()];
        let bfq = ["[none] mq-deadline\n".to_owned(), "mq-deadline [bfq] none\n".to_owned()];
        let on = "8:0 enable=0 ctrl=auto\n8:16 enable=1 ctrl=user rpct=95.00\n";
        let off = "8:0 enable=0 ctrl=auto rpct=0.00\n";
        for (schedulers, cost, heed) in [
            (&bfq[..], Some(Some("")), Heed::Some),
            (&bfq[..], None, Heed::Some),
            (&bfq[..], Some(None), Heed::Some),
            (&plain[..], Some(Some(on)), Heed::Some),
            (&plain[..], Some(Some(off)), Heed::None),
            (&plain[..], Some(Some("")), Heed::None),
            (&plain[..], None, Heed::None),
            (&[], Some(None), Heed::Unknown),
        ] {
            assert_eq!(Heed::judge(schedulers, cost), heed, "{schedulers:?} {cost:?}");
        }
    }
}
