//! The daemon as an operator starts it who has said nothing yet: a home directory, an environment, and a command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{NodeStatus, NodeStatusReport};
use tempfile::TempDir;

use crate::sidecar::{LIMIT, executable};
use crate::{Client, Done, until};

/// A home directory, and the daemons that are started in it on regtest.
pub struct Bare {
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl Bare {
    /// A home directory with nothing in it.
    pub fn new() -> Done<Self> {
        Ok(Self { home: tempfile::tempdir()?, variables: Vec::new() })
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where the daemon on regtest keeps everything, by default.
    pub fn network_dir(&self) -> PathBuf {
        network_directory(&self.home().join(".outrigger"), "regtest")
    }

    /// Puts a file into the home directory, with the directories above it; its owner alone can read them.
    pub fn write(&self, name: &str, text: &str) -> Done<PathBuf> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let path = self.home().join(name);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent().ok_or("a file in a directory")?)?;
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Puts a variable into the environment of what is started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The program with these arguments, which has nothing of our environment.
    pub fn command(&self, arguments: &[&str]) -> Done<Command> {
        let mut command = Command::new(executable()?);
        command.args(arguments).env_clear().env("HOME", self.home()).envs(self.variables.iter().cloned());
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the program to its end, with this on its standard input.
    pub fn run(&self, arguments: &[&str], input: &str) -> Done<Output> {
        let mut command = self.command(arguments)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // A program that asks for nothing may have ended before.
        drop(child.stdin.take().ok_or("a pipe")?.write_all(input.as_bytes()));
        Ok(child.wait_with_output()?)
    }

    /// Starts a daemon on regtest, on ports of its own.
    pub fn start(&self, arguments: &[&str]) -> Done<Running> {
        self.start_into(std::fs::OpenOptions::new().create(true).append(true).open(self.log())?, arguments)
    }

    /// The same, with this for its standard error.
    pub fn start_into(&self, errors: std::fs::File, arguments: &[&str]) -> Done<Running> {
        let mut command = self.command(&["--network", "regtest", "--rpc-address", "127.0.0.1:0"])?;
        let child = command.args(arguments).stdout(Stdio::null()).stderr(errors).spawn()?;
        Ok(Running { child, directory: self.network_dir(), log: self.log() })
    }

    /// What daemons say on their standard error.
    pub fn log(&self) -> PathBuf {
        self.home().join("stderr.log")
    }
}

/// A daemon that runs until this is dropped.
pub struct Running {
    child: Child,
    directory: PathBuf,
    log: PathBuf,
}

impl Running {
    /// A client, once the daemon's interface answers.
    pub async fn client(&mut self) -> Done<Client> {
        until(LIMIT, "the daemon's interface", async || {
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("outriggerd ended with {status}: {said}").into());
            }
            let Ok(client) = Client::in_directory(&self.directory) else { return Ok(None) };
            Ok(client.call(NodeStatus {}).await.ok().map(|_| client))
        })
        .await
    }

    /// What `node.status` says, once that is as wanted.
    pub async fn status(&mut self, is_wanted: impl Fn(&NodeStatusReport) -> bool) -> Done<NodeStatusReport> {
        let client = self.client().await?;
        let mut last = None;
        let found = until(LIMIT, "the daemon's status to be as wanted", async || {
            let status = client.call(NodeStatus {}).await?;
            last = Some(status.clone());
            Ok(is_wanted(&status).then_some(status))
        })
        .await;
        found.map_err(|fault| format!("{fault}; it was {last:?}").into())
    }

    /// Waits until the process ends by itself.
    pub async fn ended(&mut self) -> Done<ExitStatus> {
        until(LIMIT, "the daemon to end", async || Ok(self.child.try_wait()?)).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
