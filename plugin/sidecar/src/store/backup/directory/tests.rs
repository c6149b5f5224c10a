//! A directory: names, generations, damage, and that nothing that may be the only copy is ever overwritten.

use std::cell::Cell;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

use super::*;
use crate::store::backup::image::RowChange;
use crate::store::backup::source::Source;
use crate::store::backup::{Answer, Persist, SinkEnds, SinkFault, TipRecord};
use crate::store::ground::system;
use crate::store::sync_directory;

const CHANNEL: ChannelId = ChannelId([7; 32]);

fn node(byte: u8) -> NodeId {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
}

fn sealer() -> Arc<Sealer> {
    Arc::new(Sealer::new(&[1; 32], "regtest", &node(1)))
}

fn open(dir: &Path) -> Directory {
    make_place(dir, ("regtest", &node(1))).unwrap();
    Directory::open(system(), dir, ("regtest", &node(1)), sealer(), 3).unwrap()
}

fn source(dir: &Path) -> DirectorySource {
    DirectorySource::open(dir, ("regtest", &node(1)), sealer()).unwrap()
}

fn head() -> (Table, Vec<u8>) {
    (Table::ChannelHead, CHANNEL.0.to_vec())
}

fn image(id: u64) -> Vec<u8> {
    let mut image = Image::new("regtest", node(1), CHANNEL, id);
    image.rows.insert(head(), id.to_be_bytes().to_vec());
    image.encode()
}

fn update(id: u64) -> Vec<u8> {
    let (table, key) = head();
    let changes = vec![RowChange { table, key, value: Some(id.to_be_bytes().to_vec()) }];
    Update { channel: CHANNEL, after: id - 1, id, changes }.encode()
}

/// A full write at 1 and updates to 4, then a full write at 5 and an update to 6.
fn filled(dir: &Path) -> Directory {
    let mut directory = open(dir);
    assert_eq!(directory.write_full(&CHANNEL, 1, &image(1)).unwrap(), Written::Now);
    for id in 2..=4 {
        assert_eq!(directory.write_update(&CHANNEL, (id - 1, id), &update(id)).unwrap(), Written::Now);
    }
    assert_eq!(directory.write_full(&CHANNEL, 5, &image(5)).unwrap(), Written::Now);
    assert_eq!(directory.write_update(&CHANNEL, (5, 6), &update(6)).unwrap(), Written::Now);
    directory
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => drop(found.insert(path.clone(), fs::read(path).unwrap())),
            }
        }
    }
    found
}

fn path(dir: &Path, name: &RecordName) -> PathBuf {
    path_of(&place_of(dir, "regtest", &node(1)), name)
}

/// The id that is read back, and that the rows say.
fn read_back(dir: &Path) -> (Option<u64>, Vec<String>) {
    let mut stored = source(dir).read(&CHANNEL).unwrap();
    let image = stored.image();
    if let Some(image) = &image {
        assert_eq!(image.rows[&head()], image.id.to_be_bytes());
    }
    (image.map(|image| image.id), stored.faults)
}

#[test]
fn a_person_can_read_the_names_and_no_other_name_is_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let place = place_of(dir.path(), "regtest", &node(1)).join("07".repeat(32));
    let mut names: Vec<_> = files(&place).into_keys().map(|path| path.file_name().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "full-00000000000000000001.sealed",
            "full-00000000000000000005.sealed",
            "update-00000000000000000001-00000000000000000002.sealed",
            "update-00000000000000000002-00000000000000000003.sealed",
            "update-00000000000000000003-00000000000000000004.sealed",
            "update-00000000000000000005-00000000000000000006.sealed",
        ]
    );
    assert!(fs::read_to_string(place.parent().unwrap().join(NOTE)).unwrap().contains("outriggerd restore"));
    for strange in [
        "full-1.sealed",
        "full-+0000000000000000001.sealed",
        "full-00000000000000000001",
        "full-00000000000000000001.sealed.new",
        "full-99999999999999999999.sealed",
        "update-00000000000000000002-00000000000000000002.sealed",
        "update-00000000000000000001.sealed",
        "other-00000000000000000001.sealed",
        "",
    ] {
        assert_eq!(parse_name(&CHANNEL, strange), None, "{strange}");
    }
}

