use std::os::unix::net::UnixDatagram;

use redb::Database;
use redb::backends::InMemoryBackend;

use super::*;
use crate::rpc::Doors;
use crate::store::schema::Table;
use crate::store::{Commits, Writer};

fn status(phase: Phase) -> NodeStatusReport {
    NodeStatusReport { phase, ..Doors::<()>::new("regtest").status() }
}

/// A supervisor, and what it hears.
fn supervised(watchdog: Option<Duration>) -> (Supervisor, UnixDatagram, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    (Supervisor::at(path.as_os_str(), watchdog).unwrap(), socket, directory)
}

/// What has been heard and not been looked at.
fn heard(socket: &UnixDatagram) -> Option<String> {
    let mut message = [0; 1024];
    let length = socket.recv(&mut message).ok()?;
    Some(String::from_utf8(message[..length].to_vec()).unwrap())
}

/// The next message. The clock of these tests moves by itself while everybody waits.
async fn next(socket: &UnixDatagram) -> String {
    loop {
        match heard(socket) {
            Some(message) => return message,
            None => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Makes one commit, once there is something to commit.
async fn commit(commits: &mut Commits) {
    while commits.waiting() == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    let (released, _) = commits.next(1).unwrap().unwrap();
    drop(released.open());
}

#[test]
fn a_status_line_has_phase_progress_and_what_is_wrong() {
    assert_eq!(status_line(&status(Phase::Starting)), "regtest: starting");
    let syncing = NodeStatusReport { block_height: Some(7), target_height: Some(900), ..status(Phase::Syncing) };
    assert_eq!(status_line(&syncing), "regtest: syncing, block 7 of 900");
    let waiting = NodeStatusReport {
        reason: Some("no answer".into()),
        block_height: Some(7),
        backups: Some("disk is full".into()),
        ..status(Phase::WaitingForBitcoind)
    };
    assert_eq!(status_line(&waiting), "regtest: waiting for bitcoind, block 7; no answer; disk is full");
}

#[tokio::test(start_paused = true)]
async fn a_status_is_told_when_its_line_changes_and_the_end_is_not() {
    let (supervisor, socket, _directory) = supervised(None);
    let statuses = watch::Sender::new(status(Phase::Starting));
    let receiver = statuses.subscribe();
    let telling = tokio::spawn(async move { tell_status(&supervisor, receiver).await });
    assert_eq!(next(&socket).await, "STATUS=regtest: starting");
    statuses.send_replace(NodeStatusReport { version: "1".into(), ..status(Phase::Starting) });
    sleep(Duration::from_secs(1)).await;
    statuses.send_replace(NodeStatusReport { block_height: Some(1), ..status(Phase::Ready) });
    assert_eq!(next(&socket).await, "STATUS=regtest: ready, block 1");
    statuses.send_replace(status(Phase::Stopping));
    drop(statuses);
    telling.await.unwrap();
    assert_eq!(heard(&socket), None, "whoever ends tells the end");
}

/// The heart beats through a writer whose commits this test makes: one that makes none is a writer that stands still.
#[tokio::test(start_paused = true)]
async fn a_heart_beats_only_while_the_writer_goes_on() {
    const LIMIT: Duration = Duration::from_secs(60);
    let db = Arc::new(Database::builder().create_with_backend(InMemoryBackend::new()).unwrap());
    let transaction = db.begin_write().unwrap();
    for table in Table::ALL {
        transaction.open_table(table.definition()).unwrap();
    }
    transaction.commit().unwrap();
    let (writer, mut commits) = Writer::new(db).unwrap();
    let (supervisor, socket, _directory) = supervised(Some(LIMIT));
    let statuses = watch::Sender::new(status(Phase::Ready)).subscribe();
    let heart = tokio::spawn(async move { beat(&supervisor, statuses, || writer.barrier()).await });
    for _ in 0..3 {
        commit(&mut commits).await;
        assert_eq!(next(&socket).await, "WATCHDOG=1");
    }
    // Nothing is committed from here on.
    assert!(next(&socket).await.starts_with("STATUS=stands still"));
    sleep(LIMIT * 10).await;
    assert_eq!(heard(&socket), None, "no sign of life");
    commit(&mut commits).await;
    assert_eq!(next(&socket).await, "STATUS=regtest: ready");
    assert_eq!(next(&socket).await, "WATCHDOG=1");
    heart.abort();
}

#[tokio::test]
async fn a_supervisor_that_expects_no_sign_of_life_gets_none() {
    let (supervisor, socket, _directory) = supervised(None);
    let statuses = watch::Sender::new(status(Phase::Ready)).subscribe();
    beat(&supervisor, statuses, || async { panic!("nobody asked") }).await;
    assert_eq!(heard(&socket), None);
}
