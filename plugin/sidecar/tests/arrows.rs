//! The arrows of `plugin/ARCHITECTURE.md`: between crates by their manifests, between modules by what they name.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Modules of this crate that a source text names by `crate::` or, one level up, by `super::super::`.
fn named_modules(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let heads = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![rest],
        };
        for head in heads {
            let word: String =
                head.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            named.insert(word);
        }
    }
    named
}

/// What each module of the sidecar may name. `node` and `main` see everything.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("chain", &["chain", "clock", "manager", "lock", "measure"]),
    ("clock", &["clock"]),
    ("config", &["config"]),
    ("fatal", &["fatal"]),
    ("key", &["key", "clock"]),
    ("lock", &["lock"]),
    ("log", &["log", "config", "clock", "lock"]),
    ("manager", &["manager", "store", "key", "clock", "lock"]),
    ("measure", &["measure"]),
    ("net", &["net", "manager", "clock", "lock"]),
    ("payment", &["payment", "manager", "store", "key", "clock", "lock", "token"]),
    ("rpc", &["rpc", "manager", "payment", "config", "clock", "lock", "log", "token"]),
    ("store", &["store", "clock", "fatal", "lock", "measure"]),
    ("supervisor", &["supervisor"]),
    ("sweep", &["sweep", "chain", "wallet", "store", "key", "clock", "lock"]),
    ("token", &["token", "store", "clock", "lock"]),
    ("wallet", &["wallet", "key", "clock", "lock"]),
];

/// Locks are watched where they are made in one module.
#[test]
fn every_lock_of_the_sidecar_is_made_by_its_module_of_locks() {
    let src = root().join("plugin/sidecar/src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_exempt =
            file.starts_with(src.join("lock")) || file.components().any(|part| part.as_os_str() == "tests.rs");
        let foreign = ["parking_lot", "std::sync::Mutex", "std::sync::RwLock", "std::sync::{Arc, Mutex"];
        let named = foreign.iter().find(|name| text.contains(**name));
        assert!(is_exempt || named.is_none(), "{} names {named:?}: locks are made by crate::lock", file.display());
    }
}

