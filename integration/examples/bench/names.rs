//! What a whole run measures: the groups of scenarios, how long each may take, and the names of their figures.

/// Scenarios that share a set-up.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// How long it may take on the machine of ADR 10, in seconds. Rounds that would go beyond are left out.
    pub(crate) secs: u64,
    /// The figures that it gives, all of them in every run that it is part of.
    pub(crate) figures: &'static [&'static str],
}

/// How long a whole run may take, in seconds.
#[cfg(test)]
pub(crate) const WHOLE_RUN_SECS: u64 = 1800;

/// The groups, in the order in which they run.
pub(crate) const GROUPS: [Group; 11] = [
    Group {
        name: "floor",
        secs: 5,
        figures: &["floor_sign", "floor_verify", "floor_verify_busy", "floor_point_multiplication", "floor_sync"],
    },
    Group {
        name: "relay_8",
        secs: 330,
        figures: &[
            "relay_8_native",
            "relay_8_cpu",
            "relay_8_memory",
            "relay_8_verifications",
            "relay_8_times_floor",
            "relay_8_times_floor_busy",
            "relay_8_commitments",
            "relay_8_syncs_native",
            "relay_8_sync4ms",
            "relay_8_syncs_sync4ms",
            "relay_8_nosync",
            "relay_8_syncs_nosync",
            "relay_8_dust",
            "relay_8_dust_cpu",
        ],
    },
    Group {
        name: "one_channel",
        secs: 200,
        figures: &[
            "one_channel_32_native",
            "one_channel_32_commitments",
            "one_channel_32_syncs_native",
            "one_channel_32_sync4ms",
            "one_channel_32_syncs_sync4ms",
            "one_channel_32_nosync",
            "one_channel_32_dust",
        ],
    },
    Group {
        name: "latency",
        secs: 200,
        figures: &[
            "latency_native",
            "latency_native_p99",
            "latency_native_beside_at_once",
            "latency_sync4ms",
            "latency_sync4ms_p99",
            "latency_nosync",
            "latency_nosync_p99",
        ],
    },
    Group {
        name: "aged",
        secs: 270,
        figures: &[
            "aged_20000_first",
            "aged_20000_last",
            "aged_20000",
            "aged_1_staged",
            "aged_1000_staged",
            "aged_10000_staged",
            "aged_100000_staged",
            "aged_1_written",
            "aged_1000_written",
            "aged_10000_written",
            "aged_100000_written",
            "aged_1_commit_written",
            "aged_1000_commit_written",
            "aged_10000_commit_written",
            "aged_100000_commit_written",
            "aged_1_commit",
            "aged_1000_commit",
            "aged_10000_commit",
            "aged_100000_commit",
            "aged_1_memory",
            "aged_1000_memory",
            "aged_10000_memory",
            "aged_100000_memory",
        ],
    },
    Group {
        name: "many",
        secs: 420,
        figures: &[
            "cpu_0_channels",
            "latency_0_channels",
            "start_10",
            "start_10_memory",
            "start_100",
            "start_100_memory",
            "cpu_1000_channels",
            "latency_1000_channels",
            "start_1000",
            "start_1000_memory",
            "cpu_5000_channels",
            "cpu_5000_growth",
            "latency_5000_channels",
            "start_5000",
            "start_5000_memory",
            "memory_per_channel",
        ],
    },
    Group {
        name: "isolation",
        secs: 80,
        figures: &[
            "isolation_483_before",
            "isolation_483",
            "isolation_483_growth",
            "isolation_483_htlcs",
            "isolation_stalled_before",
            "isolation_stalled",
            "isolation_stalled_growth",
        ],
    },
    Group {
        name: "relay_few",
        secs: 80,
        figures: &["relay_1_native", "relay_1_cpu", "relay_2_native", "relay_2_cpu", "relay_4_native", "relay_4_cpu"],
    },
    Group { name: "relay_16", secs: 110, figures: &["relay_16_native", "relay_16_cpu"] },
    Group { name: "flight", secs: 90, figures: &["flight_1", "flight_8", "flight_50", "flight_100", "flight_400"] },
    Group { name: "start_status", secs: 10, figures: &["start_status_first", "start_status", "start_status_share"] },
];

