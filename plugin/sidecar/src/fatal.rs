//! What a panic is: the end of the process, whichever thread it is on. Nothing had left that is not durable, so the next start
//! goes on; a thread that was missing would leave peers, payments or blocks unattended in a process that looks alive.

/// From now on a panic ends the process by `SIGABRT`, once it is told on the standard error. Release builds do so by
/// themselves; this is for those that test, whose panics unwind.
pub fn panics_end_the_process() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}
