//! `FORMAT.md` tells of every table that there is, and of no other.

use std::collections::BTreeSet;

use outrigger_sidecar::store::schema::{FORMAT_VERSION, META_KEYS, MIRROR_META_KEYS, Table};

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

/// The text names each of these facts, and those of the identity.
fn names_each(text: &str, facts: &[&[u8]]) {
    for fact in ["format", "network", "node_id"].map(str::as_bytes).iter().chain(facts) {
        let name = format!("`{}`", String::from_utf8_lossy(fact));
        assert!(text.contains(&name), "{name}");
    }
}

#[test]
fn per_7_the_document_tells_the_version_and_each_fact_in_meta() {
    names_each(DOCUMENT.lines().find(|line| line.starts_with("| `meta` |")).unwrap(), META_KEYS);
    names_each(DOCUMENT.split("\n\n").find(|part| part.starts_with("A *mirror* is")).unwrap(), MIRROR_META_KEYS);
    assert!(DOCUMENT.contains(&format!("This is format {FORMAT_VERSION}.")));
}
