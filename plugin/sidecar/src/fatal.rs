//! What a panic is: the end of the process, whichever thread it is on. Nothing had left that is not durable, so the next start
//! goes on; a thread that was missing would leave peers, payments or blocks unattended in a process that looks alive.

use std::cell::RefCell;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Who is told of a panic.
type Tell = Box<dyn Fn(&str)>;

thread_local! {
    /// Who is told of redb's panics on this thread, the innermost last.
    static CONTAINED: RefCell<Vec<Tell>> = const { RefCell::new(Vec::new()) };
}

/// redb takes some pages of a file at their word and panics where they are damaged. Over a copy that must not end the process: the
/// thread tells it and goes no further, for as long as the process lives. Holds for what `work` does on this thread; any other
/// panic of it ends the process as everywhere. `work` is about the copy alone: over the node's own database the process ends. Where
/// one is inside of another, both are told.
pub fn contain<R>(tell: impl Fn(&str) + 'static, work: impl FnOnce() -> R) -> R {
    CONTAINED.with_borrow_mut(|tells| tells.push(Box::new(tell)));
    let done = work();
    let told = CONTAINED.with_borrow_mut(Vec::pop);
    drop(told);
    done
}

/// Does not come back where the panic is redb's and contained.
fn stop_where_contained(panic: &std::panic::PanicHookInfo<'_>) {
    if !is_of_redb(panic) {
        return;
    }
    let (tells, words) = (CONTAINED.take(), panic.to_string().escape_debug().to_string());
    if tells.is_empty() {
        return;
    }
    tells.iter().rev().for_each(|tell| tell(&words));
    loop {
        std::thread::park();
    }
}

/// Whether a panic comes out of redb. Our own places are told from the root of this workspace on.
pub fn is_of_redb(panic: &std::panic::PanicHookInfo<'_>) -> bool {
    panic.location().is_some_and(|place| place.file().contains("redb"))
}

/// How long the end of the process waits until its panic is told.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// From now on a panic ends the process by `SIGABRT`, once it is told on the standard error. Release builds do so by
/// themselves; this is for those that test, whose panics unwind. `before` is called first; neither that nor whoever should read
/// of the panic is waited for longer than some seconds.
pub fn panics_end_the_process(before: fn()) {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        stop_where_contained(panic);
        // Where there is no thread to be had, this one is waited for.
        let _ = std::thread::Builder::new().name("end".to_owned()).spawn(|| {
            std::thread::sleep(LAST_WORDS);
            std::process::abort();
        });
        before();
        tell(panic);
        std::process::abort();
    }));
}

/// From now on the process leaves no core file, whatever ends it: its memory has the seed (KEY-5). Nor do the programs that it starts;
/// `systemd-coredump` goes by the limit too. The process is not made undumpable besides: its `/proc`, from which it reads its own
/// figures, would be root's then.
pub fn no_core_is_left() -> std::io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    Ok(setrlimit(Resource::Core, none)?)
}
