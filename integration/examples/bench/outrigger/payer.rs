//! Payments from one daemon to another, in a closed loop.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Client, Done, until};
use outrigger_rpc_schema::{
    CallError, EventKind, EventList, InvoiceCreate, InvoiceCreated, PaymentInfo, PaymentSend, PaymentState,
    PaymentWait, Refusal,
};
use tokio::task::{JoinError, JoinHandle, JoinSet};

/// Calls to one daemon at a time: it takes 64 connections.
pub(super) const CALLS: usize = 48;

/// Payments from one daemon to another, in a closed loop.
pub(crate) struct Stream {
    sender: Client,
    receiver: Client,
    is_relayed: bool,
    /// Calls at one time.
    calls: usize,
    shared: Arc<Shared>,
    invoices: VecDeque<String>,
    task: Option<JoinHandle<Done<Ended>>>,
    /// What the receiver has of it, in millisatoshi.
    moved_msat: u64,
}

#[derive(Default)]
struct Shared {
    paid: AtomicU64,
    stopping: AtomicBool,
    /// The last event that was read.
    seen: AtomicU64,
}

/// What a loop leaves behind.
struct Ended {
    took: Vec<u64>,
    invoices: VecDeque<String>,
}

impl Stream {
    pub(super) fn new(sender: Client, receiver: Client, is_relayed: bool, calls: usize) -> Self {
        let (shared, invoices) = (Arc::default(), VecDeque::new());
        Self { sender, receiver, is_relayed, calls, shared, invoices, task: None, moved_msat: 0 }
    }

    /// Payments that have arrived so far.
    pub(crate) fn paid(&self) -> u64 {
        self.shared.paid.load(Ordering::Relaxed)
    }

