//! `FORMAT.md` tells of every table that there is, and of no other.

use std::collections::BTreeSet;

use outrigger_sidecar::store::schema::{
    FORMAT_VERSION, GENERATION_KEY, JOURNAL_KEY, RESERVE_LOW_KEY, RESTORED_KEY, SINKS_KEY, Table,
};

const DOCUMENT: &str = include_str!("../src/store/FORMAT.md");

#[test]
fn per_7_the_document_names_every_table_and_no_other() {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let told: Vec<_> = rows.map(|(name, rest)| (name, rest.trim_matches(['|', ' ']).split(" | ").count())).collect();
    let names: BTreeSet<_> = told.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), told.len(), "a table is told of twice");
    assert_eq!(names, Table::ALL.iter().map(|table| table.name()).collect());
    for (name, columns) in told {
        assert_eq!(columns, 3, "{name}: key, value, and how long it lives");
    }
}

#[test]
fn per_7_the_document_tells_the_version_and_each_fact_in_meta() {
    let meta = DOCUMENT.lines().find(|line| line.starts_with("| `meta` |")).unwrap();
    let keyed = [GENERATION_KEY, JOURNAL_KEY, RESERVE_LOW_KEY, RESTORED_KEY, SINKS_KEY];
    for fact in ["format", "network", "node_id"].map(str::as_bytes).into_iter().chain(keyed) {
        let name = format!("`{}`", str::from_utf8(fact).unwrap());
        assert!(meta.contains(&name), "{name}");
    }
    assert!(DOCUMENT.contains(&format!("This is format {FORMAT_VERSION}.")));
}
