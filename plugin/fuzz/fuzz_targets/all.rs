//! libFuzzer's door to every target: `OUTRIGGER_FUZZ_TARGET` names the one that runs.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use outrigger_fuzz::targets::{self, Target};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("OUTRIGGER_FUZZ_TARGET").expect("OUTRIGGER_FUZZ_TARGET names the target");
    targets::named(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

fuzz_target!(|data: &[u8]| TARGET.run(data));