#[test]
fn updates_beyond_their_number_and_those_that_do_not_follow_ask_for_a_full_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut directory = open(dir.path());
    assert_eq!(directory.write_update(&CHANNEL, (0, 1), &update(1)).unwrap(), Written::NeedsFull);
    directory.write_full(&CHANNEL, 1, &image(1)).unwrap();
    assert_eq!(directory.write_update(&CHANNEL, (2, 3), &update(3)).unwrap(), Written::NeedsFull, "a gap");
    for id in 2..=4 {
        assert_eq!(directory.write_update(&CHANNEL, (id - 1, id), &update(id)).unwrap(), Written::Now);
    }
    assert_eq!(directory.write_update(&CHANNEL, (4, 5), &update(5)).unwrap(), Written::NeedsFull, "the fourth");
    assert_eq!(directory.write_update(&CHANNEL, (3, 4), &update(4)).unwrap(), Written::Before, "the same again");
}

#[test]
fn two_full_writes_are_kept_with_all_that_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut directory = filled(dir.path());
    directory.write_full(&CHANNEL, 7, &image(7)).unwrap();
    let left = names_in(path(dir.path(), &RecordName::full(CHANNEL, 7)).parent().unwrap(), &CHANNEL).unwrap().unwrap();
    assert_eq!((left.fulls, left.updates), (BTreeSet::from([5, 7]), BTreeMap::from([(5, 6)])));
    assert_eq!(read_back(dir.path()), (Some(7), vec![]));
}

#[test]
fn bak_5_an_empty_database_beside_a_full_backup_takes_nothing_from_it() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let before = files(dir.path());
    let mut directory = open(dir.path());
    // Another channel, a tip, and what an older database would write of the same one.
    directory.write_tip(144, b"tip").unwrap();
    directory.write_full(&ChannelId([8; 32]), 1, &image(1)).unwrap();
    assert_eq!(directory.write_full(&CHANNEL, 2, &image(2)).unwrap(), Written::Before);
    assert_eq!(directory.write_update(&CHANNEL, (2, 3), &update(3)).unwrap(), Written::Before);
    let after = files(dir.path());
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "a file is gone or another one");
    assert_eq!(read_back(dir.path()), (Some(6), vec![]));
}

#[test]
fn bak_5_another_history_under_the_same_name_is_told_and_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut directory = filled(dir.path());
    let before = files(dir.path());
    let (table, key) = head();
    let changes = vec![RowChange { table, key, value: Some(b"another".to_vec()) }];
    let other = Update { channel: CHANNEL, after: 5, id: 6, changes }.encode();
    let fault = directory.write_update(&CHANNEL, (5, 6), &other).unwrap_err();
    assert!(matches!(fault, DirectoryFault::OtherHistory(_)), "{fault}");
    assert!(fault.to_string().contains("another copy of this node's database"));
    let mut image = Image::decode(&image(5)).unwrap();
    image.rows.insert(head(), b"another".to_vec());
    assert!(matches!(directory.write_full(&CHANNEL, 5, &image.encode()), Err(DirectoryFault::OtherHistory(_))));
    assert_eq!(files(dir.path()), before);
    // The address of the peer is no history.
    image.rows.insert(head(), 5_u64.to_be_bytes().to_vec());
    image.rows.insert((Table::PeerAddress, node(2).serialize().to_vec()), b"host:9735".to_vec());
    assert_eq!(directory.write_full(&CHANNEL, 5, &image.encode()).unwrap(), Written::Before);
}