    /// Tells the loop to end.
    pub(crate) fn end(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the loop has ended: before it was told to, only by a fault.
    pub(super) fn has_ended(&self) -> bool {
        self.task.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// The nodes have other processes now.
    pub(super) fn are_at(&mut self, sender: Client, receiver: Client) {
        (self.sender, self.receiver) = (sender, receiver);
    }

    /// What has ended so far is none of the next loop's payments.
    pub(super) async fn skip_events(&self) -> Done<()> {
        loop {
            let after_seq = Some(self.shared.seen.load(Ordering::Relaxed));
            let page = self.sender.call(EventList { after_seq, limit: Some(1000), ..Default::default() }).await?;
            self.shared.seen.store(page.next_seq, Ordering::Relaxed);
            if page.items.is_empty() {
                return Ok(());
            }
        }
    }

    /// Drops what invoices wait.
    pub(super) fn forget_invoices(&mut self) {
        self.invoices.clear();
    }

    /// Has the receiver pay back what it can, so that the channels do not run dry: where the next payments need it.
    pub(super) async fn give_back(&mut self, needed_msat: u64, capacity_msat: u64) -> Done<()> {
        // The receiver keeps a hundredth as its reserve, and pays for the way.
        let back = self.moved_msat.saturating_sub(capacity_msat / 40);
        if self.moved_msat.saturating_add(needed_msat) < capacity_msat / 4 * 3 || back == 0 {
            return Ok(());
        }
        let order = InvoiceCreate { amount_msat: Some(back), description: "back".to_owned(), ..Default::default() };
        let invoice = self.sender.call(order).await?.invoice;
        let sent = self.receiver.call(PaymentSend { invoice: Some(invoice), ..Default::default() }).await?;
        let wait = PaymentWait { payment_id: sent.payment_id, timeout_secs: Some(60) };
        let ended = self.receiver.call(wait).await?;
        if ended.state != PaymentState::Succeeded {
            return Err(format!("nothing was paid back: {ended:?}").into());
        }
        self.moved_msat -= back;
        Ok(())
    }

    pub(crate) async fn supply(&mut self, count: usize, amount_msat: u64) -> Done<()> {
        let missing = count.saturating_sub(self.invoices.len());
        let order =
            InvoiceCreate { amount_msat: Some(amount_msat), description: "bench".to_owned(), ..Default::default() };
        until(LIMIT, "an invoice that the sender finds a way for", async || {
            Ok((!self.is_relayed || self.receiver.call(order.clone()).await?.route_hints > 0).then_some(()))
        })
        .await?;
        let mut asking = JoinSet::new();
        for _ in 0..missing {
            if asking.len() >= self.calls {
                self.take(asking.join_next().await)?;
            }
            let (client, order) = (self.receiver.clone(), order.clone());
            asking.spawn(async move { client.call(order).await });
        }
        while !asking.is_empty() {
            self.take(asking.join_next().await)?;
        }
        Ok(())
    }

    fn take(&mut self, made: Option<Result<Result<InvoiceCreated, CallError>, JoinError>>) -> Done<()> {
        self.invoices.push_back(made.ok_or("no invoice was asked for")???.invoice);
        Ok(())
    }

    pub(crate) fn start(&mut self, window: usize) {
        self.shared.stopping.store(false, Ordering::Relaxed);
        let payer = Payer {
            client: self.sender.clone(),
            shared: self.shared.clone(),
            calls: self.calls,
            begun: HashMap::new(),
            order: VecDeque::new(),
            early: HashSet::new(),
            refused: HashSet::new(),
            may_be_refused: false,
            told: HashSet::new(),
            ended: Ended { took: Vec::new(), invoices: std::mem::take(&mut self.invoices) },
        };
        self.task = Some(tokio::spawn(payer.pay(window)));
    }

    /// Waits for the end of what is in flight; how long each payment took, in microseconds.
    pub(crate) async fn stop(&mut self, amount_msat: u64) -> Done<Vec<u64>> {
        let Ended { took, invoices } = self.task.take().ok_or("nothing was started")?.await??;
        self.invoices = invoices;
        self.moved_msat += took.len() as u64 * amount_msat;
        Ok(took)
    }
}

/// From so many in flight on, HTLCs that are fulfilled and not yet gone may fill the channel: then a payment that it refuses is
/// followed by another, and does not count. LDK's loop waits until they are gone.
const FILLS_CHANNELS: usize = 200;

/// Before the payment that follows one which was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

fn is_full(refusal: &Refusal) -> bool {
    refusal.data.as_ref().is_some_and(|data| data.kind == "insufficient_capacity")
}

/// A loop that pays. One wait for the oldest payment and one page of events tell of all that ended with it: what a caller
/// does that has many payments under way.
struct Payer {
    client: Client,
    shared: Arc<Shared>,
    calls: usize,
    begun: HashMap<String, Instant>,
    order: VecDeque<String>,
    /// Ended before the answer to their sending was read.
    early: HashSet<String>,
    /// Failed before the answer to their sending was read.
    refused: HashSet<String>,
    may_be_refused: bool,
    /// Ended, and its event was not read yet.
    told: HashSet<String>,
    ended: Ended,
}

type Waited = JoinHandle<Result<PaymentInfo, CallError>>;

impl Payer {
    async fn pay(mut self, window: usize) -> Done<Ended> {
        self.may_be_refused = window >= FILLS_CHANNELS;
        let mut sending: JoinSet<Result<(String, Instant), CallError>> = JoinSet::new();
        let mut waiting: Option<Waited> = None;
        self.read_events().await?;
        loop {
            let stopping = self.shared.stopping.load(Ordering::Relaxed);
            while !stopping && self.begun.len() + sending.len() < window && sending.len() < self.calls {
                let invoice = self.ended.invoices.pop_front().ok_or("the invoices were too few")?;
                let client = self.client.clone();
                sending.spawn(async move {
                    let begun = Instant::now();
                    let sent = client.call(PaymentSend { invoice: Some(invoice), ..Default::default() }).await?;
                    Ok((sent.payment_id, begun))
                });
            }
            if sending.is_empty() && self.begun.is_empty() {
                return Ok(self.ended);
            }
            if waiting.is_none() {
                waiting = self.oldest().map(|payment_id| {
                    let client = self.client.clone();
                    let wait = PaymentWait { payment_id, timeout_secs: Some(30) };
                    tokio::spawn(async move { client.call(wait).await })
                });
            }
            tokio::select! {
                Some(sent) = sending.join_next() => match sent? {
                    Ok((payment_id, begun)) => self.sent(payment_id, begun)?,
                    // No place is free in the channel: one is when an HTLC has gone.
                    Err(CallError::Refused(refusal)) if self.may_be_refused && is_full(&refusal) => {
                        tokio::time::sleep(REFUSED_PAUSE).await;
                    }
                    Err(fault) => return Err(fault.into()),
                },
                waited = finished(&mut waiting) => {
                    let waited = waited??;
                    waiting = None;
                    match waited.state {
                        PaymentState::Succeeded => self.heard(waited.payment_id).await?,
                        // Its event says why.
                        PaymentState::Failed => self.read_events().await?,
                        PaymentState::Pending => {
                            return Err(format!("a payment did not arrive: {waited:?}").into());
                        }
                    }
                }
            }
        }
    }

    /// The payment that was begun first of those under way.
    fn oldest(&mut self) -> Option<String> {
        while let Some(first) = self.order.front() {
            if self.begun.contains_key(first) {
                return Some(first.clone());
            }
            self.order.pop_front();
        }
        None
    }

    /// The wait for a payment is over: whatever else ended with it stands in the events.
    async fn heard(&mut self, payment_id: String) -> Done<()> {
        if let Some(begun) = self.begun.remove(&payment_id) {
            self.arrived(begun)?;
            self.told.insert(payment_id);
        }
        if self.begun.is_empty() { Ok(()) } else { self.read_events().await }
    }

    fn sent(&mut self, payment_id: String, begun: Instant) -> Done<()> {
        if self.refused.remove(&payment_id) {
            return Ok(());
        }
        if self.early.remove(&payment_id) {
            return self.arrived(begun);
        }
        self.order.push_back(payment_id.clone());
        self.begun.insert(payment_id, begun);
        Ok(())
    }

    fn arrived(&mut self, begun: Instant) -> Done<()> {
        self.ended.took.push(u64::try_from(begun.elapsed().as_micros())?);
        self.shared.paid.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn read_events(&mut self) -> Done<()> {
        loop {
            let page = self
                .client
                .call(EventList {
                    after_seq: Some(self.shared.seen.load(Ordering::Relaxed)),
                    kinds: Some(vec![EventKind::PaymentSucceeded, EventKind::PaymentFailed]),
                    limit: Some(1000),
                })
                .await?;
            self.shared.seen.store(page.next_seq, Ordering::Relaxed);
            let is_last = page.items.len() < 1000;
            for event in page.items {
                let payment_id = event.payment_id.ok_or("an event without its payment")?;
                if event.kind == EventKind::PaymentFailed {
                    if !self.may_be_refused {
                        return Err(format!("a payment failed: {:?}", event.message).into());
                    }
                    if self.begun.remove(&payment_id).is_none() {
                        self.refused.insert(payment_id);
                    }
                    continue;
                }
                match self.begun.remove(&payment_id) {
                    Some(begun) => self.arrived(begun)?,
                    None if self.told.remove(&payment_id) => {}
                    None => drop(self.early.insert(payment_id)),
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// The end of the wait; never where none is under way.
async fn finished(waiting: &mut Option<Waited>) -> Result<Result<PaymentInfo, CallError>, JoinError> {
    match waiting {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}
