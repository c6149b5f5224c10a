//! How long a process takes from its start to the first answer of `node.status`: of a node that was never started, and of one that
//! was, neither of which has a bitcoind.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_integration::Done;
use outrigger_integration::sidecar::executable;
use outrigger_rpc_schema::rendezvous::{SOCKET_FILE, network_directory};

use super::Run;

/// What `interface.md` allows, in milliseconds.
const ALLOWED_MS: f64 = 100.0;

/// When a process that does not answer is given up.
const LIMIT: Duration = Duration::from_secs(10);

const REQUEST: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 59\r\n\r\n\
                       {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.status\",\"params\":{}}";

impl Run<'_> {
    pub(super) fn start_status(&mut self) -> Done<()> {
        let (mut first, mut again) = (Vec::new(), Vec::new());
        while self.has_time(again.len()) {
            let directory = self.directory.join(format!("status {}", again.len()));
            first.push(answered_ms(&directory)?);
            again.push(answered_ms(&directory)?);
        }
        let share = again.iter().map(|ms| ms / ALLOWED_MS).collect();
        self.put_of_outrigger("start_status_first", "ms", first);
        self.put_of_outrigger("start_status", "ms", again);
        self.put_of_outrigger("start_status_share", "of the 100 ms that are allowed", share);
        Ok(())
    }
}

/// A process that ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answered_ms(directory: &Path) -> Done<f64> {
    let socket = network_directory(directory, "regtest").join(SOCKET_FILE);
    drop(std::fs::remove_file(&socket));
    let mut command = Command::new(executable()?);
    command.args(["--network", "regtest", "--rpc-address", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    command.args(["--bitcoind-url", "127.0.0.1:1", "--data-dir"]).arg(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let _process = Process(command.spawn()?);
    loop {
        if let Ok(mut stream) = UnixStream::connect(&socket) {
            stream.write_all(REQUEST.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            if answer.contains("\"phase\":\"") {
                return Ok(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
        if begun.elapsed() > LIMIT {
            return Err("node.status is not answered".into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