thread_local! {
    /// Syncs of names that are still to fail.
    static FAILURES: Cell<u32> = const { Cell::new(0) };
}

/// A disk that refuses to make names durable for a while.
#[derive(Debug)]
struct Failing;

impl Ground for Failing {
    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        match FAILURES.get().checked_sub(1) {
            Some(left) => {
                FAILURES.set(left);
                Err(io::Error::from_raw_os_error(5))
            }
            None => sync_directory(dir),
        }
    }
}

#[test]
fn per_2_what_is_there_counts_only_once_its_name_is_durable() {
    type Try = fn(&mut Directory) -> Result<Written, DirectoryFault>;
    let writes: [(RecordName, Try); 3] = [
        (RecordName::full(CHANNEL, 7), |directory| directory.write_full(&CHANNEL, 7, &image(7))),
        (RecordName::update(CHANNEL, 6, 7), |directory| directory.write_update(&CHANNEL, (6, 7), &update(7))),
        (RecordName::tip(144), |directory| directory.write_tip(144, b"tip")),
    ];
    for (name, write) in writes {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = filled(dir.path());
        directory.ground = Arc::new(Failing);
        FAILURES.set(2);
        for _ in 0..2 {
            assert!(matches!(write(&mut directory), Err(DirectoryFault::Io { .. })), "{name:?}");
            assert!(path(dir.path(), &name).exists(), "{name:?}");
        }
        assert_eq!((write(&mut directory).unwrap(), FAILURES.get()), (Written::Before, 0), "{name:?}");
        // As the sink does after a fault: what stands there is read anew, and nothing of it counts before.
        let mut again = open(dir.path());
        again.ground = Arc::new(Failing);
        FAILURES.set(1);
        assert!(matches!(write(&mut again), Err(DirectoryFault::Io { .. })), "{name:?}");
        assert_eq!(write(&mut again).unwrap(), Written::Before, "{name:?}");
    }
    // A start believes no name before either.
    let dir = tempfile::tempdir().unwrap();
    let mut directory = filled(dir.path());
    directory.ground = Arc::new(Failing);
    FAILURES.set(1);
    assert!(directory.settle(&CHANNEL).is_err() && directory.settle(&CHANNEL).is_ok());
}

#[test]
fn what_a_crash_left_is_cleaned_and_what_is_not_ours_stays() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let unfinished = with_suffix(&path(dir.path(), &RecordName::full(CHANNEL, 9)), UNFINISHED);
    let strange = unfinished.with_file_name("notes.new");
    fs::write(&unfinished, b"half").unwrap();
    fs::write(&strange, b"a person's").unwrap();
    assert_eq!(read_back(dir.path()), (Some(6), vec![]), "reading takes no notice");
    assert!(unfinished.exists(), "and changes nothing");
    assert_eq!(open(dir.path()).write_update(&CHANNEL, (6, 7), &update(7)).unwrap(), Written::Now);
    assert!(!unfinished.exists() && strange.exists());
}

#[test]
fn a_damaged_full_write_costs_what_changed_with_it_and_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let damaged = path(dir.path(), &RecordName::full(CHANNEL, 5));
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[100] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let (id, faults) = read_back(dir.path());
    assert_eq!(id, Some(4), "the one before, with its updates");
    assert!(faults[0].contains("full-00000000000000000005.sealed: it is damaged"), "{faults:?}");
    assert_eq!(faults[1], "it has writes up to 6, and those after 4 cannot be used");
    assert_eq!(open(dir.path()).write_full(&CHANNEL, 5, &image(5)).unwrap(), Written::Now);
    assert_eq!(fs::read(with_suffix(&damaged, DAMAGED)).unwrap(), bytes);
    assert_eq!(read_back(dir.path()), (Some(6), vec![]));
}

