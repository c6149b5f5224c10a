//! What the shells make of the scripts by which they complete: a key press for each where the shell is here. bash must be.
#![expect(clippy::expect_used, reason = "a test stops at its first surprise")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use outrigger_rpc_schema::methods;

/// The programs that must be here, in the environment: `contrib/check` installs them and names them. Others are passed over.
const REQUIRED: &str = "OUTRIGGER_SHELLS";

fn cli(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger-cli")).env_clear().args(words).output().expect("starts")
}

fn script(shell: &str) -> String {
    let output = cli(&["completions", shell]);
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

/// Whether the shell is here. It must be where the environment says so.
fn is_here(shell: &str) -> bool {
    let is_here = Command::new(shell).arg("--version").output().is_ok_and(|output| output.status.success());
    let required = std::env::var(REQUIRED).unwrap_or_default();
    assert!(is_here || !required.split(' ').any(|name| name == shell), "{shell} is not here, and {REQUIRED} names it");
    if !is_here {
        eprintln!("passed over: there is no {shell} here");
    }
    is_here
}

/// Runs a program with a script on its standard input.
fn said(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("OUTRIGGER_DATA_DIR").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("is read");
    let output = child.wait_with_output().expect("ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{program}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// Command lines up to the cursor, and what may follow. Where bash breaks words at `=`, it is given what stands behind.
const LINES: [(&str, &[&str]); 11] = [
    ("outrigger-cli channel.li", &["channel.list"]),
    ("outrigger-cli --network regtest wallet.b", &["wallet.balance"]),
    ("outrigger-cli help node.", &["node.config_get", "node.info", "node.log_level", "node.status", "node.stop"]),
    ("outrigger-cli completions ", &["bash", "fish", "zsh"]),
    ("outrigger-cli --network ", &["regtest", "signet"]),
    ("outrigger-cli payment.wait ", &["payment_id=", "timeout_secs="]),
    ("outrigger-cli payment.wait payment_id=1 ", &["timeout_secs="]),
    ("outrigger-cli invoice.get payment_hash=00 ", &[]),
    ("outrigger-cli channel.list state=f", &["state=failed", "state=frozen", "state=funding"]),
    ("outrigger-cli channel.open announce=", &["announce=false", "announce=true"]),
    ("outrigger-cli node.info ", &[]),
];

fn sorted<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn bash_completes_methods_parameters_and_values() {
    assert!(is_here("bash"), "bash is everywhere");
    for breaks in [" \t\n\"'><=;|&(:", " \t\n\"'><;|&("] {
        for (line, expected) in LINES {
            let whole = format!(
                "{}\nset -u\nCOMP_LINE={line:?} COMP_POINT={} COMP_WORDBREAKS={breaks:?}\n_outrigger_cli\n\
                 if ((${{#COMPREPLY[@]}})); then printf '%s\\n' \"${{COMPREPLY[@]}}\"; fi\n",
                script("bash"),
                line.len(),
            );
            let behind_break =
                |word: &str| word.rsplit_once('=').map_or(word.to_owned(), |(_, value)| value.to_owned());
            let is_value = line.rsplit(' ').next().is_some_and(|word| word.contains('='));
            let expected = expected.iter().map(|word| match breaks.contains('=') && is_value {
                true => behind_break(word),
                false => (*word).to_owned(),
            });
            assert_eq!(sorted(said("bash", &["--norc"], &whole).lines()), expected.collect(), "{line:?} {breaks:?}");
        }
    }
    // A list goes on behind its comma.
    let line = "outrigger-cli event.list kinds=channel_ready,invoice";
    let whole = format!(
        "{}\nCOMP_LINE={line:?} COMP_POINT={} COMP_WORDBREAKS=' ='\n_outrigger_cli\necho \"${{COMPREPLY[@]}}\"\n",
        script("bash"),
        line.len()
    );
    assert_eq!(said("bash", &["--norc"], &whole).trim_end(), "channel_ready,invoice_paid");
}

/// A terminal, a shell that reads keys from it, and a program that says what it was given.
fn typed(shell: &str, begin: &str, keys: &str) -> String {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("completion");
    std::fs::write(&file, script(shell.split(' ').next().expect("a name"))).expect("written");
    let begin = begin.replace("SCRIPT", &file.display().to_string());
    let input = format!("{begin}\noutrigger-cli() {{ printf '<%s>' given \"$@\"; echo; }}\n{keys}\nexit\n");
    let output = said_in(home.path(), "script", &["-qec", shell, "/dev/null"], &input);
    let given = output.lines().filter_map(|line| line.split_once("<given>")).map(|(_, words)| words.trim_end());
    given.collect::<Vec<_>>().join("\n")
}

fn said_in(home: &Path, program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("HOME", home).env("TERM", "dumb").current_dir(home);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux is everywhere");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("is read");
    String::from_utf8_lossy(&child.wait_with_output().expect("ends").stdout).into_owned()
}

/// The same by the key, in an interactive shell.
#[test]
fn bash_completes_by_the_key() {
    let keys = "outrigger-cli channel.lis\tstate=nor\tlim\t5";
    assert_eq!(typed("bash --norc -i", "source SCRIPT", keys), "<channel.list><state=normal><limit=5>");
}

#[test]
fn zsh_completes_by_the_key() {
    if is_here("zsh") {
        let begin = "autoload -Uz compinit; compinit -u; source SCRIPT";
        let keys = "outrigger-cli channel.lis\tstate=nor\tlim\t5";
        assert_eq!(typed("zsh -f -i", begin, keys), "<channel.list><state=normal><limit=5>");
        let keys = "outrigger-cli --netw\treg\tevent.li\tkinds=channel_ready,invoice\t";
        let expected = "<--network><regtest><event.list><kinds=channel_ready,invoice_paid>";
        assert_eq!(typed("zsh -f -i", begin, keys), expected);
    }
}

#[test]
fn fish_completes_methods_parameters_and_values() {
    if !is_here("fish") {
        return;
    }
    for (line, expected) in LINES {
        let whole = format!("{}\ncomplete -C {line:?}\n", script("fish"));
        let output = said("fish", &["--no-config"], &whole);
        let words = output.lines().map(|line| line.split('\t').next().unwrap_or_default());
        let begun = line.rsplit(' ').next().unwrap_or_default();
        let words = words.filter(|word| !word.starts_with('-') && *word != begun);
        assert_eq!(sorted(words), sorted(expected.iter().copied()), "{line:?}");
    }
}

#[test]
fn every_script_knows_every_method_and_parameter() {
    for shell in ["bash", "zsh", "fish"] {
        let script = script(shell);
        for method in methods() {
            assert!(script.contains(method.name), "{shell}: {}", method.name);
            for parameter in &method.parameters {
                assert!(script.contains(&format!("{}=", parameter.name)), "{shell}: {}", parameter.name);
            }
        }
    }
    let unknown = cli(&["completions", "tcsh"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("bash, zsh, fish"));
}

/// What roff says of the page, and what a reader sees.
#[test]
fn the_manual_page_is_sound_and_tells_of_every_method() {
    let page = String::from_utf8(cli(&["man"]).stdout).expect("text");
    for method in methods() {
        assert!(page.contains(&format!(".SS {}\n", method.name)), "{}", method.name);
    }
    let is_plain =
        |line: &str| !line.starts_with('\'') && (!line.starts_with('.') || line.as_bytes().get(1) != Some(&b' '));
    assert!(page.lines().all(is_plain), "a line that roff takes for a request");
    if is_here("groff") {
        let text = said("groff", &["-man", "-Tascii", "-ww", "-P-cbou"], &page);
        for method in methods() {
            for parameter in &method.parameters {
                assert!(text.contains(&parameter.name), "{}: {}", method.name, parameter.name);
            }
        }
    }
}
