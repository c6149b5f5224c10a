//! A wire between two nodes that can be held and cut.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{Done, until};

/// Time for bytes to arrive, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The way that bytes take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the node that dialled.
    Out,
    /// To the node that dialled.
    Back,
}

/// Forwards TCP connections to one address.
pub struct Proxy {
    address: String,
    out: Arc<watch::Sender<Gate>>,
    back: Arc<watch::Sender<Gate>>,
    accepting: JoinHandle<()>,
}

/// What one way lets through.
#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    /// How many bytes may still pass; none is no limit.
    allowance: Option<usize>,
    /// How many bytes wait before it.
    held: usize,
    /// How many bytes have passed, of all connections.
    passed: u64,
    /// How often the wire has been cut: a connection older than the last cut carries nothing.
    cuts: u64,
}

impl Proxy {
    /// Listens on a port of its own and forwards to `target`.
    pub async fn start(target: &str) -> Done<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let gate = || Arc::new(watch::Sender::new(Gate::default()));
        let (out, back) = (gate(), gate());
        let wire = Wire { target: target.to_owned(), out: out.clone(), back: back.clone() };
        let accepting = tokio::spawn(async move {
            while let Ok((dialler, _)) = listener.accept().await {
                tokio::spawn(wire.clone().carry(dialler));
            }
        });
        Ok(Self { address, out, back, accepting })
    }

    /// Where to dial instead of the target.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Lets this many more bytes pass, and holds what comes after.
    pub fn hold_after(&self, way: Way, bytes: usize) {
        self.gate(way).send_modify(|gate| gate.allowance = Some(bytes));
    }

    /// Lets everything pass again, what is held first.
    pub fn release(&self, way: Way) {
        self.gate(way).send_modify(|gate| gate.allowance = None);
    }

    /// How many bytes have passed since the proxy started.
    pub fn passed(&self, way: Way) -> u64 {
        self.gate(way).borrow().passed
    }

    /// Waits until so many have passed since the proxy started, and looks at each that does.
    pub async fn until_passed(&self, way: Way, total: u64) -> Done<()> {
        let mut gate = self.gate(way).subscribe();
        let passed = gate.wait_for(|gate| gate.passed >= total);
        match tokio::time::timeout(LIMIT, passed).await {
            Ok(passed) => Ok(passed.map(drop)?),
            Err(_) => Err(format!("gave up after {} s waiting for {total} bytes to pass", LIMIT.as_secs()).into()),
        }
    }

    /// How many bytes are held.
    pub fn held(&self, way: Way) -> usize {
        self.gate(way).borrow().held
    }

    /// Waits until at least this many bytes are held.
    pub async fn until_held(&self, way: Way, bytes: usize) -> Done<()> {
        until(LIMIT, &format!("{bytes} bytes to be held"), async || Ok((self.held(way) >= bytes).then_some(()))).await
    }

    /// Ends every connection; what was held is lost. New ones pass freely.
    pub fn cut(&self) {
        for gate in [&self.out, &self.back] {
            gate.send_modify(|gate| {
                *gate = Gate { cuts: gate.cuts.saturating_add(1), passed: gate.passed, ..Gate::default() };
            });
        }
    }

    fn gate(&self, way: Way) -> &watch::Sender<Gate> {
        match way {
            Way::Out => &self.out,
            Way::Back => &self.back,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// What a connection needs to know.
#[derive(Clone)]
struct Wire {
    target: String,
    out: Arc<watch::Sender<Gate>>,
    back: Arc<watch::Sender<Gate>>,
}

impl Wire {
    /// Carries one connection until either end or a cut ends it.
    async fn carry(self, dialler: TcpStream) {
        let cuts = self.out.borrow().cuts.min(self.back.borrow().cuts);
        let Ok(target) = TcpStream::connect(&self.target).await else { return };
        let (from_dialler, to_dialler) = dialler.into_split();
        let (from_target, to_target) = target.into_split();
        tokio::select! {
            () = pump(from_dialler, to_target, &self.out, cuts) => (),
            () = pump(from_target, to_dialler, &self.back, cuts) => (),
        }
    }
}

/// Moves bytes one way, as far as the gate lets them, until it is cut again.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: &watch::Sender<Gate>, cuts: u64) {
    let mut changes = gate.subscribe();
    let mut waiting: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let mut passing = 0;
        let mut is_cut = false;
        gate.send_if_modified(|gate| {
            is_cut = gate.cuts != cuts;
            if !is_cut {
                passing = gate.allowance.map_or(waiting.len(), |allowance| allowance.min(waiting.len()));
                gate.allowance = gate.allowance.map(|allowance| allowance.saturating_sub(passing));
                gate.held = waiting.len().saturating_sub(passing);
                gate.passed = gate.passed.saturating_add(u64::try_from(passing).unwrap_or(u64::MAX));
            }
            passing > 0
        });
        let rest = waiting.split_off(passing);
        if is_cut || to.write_all(&waiting).await.is_err() {
            return;
        }
        waiting = rest;
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => waiting.extend(buffer.iter().take(length)),
            },
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
