//! The dangers that this project covers, each by the number of its row: what once lost, froze or crashed Lightning nodes
//! (`FND` funding, `CST` channel state, `PRS` parsing, `PAY` payments, `CLK` clocks, `PER` persistence, `BAK` backups, `DSK` disks, `RPC` the plugin interface, `KEY` secrets), and inputs that a peer, a file or a chain may give
//! (`bad_input`). A row is covered by a test that carries its number in its name, or stands here with the reason why not.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use outrigger_integration::Done;

const COVERED: &[(&str, &[RangeInclusive<u32>])] = &[
    ("bad_input", &[1..=68, 77..=77, 79..=93, 95..=99, 104..=104]),
    ("fnd", &[1..=14]),
    ("cst", &[1..=20]),
    ("prs", &[1..=10]),
    ("pay", &[1..=11]),
    ("clk", &[1..=3]),
    ("per", &[1..=9]),
    ("bak", &[1..=8]),
    ("dsk", &[1..=11]),
    ("rpc", &[1..=11]),
    ("key", &[1..=5]),
];

/// Rows about what this node does not have, or does not have yet.
const NOT_HERE: &[(&str, u32, &str)] = &[
    ("pay", 6, "phantom and intercepted payments: not there"),
    ("fnd", 14, "splicing: not there"),
    ("cst", 18, "taproot channels and their nonces: not there"),
    ("cst", 19, "splicing and RBF of openings: not there"),
    (
        "prs",
        3,
        "onion messages and LSPS: not there; the fuzz target channel_messages looks for the same in what there is",
    ),
];

#[test]
fn every_danger_is_covered_by_a_test_that_carries_its_number() -> Done<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["plugin", "rpc-schema", "integration"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    let mut tests = BTreeSet::new();
    for file in files {
        tests.extend(tests_of(&std::fs::read_to_string(file)?));
    }
    let tested: BTreeSet<(String, u32)> = tests.iter().flat_map(|name| numbers_of(name)).collect();
    let (mut covered, mut missing) = (0, Vec::new());
    for (prefix, ranges) in COVERED {
        for number in ranges.iter().cloned().flatten() {
            let is_tested = tested.contains(&((*prefix).to_owned(), number));
            let is_exempt = NOT_HERE.iter().any(|(exempt, row, _)| exempt == prefix && *row == number);
            assert!(!(is_tested && is_exempt), "{prefix}_{number} has a test and a reason for having none");
            match is_tested || is_exempt {
                true => covered += usize::from(is_tested),
                false => missing.push(format!("{prefix}_{number}")),
            }
        }
    }
    println!("{covered} rows covered by {} tests, {} not here", tests.len(), NOT_HERE.len());
    assert_eq!(missing, Vec::<String>::new(), "rows without a test of their number");
    Ok(())
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Done<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The names of the functions that a test attribute stands before; other attributes and comments may come between.
fn tests_of(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(rest) = function {
            let name = rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            if std::mem::take(&mut is_test) {
                names.push(name);
            }
        }
    }
    names
}

/// `cst_2_cst_3_bad_input_50_text` names three rows.
fn numbers_of(name: &str) -> Vec<(String, u32)> {
    let words: Vec<&str> = name.split('_').collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let Ok(number) = word.parse() else { continue };
        let before = at.checked_sub(1).and_then(|before| words.get(before));
        let Some(prefix) = before.filter(|prefix| COVERED.iter().any(|(known, _)| known == *prefix)) else {
            let is_input = before == Some(&"input") && at >= 2 && words.get(at - 2) == Some(&"bad");
            found.extend(is_input.then(|| ("bad_input".to_owned(), number)));
            continue;
        };
        found.push(((*prefix).to_owned(), number));
    }
    found
}

#[test]
fn rows_are_read_from_names() {
    let rows =
        |name: &str| numbers_of(name).into_iter().map(|(prefix, row)| format!("{prefix} {row}")).collect::<Vec<_>>();
    assert_eq!(rows("cst_2_fnd_13_bad_input_07_of_5_kinds"), ["cst 2", "fnd 13", "bad_input 7"]);
    let source =
        "#[test]\n// why\n#[should_panic]\nfn clk_1_a() {}\nfn clk_2_b() {}\n#[tokio::test]\n    async fn prs_3_c()";
    assert_eq!(tests_of(source), ["clk_1_a", "prs_3_c"]);
}