/// What `--sinks` measures, of Outrigger alone: what backups cost, and what a crash does. Not part of a whole run, which they
/// would make longer than half an hour.
pub(crate) const SINK_GROUPS: [Group; 5] = [
    Group {
        name: "sinks_relay",
        secs: 330,
        figures: &[
            "sinks_relay_8_native_none",
            "sinks_relay_8_native_mirror",
            "sinks_relay_8_native_mirror_follow",
            "sinks_relay_8_native_directory",
            "sinks_relay_8_native_command",
            "sinks_relay_8_syncs_native_none",
            "sinks_relay_8_syncs_native_mirror",
            "sinks_relay_8_syncs_native_mirror_follow",
            "sinks_relay_8_syncs_native_directory",
            "sinks_relay_8_syncs_native_command",
            "sinks_relay_8_sync4ms_none",
            "sinks_relay_8_sync4ms_mirror",
            "sinks_relay_8_sync4ms_mirror_follow",
            "sinks_relay_8_sync4ms_directory",
            "sinks_relay_8_sync4ms_command",
            "sinks_relay_8_syncs_sync4ms_none",
            "sinks_relay_8_syncs_sync4ms_mirror",
            "sinks_relay_8_syncs_sync4ms_mirror_follow",
            "sinks_relay_8_syncs_sync4ms_directory",
            "sinks_relay_8_syncs_sync4ms_command",
            "sinks_relay_8_native_mirror_kept",
            "sinks_relay_8_syncs_native_mirror_times",
            "sinks_relay_8_sync4ms_mirror_kept",
            "sinks_relay_8_syncs_sync4ms_mirror_times",
        ],
    },
    Group {
        name: "sinks_one_channel",
        secs: 240,
        figures: &[
            "sinks_one_channel_32_native_none",
            "sinks_one_channel_32_native_mirror",
            "sinks_one_channel_32_native_mirror_follow",
            "sinks_one_channel_32_native_directory",
            "sinks_one_channel_32_native_command",
            "sinks_one_channel_32_syncs_native_none",
            "sinks_one_channel_32_syncs_native_mirror",
            "sinks_one_channel_32_syncs_native_mirror_follow",
            "sinks_one_channel_32_syncs_native_directory",
            "sinks_one_channel_32_syncs_native_command",
            "sinks_one_channel_32_sync4ms_none",
            "sinks_one_channel_32_sync4ms_mirror",
            "sinks_one_channel_32_sync4ms_mirror_follow",
            "sinks_one_channel_32_sync4ms_directory",
            "sinks_one_channel_32_sync4ms_command",
            "sinks_one_channel_32_syncs_sync4ms_none",
            "sinks_one_channel_32_syncs_sync4ms_mirror",
            "sinks_one_channel_32_syncs_sync4ms_mirror_follow",
            "sinks_one_channel_32_syncs_sync4ms_directory",
            "sinks_one_channel_32_syncs_sync4ms_command",
            "sinks_one_channel_32_native_mirror_kept",
            "sinks_one_channel_32_syncs_native_mirror_times",
            "sinks_one_channel_32_sync4ms_mirror_kept",
            "sinks_one_channel_32_syncs_sync4ms_mirror_times",
        ],
    },
    Group {
        name: "sinks_aged",
        secs: 240,
        figures: &[
            "sinks_aged_1_every_1_written",
            "sinks_aged_1_every_10_written",
            "sinks_aged_1_every_100_written",
            "sinks_aged_1_every_1000_written",
            "sinks_aged_1000_every_1_written",
            "sinks_aged_1000_every_10_written",
            "sinks_aged_1000_every_100_written",
            "sinks_aged_1000_every_1000_written",
            "sinks_aged_10000_every_1_written",
            "sinks_aged_10000_every_10_written",
            "sinks_aged_10000_every_100_written",
            "sinks_aged_10000_every_1000_written",
            "sinks_aged_100000_every_1_written",
            "sinks_aged_100000_every_10_written",
            "sinks_aged_100000_every_100_written",
            "sinks_aged_100000_every_1000_written",
            "sinks_aged_1_every_1_time",
            "sinks_aged_1_every_10_time",
            "sinks_aged_1_every_100_time",
            "sinks_aged_1_every_1000_time",
            "sinks_aged_1000_every_1_time",
            "sinks_aged_1000_every_10_time",
            "sinks_aged_1000_every_100_time",
            "sinks_aged_1000_every_1000_time",
            "sinks_aged_10000_every_1_time",
            "sinks_aged_10000_every_10_time",
            "sinks_aged_10000_every_100_time",
            "sinks_aged_10000_every_1000_time",
            "sinks_aged_100000_every_1_time",
            "sinks_aged_100000_every_10_time",
            "sinks_aged_100000_every_100_time",
            "sinks_aged_100000_every_1000_time",
        ],
    },
    Group {
        name: "sinks_stalled",
        secs: 90,
        figures: &["sinks_stalled_before", "sinks_stalled", "sinks_stalled_growth", "sinks_stalled_waited"],
    },
    Group {
        name: "start_killed",
        secs: 240,
        figures: &["start_killed_clean", "start_killed", "start_killed_growth", "start_killed_size"],
    },
];

