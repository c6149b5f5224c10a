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
