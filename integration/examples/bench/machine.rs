//! What the operating system tells of processes and of the machine.

use std::time::{Duration, Instant};

use bitcoin::secp256k1::{Message, Scalar, Secp256k1, SecretKey};
use outrigger_integration::Done;

/// Clock ticks a second in /proc (`getconf CLK_TCK`), which Linux promises to programs.
const TICKS: f64 = 100.0;

/// Processor time of a process so far, user and system, in seconds.
pub(crate) fn cpu_of(pid: u32) -> Done<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |place: usize| -> Done<f64> { Ok(fields.get(place).ok_or("a short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Memory that a process has resident, in bytes.
pub(crate) fn rss_of(pid: u32) -> Done<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// The thread of this name in a process.
pub(crate) fn thread_of(pid: u32, name: &str) -> Done<u32> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        if std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|found| found.trim_end() == name) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    Err(format!("process {pid} has no thread {name}").into())
}

/// What a thread has done so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadMeters {
    /// Bytes that it gave to the system to be written.
    pub(crate) written: u64,
    /// How long it ran on a processor.
    pub(crate) ran: Duration,
}

impl ThreadMeters {
    pub(crate) fn read(pid: u32, thread: u32) -> Done<Self> {
        let task = format!("/proc/{pid}/task/{thread}");
        let io = std::fs::read_to_string(format!("{task}/io"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("no wchar")?.parse()?;
        let schedstat = std::fs::read_to_string(format!("{task}/schedstat"))?;
        let nanos = schedstat.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
        Ok(Self { written, ran: Duration::from_nanos(nanos) })
    }
}

/// The machine in one line.
pub(crate) fn description() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let model = model.trim_start_matches(['\t', ' ', ':']).to_owned();
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let meminfo = read("/proc/meminfo");
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let gib = kib.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0 / 1024.0;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} x {model}, {gib:.0} GiB, Linux {}, load {} at the beginning", kernel.trim(), load())
}

/// Processes that want to run, averaged over a minute.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or_default().to_owned()
}

/// Milliseconds that one sync of 4 KiB takes in this directory: median of 40.
pub(crate) fn sync_ms(directory: &std::path::Path) -> Done<f64> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(directory.join("probe"))?;
    let mut took = Vec::new();
    for round in 0..40_u64 {
        let begun = Instant::now();
        file.write_all_at(&[7; 4096], round * 4096)?;
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}

/// Microseconds of one signature, one verification, and one point times a scalar (secp256k1): medians of many.
pub(crate) fn curve_micros() -> Done<[f64; 3]> {
    let curve = Secp256k1::new();
    let secret = SecretKey::from_slice(&[7; 32])?;
    let (point, scalar) = (secret.public_key(&curve), Scalar::from_be_bytes([9; 32])?);
    let message = Message::from_digest([5; 32]);
    let signature = curve.sign_ecdsa(&message, &secret);
    let sign = each_micros(|| curve.sign_ecdsa(&message, &secret).serialize_compact()[0]);
    let verify = each_micros(|| u8::from(curve.verify_ecdsa(&message, &signature, &point).is_ok()));
    let multiply = each_micros(|| point.mul_tweak(&curve, &scalar).map_or(0, |point| point.serialize()[0]));
    Ok([sign, verify, multiply])
}

/// Microseconds of the processor for one verification while every processor verifies, as they all work when a hub relays: two
/// threads of one core are slower than one alone. The median of the processors.
pub(crate) fn busy_verify_micros() -> Done<f64> {
    let processors = std::thread::available_parallelism()?.get();
    let gate = std::sync::Barrier::new(processors);
    let mut took = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..processors)
            .map(|_| {
                scope.spawn(|| {
                    gate.wait();
                    curve_micros().map(|[_, verify, _]| verify).map_err(|fault| fault.to_string())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|it| it.join().map_err(|_| "a thread panicked")?.map_err(Into::into))
            .collect::<Done<Vec<_>>>()
    })?;
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}

fn each_micros(work: impl Fn() -> u8) -> f64 {
    let mut took: Vec<f64> = (0..200)
        .map(|_| {
            let begun = Instant::now();
            std::hint::black_box(work());
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}
