//! The manual page, in the macros of man(7).

use outrigger_rpc_schema::{MethodInfo, methods};

const HEAD: &str = r#".\" Made by `outrigger-cli man`.
.TH OUTRIGGER-CLI 1 "" "outrigger-cli @VERSION@" "User commands"
.nh
.SH NAME
outrigger-cli \- the JSON-RPC interface of outriggerd on the command line
.SH SYNOPSIS
.B outrigger-cli
.RI [ options ]
.I method
.RI [ name = value " ...]"
.br
.B outrigger-cli
.I method
.B \-\-help
.br
.B outrigger-cli completions
.BR bash | zsh | fish
.br
.B outrigger-cli man
.SH DESCRIPTION
Calls a method of the daemon that runs as this user, and prints its result: a line for each field, units beside numbers, lists as
tables where they fit. It finds the daemon by the address and the cookie that the daemon leaves in its data directory.
.PP
A parameter is given as
.IR name = value .
A list is given with commas between its values, and what has structure as JSON.
.PP
.B event.subscribe
prints a line for each event, until the program is interrupted. A daemon that is lost is looked for again, which the standard error
tells, and the events go on where they were: none is missed, and none comes twice. It ends where the daemon will not tell any more, as
with event_gap.
.SH OPTIONS
.TP
.B \-\-json
Print the result as it came, as one line of JSON; an error too, on the standard error.
.TP
.BI \-\-data\-dir " DIR"
The daemon's data directory.
.TP
.BI \-\-network " NETWORK"
The daemon's network, @NETWORKS@. Without it the one whose daemon runs.
.TP
.BI \-\-url " URL"
A daemon that is not found by its files: https://HOST:PORT, or http:// at an address of this machine. It needs a token.
.TP
.BI \-\-token\-file " FILE"
What token.create gave, for \-\-url.
.TP
.BI \-\-ca " FILE"
The authority that signed the daemon's certificate, or that certificate itself, as PEM, for https://. Without it the authorities that
this machine trusts. The token is sent to nobody else.
.TP
.BR \-h ", " \-\-help
Describe the program, or the method that is named.
.TP
.B \-\-version
Print the version.
"#;

const TAIL: &str = r#".SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
The daemon refused the call: the standard error says why, of which
.IR kind ,
and what to do. Or its answer could not be written, kind
.IR output :
what was called is done all the same.
.TP
.B 2
The call is not one of the interface's, or a parameter is missing or does not fit: also an
.I after_seq
beyond the newest event, as after a restore, which begins events anew.
.TP
.B 3
The daemon was not reached.
.SH ENVIRONMENT
.TP
.B OUTRIGGER_DATA_DIR
The data directory where
.B \-\-data\-dir
is not given; without either
.IR \(ti/.outrigger .
.TP
.B OUTRIGGER_NETWORK
The network where
.B \-\-network
is not given.
.TP
.BR OUTRIGGER_URL ", " OUTRIGGER_TOKEN_FILE ", " OUTRIGGER_CA
What
.BR \-\-url ", " \-\-token\-file " and " \-\-ca
say where they are not given. An option that names a daemon on this machine wins over OUTRIGGER_URL.
.TP
.B COLUMNS
The width of the terminal.
.SH FILES
.TP
.I \(ti/.outrigger/NETWORK/rpc_address
Where the daemon listens, with https:// before it where it speaks TLS. Its certificate is then in
.I rpc_certificate.pem
beside it, and no other is trusted.
.TP
.I \(ti/.outrigger/NETWORK/.cookie
What admits a caller, new at every start of the daemon. Whoever can read it can spend everything.
.SH EXAMPLES
.PP
Ask for a payment, and wait for payments:
.PP
.EX
outrigger\-cli invoice.create amount_msat=100000 description=coffee
outrigger\-cli event.list after_seq=0 kinds=invoice_paid
.EE
.PP
Hear of every payment as it comes, as objects for a script:
.PP
.EX
outrigger\-cli \-\-json event.subscribe kinds=invoice_paid,keysend_received
.EE
.PP
Let bash complete methods and their parameters:
.PP
.EX
source <(outrigger\-cli completions bash)
.EE
.SH SEE ALSO
.BR outriggerd (1)
"#;

/// The whole page.
pub(crate) fn page() -> String {
    let networks = outrigger_rpc_schema::rendezvous::NETWORKS.join(" or ");
    let mut page = HEAD.replace("@VERSION@", env!("CARGO_PKG_VERSION")).replace("@NETWORKS@", &networks);
    page.push_str(".SH METHODS\n");
    methods().iter().for_each(|method| section(method, &mut page));
    page.push_str(TAIL);
    page
}

fn section(method: &MethodInfo, page: &mut String) {
    page.push_str(&format!(".SS {}\n{}\n", text(method.name), text(&method.summary)));
    for parameter in &method.parameters {
        let needed = if parameter.required { "required, " } else { "" };
        let (name, kind) = (text(&parameter.name), text(&parameter.kind.to_string()));
        page.push_str(&format!(".TP\n.IR {name} \" ({needed}{kind})\"\n{}\n", text(&parameter.description)));
    }
}

/// A text with what roff would take for its own made plain. It is one line, so only its begin can be taken for a request.
fn text(text: &str) -> String {
    let plain =
        text.replace('\\', r"\e").replace('-', r"\-").replace('"', r"\(dq").replace('`', r"\(ga").replace('~', r"\(ti");
    if plain.starts_with(['.', '\'']) { format!(r"\&{plain}") } else { plain }
}
