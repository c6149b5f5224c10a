//! A sink hears when nothing more waits: what one commit changed comes before that in one run, and may be made durable in one piece.

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

const CHANNELS: [ChannelId; 3] = [FIRST, SECOND, ChannelId([3; 32])];

/// One commit that changes every channel.
fn change_all(bench: &mut Bench, number: u64) {
    let mut batch = Batch::default();
    for channel in CHANNELS {
        batch.put(Table::ChannelHead, channel_key(&channel), Some(number.to_be_bytes().to_vec()));
    }
    bench.commit(batch);
}

#[test]
fn what_one_commit_changed_is_given_in_one_run_however_fast_the_sinks_thread_is() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    CHANNELS.into_iter().for_each(|channel| bench.open(channel, Vec::new()));
    let (hub, sink, kept) = (bench.hub.clone(), bench.sinks[0].clone(), bench.sinks[0].kept.clone());
    let thread = std::thread::spawn(move || hub.serve(0, Box::new(sink)));
    let heard = |runs: usize| {
        let begun = Instant::now();
        while kept.lock().runs.len() < runs {
            assert!(begun.elapsed() < LIMIT, "it hears of the end of no run");
            std::thread::yield_now();
        }
    };
    heard(1);
    for number in 1..=5 {
        change_all(&mut bench, number);
        heard(number as usize + 1);
    }
    bench.hub.stop();
    thread.join().unwrap();
    assert_eq!(kept.lock().runs, [3, 6, 9, 12, 15, 18]);
}

#[test]
fn who_steps_a_sink_tells_it_too_when_that_was_all() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    CHANNELS.into_iter().for_each(|channel| bench.open(channel, Vec::new()));
    let mut sink = bench.sinks[0].clone();
    for number in 1..=2 {
        while bench.hub.has_work(0) {
            bench.hub.step(0, &mut sink);
        }
        change_all(&mut bench, number);
    }
    assert_eq!(sink.kept.lock().runs, [3, 6]);
}

/// How many commits are made of a promise and of what a worker queues while the writer looks.
fn commits_beside_a_worker(is_required: bool) -> u64 {
    let mut bench = Bench::new(&[(Manner::Sound, is_required)]);
    bench.open(FIRST, Vec::new());
    let Bench { hub, writer, commits, .. } = bench;
    let before = writer.stats().commits.load(std::sync::atomic::Ordering::Relaxed);
    let worker = Arc::new(StdMutex::new(Some(writer.clone())));
    let at_work = worker.clone();
    let is_busy = move || {
        let Some(writer) = at_work.lock().unwrap().take() else { return false };
        writer.submit(changed(FIRST, 2, vec![promise(2)]));
        true
    };
    let (told, heard) = std::sync::mpsc::channel();
    let thread =
        commits.asking(is_busy, || None).on_a_thread(move |_, _| told.send(()).unwrap(), |fault| panic!("{fault}"));
    writer.submit(changed(FIRST, 1, vec![promise(1)]));
    heard.recv_timeout(LIMIT).unwrap();
    // Where it does not look, the worker's own time comes.
    let was_passed_over = worker.lock().unwrap().take().is_some();
    if was_passed_over {
        writer.submit(changed(FIRST, 2, vec![promise(2)]));
        heard.recv_timeout(LIMIT).unwrap();
    }
    let commits = writer.stats().commits.load(std::sync::atomic::Ordering::Relaxed) - before;
    drop((writer, hub));
    drop(heard);
    assert!(thread.unwrap().join().is_ok());
    commits
}

/// Nothing leaves before the sink has it too: what workers are at may come with it, and is no commit of the sink's own.
#[test]
fn where_a_sink_is_required_a_commit_takes_in_what_workers_are_at() {
    assert_eq!(commits_beside_a_worker(true), 1);
    assert_eq!(commits_beside_a_worker(false), 2, "it leaves at once, and nothing is won by waiting");
}
