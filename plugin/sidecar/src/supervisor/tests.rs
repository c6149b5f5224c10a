use std::os::unix::net::UnixDatagram;

use super::*;

/// What a supervisor has heard, one message after the other.
fn heard(socket: &UnixDatagram) -> Vec<String> {
    socket.set_nonblocking(true).unwrap();
    let mut messages = Vec::new();
    let mut message = [0; 4096];
    while let Ok(length) = socket.recv(&mut message) {
        messages.push(String::from_utf8(message[..length].to_vec()).unwrap());
    }
    messages
}

fn tell_all(supervisor: &Supervisor) {
    supervisor.status("starting");
    supervisor.ready();
    supervisor.alive();
    supervisor.stopping();
}

const ALL: [&str; 4] = ["STATUS=starting", "READY=1", "WATCHDOG=1", "STOPPING=1\nSTATUS=stopping"];

#[test]
fn a_supervisor_hears_each_message_at_a_path_and_under_an_abstract_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    tell_all(&Supervisor::at(path.as_os_str(), None).unwrap());
    assert_eq!(heard(&socket), ALL);

    let name = format!("outrigger-supervisor-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    tell_all(&Supervisor::at(OsStr::new(&format!("@{name}")), None).unwrap());
    assert_eq!(heard(&socket), ALL);
}

#[test]
fn an_address_that_is_no_socket_is_refused_with_words() {
    for address in ["notify", "@", "vsock:2:1234", "./notify"] {
        let fault = Supervisor::at(OsStr::new(address), None).unwrap_err();
        assert_eq!(
            fault.to_string(),
            format!("NOTIFY_SOCKET is {address:?}: it must be an absolute path, or @ and a name")
        );
    }
    let long = format!("/{}", "x".repeat(200));
    assert!(matches!(Supervisor::at(OsStr::new(&long), None), Err(SupervisorFault::Io(..))));
}

#[test]
fn a_supervisor_that_is_gone_or_does_not_listen_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let supervisor = Supervisor::at(path.as_os_str(), None).unwrap();
    drop(socket);
    tell_all(&supervisor);
    assert!(supervisor.has_failed.load(Ordering::Relaxed));
    std::fs::remove_file(&path).unwrap();
    let back = UnixDatagram::bind(&path).unwrap();
    supervisor.ready();
    assert_eq!(heard(&back), ["READY=1"], "one that comes back is told again");
}

#[test]
fn a_status_is_one_line_and_no_message_of_its_own() {
    assert_eq!(one_line("waits for bitcoind\nWATCHDOG=1\r\u{1b}[31m"), "waits for bitcoind WATCHDOG=1  [31m");
    let long = one_line(&"ä".repeat(LINE_BYTES));
    assert_eq!((long.len(), long.chars().all(|letter| letter == 'ä')), (LINE_BYTES, true));
    assert_eq!(one_line(&format!("{}ä", "x".repeat(LINE_BYTES - 1))).len(), LINE_BYTES - 1);
}

#[test]
fn a_watchdog_is_for_the_process_that_it_names() {
    let two_seconds = Some(Duration::from_secs(2));
    assert_eq!(watchdog(Some("2000000"), None, 7), two_seconds);
    assert_eq!(watchdog(Some("2000000"), Some("7"), 7), two_seconds);
    for (micros, pid) in [
        (None, None),
        (None, Some("7")),
        (Some("2000000"), Some("8")),
        (Some("2000000"), Some("")),
        (Some("0"), None),
        (Some("-1"), None),
        (Some("2s"), None),
        (Some("18446744073709551616"), None),
    ] {
        assert_eq!(watchdog(micros, pid, 7), None, "{micros:?} {pid:?}");
    }
}