#[test]
fn bad_input_91_a_record_whose_first_byte_is_damaged_is_moved_aside_and_a_newer_one_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let last = path(dir.path(), &RecordName::update(CHANNEL, 5, 6));
    let mut bytes = fs::read(&last).unwrap();
    bytes[0] ^= 0x40;
    fs::write(&last, &bytes).unwrap();
    let (id, faults) = read_back(dir.path());
    assert_eq!(id, Some(5));
    assert!(faults[0].contains("it is damaged"), "{faults:?}");
    assert_eq!(open(dir.path()).write_update(&CHANNEL, (5, 6), &update(6)).unwrap(), Written::Now);
    assert_eq!(fs::read(with_suffix(&last, DAMAGED)).unwrap(), bytes);
    assert_eq!(read_back(dir.path()), (Some(6), vec![]));

    // What a newer version would have written: it may be the only copy, so it stays.
    let mut newer = fs::read(&last).unwrap();
    (newer[0], newer[1]) = (2, !newer[1]);
    fs::write(&last, &newer).unwrap();
    let fault = open(dir.path()).write_update(&CHANNEL, (5, 6), &update(6)).unwrap_err();
    assert!(matches!(fault, DirectoryFault::Newer { form: 2, .. }), "{fault}");
    assert_eq!(fs::read(&last).unwrap(), newer);
    let words = fault.to_string();
    assert!(matches!(SinkFault::from(fault), SinkFault::Passing(_)) && words.contains("move the file away"), "{words}");
    assert!(matches!(SinkFault::from(DirectoryFault::TooMany(last.clone())), SinkFault::Passing(_)));
    assert!(matches!(SinkFault::from(DirectoryFault::OtherHistory(last)), SinkFault::Lasting(_)));
}

#[test]
fn a_full_write_that_does_not_open_is_none_of_the_two_that_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut directory = filled(dir.path());
    let damaged = path(dir.path(), &RecordName::full(CHANNEL, 5));
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[100] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    directory.write_full(&CHANNEL, 7, &image(7)).unwrap();
    let left = |id| names_in(path(dir.path(), &RecordName::full(CHANNEL, id)).parent().unwrap(), &CHANNEL);
    let left = |id| left(id).unwrap().unwrap();
    assert_eq!(left(7).fulls, BTreeSet::from([1, 5, 7]));
    assert_eq!(left(7).updates, BTreeMap::from([(1, 2), (2, 3), (3, 4), (5, 6)]));
    // The newest is damaged too: the channel comes back as it was before the first of the two.
    fs::write(path(dir.path(), &RecordName::full(CHANNEL, 7)), b"?").unwrap();
    assert_eq!(read_back(dir.path()).0, Some(4));
    // Once two that open follow each other, what is older goes.
    directory.write_full(&CHANNEL, 8, &image(8)).unwrap();
    directory.write_full(&CHANNEL, 9, &image(9)).unwrap();
    assert_eq!((left(9).fulls, left(9).updates), (BTreeSet::from([8, 9]), BTreeMap::new()));
}

#[test]
fn bad_input_91_an_update_that_is_damaged_cut_swapped_or_gone_ends_what_is_read() {
    type Wound = fn(&Path, &Path);
    let wounds: [(&str, Wound); 4] = [
        ("it is damaged", |third, _| {
            let mut bytes = fs::read(third).unwrap();
            *bytes.last_mut().unwrap() ^= 0x80;
            fs::write(third, bytes).unwrap();
        }),
        ("it ends too early", |third, _| fs::write(third, b"").unwrap()),
        ("it is damaged", |third, second| fs::write(third, fs::read(second).unwrap()).unwrap()),
        ("those after 2 cannot be used", |third, _| fs::remove_file(third).unwrap()),
    ];
    for (words, wound) in wounds {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        fs::remove_file(path(dir.path(), &RecordName::full(CHANNEL, 5))).unwrap();
        let name = |id| path(dir.path(), &RecordName::update(CHANNEL, id - 1, id));
        wound(&name(3), &name(2));
        let (id, faults) = read_back(dir.path());
        assert_eq!(id, Some(2), "{words}");
        assert!(faults.iter().any(|fault| fault.contains(words)), "{words}: {faults:?}");
    }
}

