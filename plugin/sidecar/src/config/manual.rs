//! The manual page of the daemon, in the macros of man(7), made from what the command line knows of itself.

use clap::{Arg, Command};

use super::{task, values};

const HEAD: &str = r#".\" Made by `outriggerd man`.
.TH OUTRIGGERD 1 "" "outriggerd @VERSION@" "User commands"
.nh
.SH NAME
outriggerd \- a Lightning sidecar for the bitcoind that you already run
.SH SYNOPSIS
.B outriggerd
.RI [ options ]
.br
.B outriggerd init
.RI [ options ]
.br
.B outriggerd restore \-\-from
.I SINK
.RI [ options ]
.br
.B outriggerd verify\-backup \-\-from
.I SINK
.RI [ options ]
.br
.B outriggerd sink\-check \-\-
.I COMMAND
.br
.B outriggerd man
.SH DESCRIPTION
Takes the chain from bitcoind's RPC, speaks the Lightning protocol to other nodes, keeps its channels in one database, and serves a
JSON\-RPC interface on loopback, or with TLS on any address. It runs until it is stopped, in the foreground, and logs on the standard error.
.PP
Every option but
.BR \-\-config ,
.BR \-\-check\-config ,
.B \-\-json
and
.B \-\-stdio
is a key of the configuration file too, and a variable of the environment: \-\-bitcoind\-url is OUTRIGGERD_BITCOIND_URL. An option wins
over the environment, and that over the file. A key or a variable that the program does not know is an error.
.SH OPTIONS
"#;

const TAIL: &str = r#".SH FILES
.TP
.I \(ti/.outrigger/outrigger.toml
The configuration.
.TP
.I \(ti/.outrigger/NETWORK/seed
The words, 24 where the program made them. They restore the coins on chain, and with a backup what is in channels: keep a copy elsewhere.
.TP
.I \(ti/.outrigger/NETWORK/outrigger.redb, outrigger.journal, generation
The channels. Never start from an old copy of them: it forfeits channels.
.TP
.I \(ti/.outrigger/NETWORK/.cookie, rpc_address, rpc_certificate.pem, rpc.sock
What callers of the interface need, new at every start. Whoever can read the cookie, or open the socket, can spend everything.
.SH SEE ALSO
.BR outrigger\-cli (1)
"#;

/// The whole page.
pub fn page() -> String {
    let mut page = HEAD.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    let daemon = task::node_command();
    daemon.get_arguments().for_each(|argument| option(argument, &mut page));
    let common = values::command();
    for (name, command) in task::uses() {
        page.push_str(&format!(".SH {}\n{}\n", text(&name.to_uppercase()), text(&about(&command))));
        let known = |argument: &&Arg| common.get_arguments().any(|other| other.get_id() == argument.get_id());
        command.get_arguments().filter(|argument| !known(argument)).for_each(|argument| option(argument, &mut page));
        after(&command, &mut page);
    }
    page.push_str(".SH EXIT STATUS\n.EX\n");
    let words = daemon.get_after_help().map(ToString::to_string).unwrap_or_default();
    let codes = words.split_once("Exit codes:\n").map_or("", |(_, codes)| codes);
    codes.lines().for_each(|line| page.push_str(&format!("{}\n", text(line))));
    page.push_str(".EE\n");
    page.push_str(TAIL);
    page
}

fn about(command: &Command) -> String {
    command.get_about().map(|about| format!("{about}.")).unwrap_or_default()
}

fn after(command: &Command, page: &mut String) {
    if let Some(words) = command.get_after_help() {
        page.push_str(&format!(".PP\n{}\n", text(&words.to_string())));
    }
}

fn option(argument: &Arg, page: &mut String) {
    let flag = argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    let value =
        argument.get_value_names().and_then(|names| names.first()).filter(|_| argument.get_action().takes_values());
    let value = value.map(ToString::to_string).unwrap_or_default();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let named = if flag.is_empty() {
        format!(".I {}", text(&value))
    } else {
        format!(".BI \"{} \" {}", text(&flag), text(&value))
    };
    page.push_str(&format!(".TP\n{named}\n{}\n", text(&help)));
}

/// A text with what roff would take for its own made plain. Only the begin of a line can be taken for a request.
fn text(text: &str) -> String {
    let plain =
        text.replace('\\', r"\e").replace('-', r"\-").replace('"', r"\(dq").replace('`', r"\(ga").replace('~', r"\(ti");
    if plain.starts_with(['.', '\'']) { format!(r"\&{plain}") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    #[test]
    fn the_manual_page_tells_every_option_every_use_and_every_exit_code() {
        let page = page();
        for key in KEYS.iter().filter(|key| key.on_command_line) {
            assert!(page.contains(&format!("\"{} \" VALUE\n", text(&format!("--{}", key.flag())))), "{}", key.name);
        }
        for words in ["INIT", "RESTORE", "VERIFY\\-BACKUP", "SINK\\-CHECK", "EXIT STATUS"] {
            assert!(page.contains(&format!(".SH {words}\n")), "{words}");
        }
        assert!(page.contains("  5  a required backup refused a second channel"));
        let is_plain = |line: &str| !line.starts_with('\'') && (!line.starts_with('.') || !line.starts_with(". "));
        assert!(page.lines().all(is_plain));
        assert!(!page.contains("@VERSION@"));
    }
}
