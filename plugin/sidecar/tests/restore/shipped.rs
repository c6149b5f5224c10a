//! The example that keeps a backup in a directory ships each file elsewhere by a command, before the node hears that it is kept.

use super::*;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory")
}

/// All files below a directory, by their names from there, with what stands in them.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.push((path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

#[test]
fn per_2_the_example_ships_each_file_and_a_node_comes_back_from_where_it_shipped_them() {
    let lost = Lost::sample();
    let place = |name: &str| lost.dir.path().join(name).display().to_string();
    fs::create_dir(place("elsewhere")).unwrap();
    let command = [example().display().to_string(), place("kept"), "cp".to_owned(), "--parents".to_owned()];
    let program = Program {
        name: "test".to_owned(),
        command: command.into_iter().chain(["-t".to_owned(), place("elsewhere")]).collect(),
        network: "regtest".to_owned(),
        node_id: lost.node_id(),
        sealer: lost.sealer(),
        limit: ANSWER_LIMIT,
    };
    lost.keep(|ends| Box::new(CommandSink::new(program, ends)));
    let shipped = files(Path::new(&place("elsewhere")));
    // A record of the chain, and four channels.
    assert_eq!(shipped.len(), 5, "{shipped:?}");
    assert!(files(Path::new(&place("kept"))) == shipped, "the same names and contents in both places");
    // This machine's copy is lost with all else.
    fs::remove_dir_all(place("kept")).unwrap();
    let told = lost.restored(&format!("command:{} {}", example().display(), place("elsewhere")), 0);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    lost.assert_rows();
}

/// The daemon itself, with a command that brings nothing anywhere before somebody mends it.
#[tokio::test(flavor = "multi_thread")]
async fn per_2_what_the_example_could_not_ship_is_not_completed() {
    let lost = Lost::sample();
    lost.lives();
    let place = |name: &str| lost.dir.path().join(name).display().to_string();
    let (kept, elsewhere) = (PathBuf::from(place("kept")), PathBuf::from(place("elsewhere")));
    fs::create_dir(&elsewhere).unwrap();
    let ship =
        format!("echo it is away >&2; test -e {} && cp --parents -t {} \"$0\"", place("mended"), place("elsewhere"));
    let command = format!("command = ['{}', '{}', 'sh', '-c', '{ship}']", example().display(), place("kept"));
    fs::write(lost.dir.path().join("outrigger.toml"), backup("program", "command", command)).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    let tried = |lost: &Lost| {
        let new = lost.dir.path().join("kept/.new");
        new.exists() && !files(&new).is_empty()
    };
    let troubled = lost.backups_once(1, is_troubled).await.remove(0);
    let reason = troubled.reason.unwrap();
    assert!(reason.contains("ended") || reason.contains("closed its output"), "{reason}");
    // It was asked for one channel after the other, again and again.
    while !tried(&lost) {
        tokio::task::yield_now().await;
    }
    let told = lost.backups_once(1, is_troubled).await.remove(0);
    assert_eq!((told.lag_updates > 0, told.completed_at, told.verified_at), (true, None, None));
    assert!(files(&kept).iter().all(|(name, _)| name.starts_with(".new")), "nothing counts as kept here either");
    assert!(files(&elsewhere).is_empty());

    fs::write(place("mended"), b"").unwrap();
    let told = lost.backups_once(1, is_complete).await.remove(0);
    assert!(told.completed_at.is_some() && told.lag_bytes == 0);
    drop(daemon);
    let shipped = files(&elsewhere);
    let names: Vec<_> = shipped.iter().map(|(name, _)| name.display().to_string()).collect();
    for image in lost.images.iter().filter(|image| image.is_live()) {
        let full = format!("{}/full.", image.channel);
        assert!(names.iter().any(|name| name.contains(&full)), "{names:?}");
    }
    assert!(files(&kept) == shipped);
}