#[test]
fn bad_input_91_a_file_that_is_too_long_is_not_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let long = path(dir.path(), &RecordName::full(CHANNEL, 5));
    // It takes no room on the disk.
    File::options().write(true).open(&long).unwrap().set_len(MAX_RECORD_BYTES + 1).unwrap();
    let (id, faults) = read_back(dir.path());
    assert_eq!(id, Some(4));
    assert!(faults[0].contains("has more than 268435456 bytes"), "{faults:?}");
}

#[test]
fn a_directory_that_is_missing_is_not_made_and_one_of_another_node_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("disk");
    let fault = Directory::open(system(), &missing, ("regtest", &node(1)), sealer(), 3).map(drop).unwrap_err();
    assert!(fault.to_string().contains("mount its disk, or make it"), "{fault}");
    let fault = make_place(&missing, ("regtest", &node(1))).unwrap_err();
    assert!(fault.to_string().contains("mount its disk, or make it"), "{fault}");
    assert!(!missing.exists());
    // Where its disk is to be mounted there is a directory, and nothing in it.
    fs::create_dir(&missing).unwrap();
    let fault = Directory::open(system(), &missing, ("regtest", &node(1)), sealer(), 3).map(drop).unwrap_err();
    assert!(fault.to_string().contains("Its disk may not be mounted: mount it."), "{fault}");
    assert!(files(&missing).is_empty() && fs::read_dir(&missing).unwrap().next().is_none());
    filled(dir.path());
    let other = |network: &str, node_id| {
        DirectorySource::open(dir.path(), (network, &node_id), sealer()).map(drop).unwrap_err().to_string()
    };
    for words in [other("signet", node(1)), other("regtest", node(2))] {
        assert!(words.contains("has no backup of this node and network"), "{words}");
        assert!(words.contains(&format!("but regtest-{}", node(1))), "{words}");
    }
    let empty = tempfile::tempdir().unwrap();
    let fault = DirectorySource::open(empty.path(), ("regtest", &node(1)), sealer()).map(drop).unwrap_err();
    assert!(fault.to_string().contains("but no node's"), "{fault}");
}

#[test]
fn per_2_a_disk_that_goes_away_while_the_node_runs_leaves_nothing_on_its_mount_point() {
    let dir = tempfile::tempdir().unwrap();
    let [disk, away] = ["disk", "away"].map(|name| dir.path().join(name));
    fs::create_dir(&disk).unwrap();
    let mut directory = filled(&disk);
    fs::rename(&disk, &away).unwrap();
    fs::create_dir(&disk).unwrap();
    let other = ChannelId([8; 32]);
    let fulls = [directory.write_full(&other, 1, &image(1)), directory.write_full(&CHANNEL, 7, &image(7))];
    let others = [directory.write_update(&CHANNEL, (6, 7), &update(7)), directory.write_tip(144, b"tip")];
    for fault in
        fulls.into_iter().chain(others).map(Result::unwrap_err).chain([directory.retire(&CHANNEL).unwrap_err()])
    {
        assert!(matches!(fault, DirectoryFault::Io { .. }), "{fault}");
    }
    assert!(fs::read_dir(&disk).unwrap().next().is_none());
    assert_eq!(read_back(&away), (Some(6), vec![]));
}

#[test]
fn a_channel_that_is_over_is_kept_where_no_start_looks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut directory = filled(dir.path());
    directory.retire(&CHANNEL).unwrap();
    assert_eq!(source(dir.path()).living().unwrap(), []);
    assert_eq!(source(dir.path()).channels().unwrap(), [CHANNEL]);
    assert_eq!(read_back(dir.path()), (Some(6), vec![]));
    // What is begun where it was, and has no record yet, hides nothing.
    fs::create_dir(directory.root.join(CHANNEL.to_string())).unwrap();
    assert_eq!(read_back(dir.path()), (Some(6), vec![]));
    // It is not looked for where it was, and does not overwrite what stands there.
    directory.write_full(&CHANNEL, 9, &image(9)).unwrap();
    directory.retire(&CHANNEL).unwrap();
    assert_eq!(read_back(dir.path()), (Some(9), vec![]));
}