impl Group {
    /// Whether one of these names asks for it.
    fn is_named(&self, names: &[String]) -> bool {
        names.iter().any(|name| name == self.name || self.figures.contains(&name.as_str()))
    }
}

/// Every group, whichever run it is part of.
fn every() -> impl Iterator<Item = &'static Group> {
    GROUPS.iter().chain(&SINK_GROUPS)
}

/// The groups of a run: those that are named, or where nothing is named the whole run's or those of the sinks.
pub(crate) fn asked(names: &[String], is_of_sinks: bool) -> Vec<&'static Group> {
    match (names, is_of_sinks) {
        ([], false) => GROUPS.iter().collect(),
        ([], true) => SINK_GROUPS.iter().collect(),
        (names, _) => every().filter(|group| group.is_named(names)).collect(),
    }
}

/// What a name may be: the groups'.
pub(crate) fn groups() -> Vec<&'static str> {
    every().map(|group| group.name).collect()
}

/// The first of the names that no group and no figure has.
pub(crate) fn unknown(names: &[String]) -> Option<&String> {
    names.iter().find(|name| !every().any(|group| group.is_named(std::slice::from_ref(name))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bounds::{BOUNDS, Bound};

    /// The names of issue 4, part 5.
    const PROMISED: [&str; 10] = [
        "relay_8_sync4ms",
        "relay_8_native",
        "relay_8_cpu",
        "one_channel_32_sync4ms",
        "one_channel_32_native",
        "latency_native",
        "latency_sync4ms",
        "cpu_5000_channels",
        "aged_20000",
        "start_1000",
    ];

    #[test]
    fn a_whole_run_has_every_name_that_was_promised_once() {
        let figures = |groups: &[Group]| groups.iter().flat_map(|group| group.figures).copied().collect::<Vec<_>>();
        let (whole, sinks) = (figures(&GROUPS), figures(&SINK_GROUPS));
        for promised in PROMISED.into_iter().chain(["relay_8_nosync"]) {
            assert!(whole.contains(&promised), "{promised}");
        }
        // Issue 5, part 6.
        assert!(sinks.contains(&"sinks_aged_100000_every_1_written"));
        let names = [whole, sinks].concat();
        for Bound { figure, .. } in &BOUNDS {
            assert!(names.contains(figure), "{figure}");
        }
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name stands twice");
    }

    #[test]
    fn the_groups_fit_into_half_an_hour() {
        assert!(GROUPS.iter().map(|group| group.secs).sum::<u64>() < WHOLE_RUN_SECS);
    }

    #[test]
    fn a_name_asks_for_its_group_alone_and_an_unknown_one_is_found() {
        let asked = ["cpu_5000_channels".to_owned()];
        let wanted: Vec<&str> = super::asked(&asked, false).iter().map(|it| it.name).collect();
        assert_eq!(wanted, ["many"]);
        assert_eq!(unknown(&asked), None);
        let odd = ["floor".to_owned(), "cpu_5001_channels".to_owned()];
        assert_eq!(unknown(&odd), Some(&odd[1]));
    }

    #[test]
    fn sinks_are_measured_where_they_are_asked_for_and_else_not() {
        let names = |groups: Vec<&Group>| groups.iter().map(|group| group.name).collect::<Vec<_>>();
        let (whole, sinks) = (names(asked(&[], false)), names(asked(&[], true)));
        assert_eq!((whole.len(), sinks.len()), (GROUPS.len(), SINK_GROUPS.len()));
        assert!(sinks.iter().all(|name| !whole.contains(name)));
        let one = ["sinks_stalled".to_owned()];
        assert_eq!(names(asked(&one, false)), ["sinks_stalled"]);
    }
}