/// A simulation gives a thread time and randomness of its own; keys and secrets of a daemon come from the machine (KEY-2).
#[test]
fn key_2_no_thread_of_the_sidecar_replaces_its_clock_or_its_randomness() {
    let src = root().join("plugin/sidecar/src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let is_of_a_test = |file: &PathBuf| file.components().any(|part| part.as_os_str() == "tests");
    let names = |file: &PathBuf| std::fs::read_to_string(file).unwrap().contains("replace_on_this_thread");
    let found: Vec<_> = files.into_iter().filter(|file| names(file) && !is_of_a_test(file)).collect();
    assert_eq!(found, [src.join("clock.rs")], "where it is defined, and nowhere else");
}

/// A simulation signs with digests for most seeds. In the daemon there is one signer, and it looks at signatures and keys on
/// the curve: the trait does so where nobody says otherwise (KEY-4).
#[test]
fn key_4_the_product_has_one_signer_and_it_verifies_on_the_curve() {
    let mut files = Vec::new();
    for folder in ["plugin/bolt/src", "plugin/channel/src", "plugin/sidecar/src"] {
        rust_files(&root().join(folder), &mut files);
    }
    let is_of_a_test = |file: &PathBuf| {
        file.components().any(|part| ["tests", "tests.rs"].map(Some).contains(&part.as_os_str().to_str()))
    };
    let mut signers = Vec::new();
    for file in files.into_iter().filter(|file| !is_of_a_test(file)) {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().filter(|line| line.contains("Signer for ")).map(|line| line.trim().to_owned());
        signers.extend(lines.map(|line| (file.clone(), line)));
    }
    let its_file = root().join("plugin/channel/src/signer.rs");
    assert_eq!(signers, [(its_file.clone(), "impl Signer for SoftSigner {".to_owned())]);
    let text = std::fs::read_to_string(its_file).unwrap();
    for checked in ["fn verify(", "fn commitment_keys("] {
        assert_eq!(text.matches(checked).count(), 1, "{checked} is said once, by the trait");
    }
}

/// Where a commit may be one that is not durable by itself, and why.
const NOT_DURABLE: &[(&str, &str)] = &[
    (
        "commit.rs",
        "the record of the journal that stands before it is durable, and a start puts its rows into the database again",
    ),
    ("backup/mirror/open.rs", "so it is with the journal of a mirror"),
];

/// Where redb is written to, with how many transactions, and why.
const WRITTEN: &[(&str, usize, &str)] = &[
    ("commit.rs", 1, "`apply`: two-phase; behind the journal, or durable"),
    (
        "restore.rs",
        3,
        "a database that is rebuilt, durable and two-phase before it gets its name; and two of a scratch one in memory",
    ),
    ("mod.rs", 1, "a new file, which has nothing but its identity and is renamed when it is whole"),
    ("backup/start.rs", 1, "names of sinks and ids that a start gives: durable and two-phase"),
    ("backup/mirror/place.rs", 1, "a new file, as the one of `mod.rs`"),
];

/// Rows of a channel are durable before anything of them leaves (law 1). redb's `Durability::None` makes rows that readers see and
/// a crash takes back: it stands behind a durable record of the journal, and nowhere else.
#[test]
fn dsk_6_a_commit_that_is_not_durable_stands_only_behind_a_record_of_a_journal() {
    let src = root().join("plugin/sidecar/src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let is_of_a_test = |file: &PathBuf| {
        file.components().any(|part| ["tests", "tests.rs"].map(Some).contains(&part.as_os_str().to_str()))
    };
    let (mut not_durable, mut written) = (Vec::new(), Vec::new());
    for file in files.into_iter().filter(|file| !is_of_a_test(file)) {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = product_of(&text);
        let name = file.strip_prefix(src.join("store")).unwrap_or(&file).to_str().unwrap().to_owned();
        let begun = lines.iter().filter(|line| line.contains("begin_write(")).count();
        written.extend((begun > 0).then(|| (name.clone(), begun)));
        for (at, line) in lines.iter().enumerate() {
            // No other name stands for it: the variants are named with the type's own name.
            assert!(!line.contains("Durability::{") && !line.contains("Durability as"), "{name}: {line}");
            for (_, rest) in line.match_indices("Durability::").map(|(from, word)| (from, &line[from + word.len()..])) {
                if rest.starts_with("Immediate") {
                    continue;
                }
                let body = &lines[lines[..at].iter().rposition(|line| functions(&[*line]).len() == 1).unwrap()..at];
                let is_behind = body.iter().any(|line| line.contains("journal.append("));
                assert!(is_behind, "{name}: {line}: no record of a journal stands before it");
                not_durable.push(name.clone());
            }
            let sets = line.split_once("set_durability(").map(|(_, rest)| rest);
            let is_known = sets.is_none_or(|rest| rest.starts_with("Durability::") || name == "commit.rs");
            assert!(is_known, "{name}: {line}: how durable is it?");
        }
    }
    not_durable.sort();
    written.sort();
    let mut allowed: Vec<_> = NOT_DURABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    allowed.sort();
    assert_eq!(not_durable, allowed);
    let mut known: Vec<_> = WRITTEN.iter().map(|(name, count, _)| ((*name).to_owned(), *count)).collect();
    known.sort();
    assert_eq!(written, known);
}

#[test]
fn modules_of_the_sidecar_follow_the_arrows() {
    let src = root().join("plugin/sidecar/src");
    for (module, allowed) in MAY_NAME {
        let mut files = Vec::new();
        let (folder, file) = (src.join(module), src.join(format!("{module}.rs")));
        if folder.is_dir() {
            rust_files(&folder, &mut files);
        }
        if file.is_file() {
            files.push(file);
        }
        assert!(!files.is_empty(), "module {module} has no file: mend the table");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for named in named_modules(&text) {
                assert!(
                    allowed.contains(&named.as_str()),
                    "{} names crate::{named}: {module} may name {allowed:?} only",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_module_stands_in_the_table() {
    let lib = std::fs::read_to_string(root().join("plugin/sidecar/src/lib.rs")).unwrap();
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in modules.filter(|module| *module != "node") {
        assert!(MAY_NAME.iter().any(|(name, _)| *name == module), "{module} is not in the table");
    }
}

#[test]
fn crates_follow_the_arrows() {
    let may_use: &[(&str, &[&str])] = &[
        ("plugin/bolt", &[]),
        ("plugin/channel", &["outrigger-bolt"]),
        ("plugin/sidecar", &["outrigger-bolt", "outrigger-channel", "outrigger-rpc-schema"]),
        ("plugin/cli", &["outrigger-rpc-schema"]),
        ("rpc-schema", &[]),
        ("integration", &["outrigger-rpc-schema"]),
    ];
    for (folder, allowed) in may_use {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let used = manifest.lines().filter(|line| line.starts_with("outrigger-")).filter_map(|line| {
            let name = line.split(['.', ' ', '=']).next()?;
            Some(name.to_owned())
        });
        for name in used {
            assert!(allowed.contains(&name.as_str()), "{folder} depends on {name}");
        }
    }
}

/// Law 4: what would let the core reach the world stands in none of its manifests.
#[test]
fn the_core_cannot_reach_the_world() {
    for folder in ["plugin/bolt", "plugin/channel"] {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let (product, _) = manifest.split_once("[dev-dependencies]").unwrap_or((&manifest, ""));
        for world in ["tokio", "redb", "jsonrpsee", "bitcoincore-rpc", "rand", "getrandom", "parking_lot"] {
            let names_it = product
                .lines()
                .any(|line| line.strip_prefix(world).is_some_and(|rest| rest.starts_with(['.', ' ', '='])));
            assert!(!names_it, "{folder} depends on {world}");
        }
    }
}

/// Lines of a source file at the most, the tests at its end not counted.
const LINES_OF_A_FILE: usize = 500;

/// Lines of a function at the most. clippy's `too_many_lines` says so too, and does not count comments.
const LINES_OF_A_FUNCTION: usize = 100;

/// Files that may be longer, each with why.
const LONGER: &[(&str, &str)] = &[];

/// A source text without the module of tests in it.
fn product_of(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].starts_with("mod tests {"));
    lines[..tests.unwrap_or(lines.len())].to_vec()
}

/// The functions of a formatted text: their first lines, and how many they have.
fn functions<'a>(lines: &[&'a str]) -> Vec<(&'a str, usize)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_before_fn = |word: &&str| word.starts_with("pub") || ["const", "async", "unsafe"].contains(word);
    let begins = |line: &str| line.trim_start().split(' ').find(|word| !is_before_fn(word)) == Some("fn");
    let length = |at: usize| {
        // The first line that stands no deeper, the rest of the signature apart: it closes the body, where there is one.
        let is_of_signature = |line: &str| [")", "where", "{"].iter().any(|begin| line.trim_start().starts_with(begin));
        let is_outside = |line: &&str| !line.is_empty() && indent(line) <= indent(lines[at]) && !is_of_signature(line);
        let next = lines[at + 1..].iter().position(is_outside);
        next.filter(|next| lines[at + 1 + next].trim() == "}" && indent(lines[at + 1 + next]) == indent(lines[at]))
            .map_or(1, |next| next + 2)
    };
    lines.iter().enumerate().filter(|(_, line)| begins(line)).map(|(at, line)| (*line, length(at))).collect()
}

/// Whoever reads a file or a function whole sees all of it: those that grow too long are taken apart.
#[test]
fn no_file_and_no_function_of_the_product_is_too_long() {
    let mut files = Vec::new();
    for folder in ["plugin/bolt", "plugin/channel", "plugin/sidecar", "plugin/cli", "rpc-schema", "integration"] {
        rust_files(&root().join(folder).join("src"), &mut files);
    }
    let is_of_a_test = |file: &PathBuf| {
        file.components().any(|part| ["tests", "tests.rs"].map(Some).contains(&part.as_os_str().to_str()))
    };
    let (mut seen, mut too_long) = (0, Vec::new());
    for file in files.into_iter().filter(|file| !is_of_a_test(file)) {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = product_of(&text);
        let is_excused = LONGER.iter().any(|(name, _)| file.ends_with(name));
        if lines.len() > LINES_OF_A_FILE && !is_excused {
            too_long.push(format!("{}: {} lines", file.display(), lines.len()));
        }
        for (name, len) in functions(&lines) {
            seen += 1;
            if len > LINES_OF_A_FUNCTION {
                too_long.push(format!("{}: {} has {len} lines", file.display(), name.trim()));
            }
        }
        assert!(!text.contains("clippy::too_many_lines"), "{} allows itself what is asked of all", file.display());
    }
    assert!(seen > 2_000, "{seen} functions were found");
    assert_eq!(too_long, Vec::<String>::new());
}

#[test]
fn functions_are_counted_from_their_first_line_to_their_last() {
    let text = "impl A {\n    pub(crate) fn one(\n        &self,\n    ) -> u8 {\n        fn two() {}\n        1\n    }\n\n    \
                fn three();\n    /// A fn in words.\n    const fn four() {\n    }\n}\n";
    let counted: Vec<_> = functions(&text.lines().collect::<Vec<_>>()).into_iter().map(|(_, len)| len).collect();
    assert_eq!(counted, [6, 1, 1, 2]);
}