#[test]
fn a_file_with_the_name_of_a_channel_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let root = filled(dir.path()).root;
    fs::write(root.join("08".repeat(32)), b"a person's").unwrap();
    assert_eq!(source(dir.path()).living().unwrap(), [CHANNEL]);
    assert_eq!(source(dir.path()).channels().unwrap(), [CHANNEL]);
}

#[test]
fn a_record_of_the_chain_that_was_kept_ends_the_trouble_with_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let ends = SinkEnds::new(|_, _| (), std::time::Instant::now);
    let owner = ("regtest".to_owned(), node(1));
    let mut sink = DirectorySink::new(disk.clone(), owner, sealer(), 3, ends.clone());
    let hash = bitcoin::BlockHash::from_byte_array([7; 32]);
    let (network, peers) = ("regtest".to_owned(), Vec::new());
    let tip = TipRecord { network, node_id: node(1), height: 144, hash, at_unix: 1_800_000_000, peers, channels: None };
    assert_eq!(sink.persist_tip(&tip), Answer::InProgress);
    assert!(ends.trouble_now().unwrap().0.contains("mount its disk"));
    fs::create_dir(&disk).unwrap();
    make_place(&disk, ("regtest", &node(1))).unwrap();
    assert_eq!(sink.persist_tip(&tip), Answer::Completed);
    assert!(ends.trouble_now().is_none());
}

#[test]
fn bak_1_the_newest_two_tips_are_kept_and_a_damaged_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut directory = open(dir.path());
    for height in [144, 288, 432] {
        directory.write_tip(height, &height.to_be_bytes()).unwrap();
    }
    assert_eq!(tips(&directory.root).unwrap(), BTreeSet::from([288, 432]));
    assert_eq!(source(dir.path()).tip().unwrap(), Some(432_u32.to_be_bytes().to_vec()));
    fs::write(path(dir.path(), &RecordName::tip(432)), b"?").unwrap();
    let mut read = source(dir.path());
    assert_eq!(read.tip().unwrap(), Some(288_u32.to_be_bytes().to_vec()));
    let [told] = read.faults().try_into().unwrap();
    assert!(told.starts_with("its record of the chain at block 432 is lost: ") && told.contains("tip-"), "{told}");
    assert!(read.faults().is_empty() && read.unread().is_empty(), "once");
}

/// A start may know no other block than the last one did, and other channels.
#[test]
fn of_two_tips_of_one_block_the_newer_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let ends = SinkEnds::new(|_, _| (), std::time::Instant::now);
    let owner = ("regtest".to_owned(), node(1));
    make_place(dir.path(), (&owner.0, &owner.1)).unwrap();
    let mut sink = DirectorySink::new(dir.path().to_owned(), owner, sealer(), 100, ends);
    let tip = |at_unix, channels| {
        let (network, hash, peers) = ("regtest".to_owned(), bitcoin::BlockHash::from_byte_array([7; 32]), Vec::new());
        TipRecord { network, node_id: node(1), height: 144, hash, at_unix, peers, channels }
    };
    let kept = || TipRecord::decode(&source(dir.path()).tip().unwrap().unwrap()).unwrap();
    for (given, stays) in [
        (tip(1, None), tip(1, None)),
        (tip(2, None), tip(1, None)),
        (tip(3, Some(vec![(CHANNEL, 5)])), tip(3, Some(vec![(CHANNEL, 5)]))),
    ] {
        assert_eq!(sink.persist_tip(&given), Answer::Completed);
        assert_eq!(kept(), stays);
    }
}
