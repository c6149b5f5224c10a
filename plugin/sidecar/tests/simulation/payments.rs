//! Payments of the nodes' operators, and what must hold of each at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::Network;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{PaymentHash, PaymentSecret, ShortChannelId};
use outrigger_bolt::invoice::{HintHop, Invoice};
use outrigger_sidecar::payment::{InvoiceOrder, PayOrder, Whom};
use outrigger_sidecar::store::row::{InvoiceRow, PaymentRow, PaymentState};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::node::Waits;
use super::world::World;

/// A payment that somebody wanted.
#[derive(Clone)]
pub struct Payment {
    pub payer: usize,
    pub payee: usize,
    pub amount: Msat,
    /// The nodes of each way that the invoice names, payer and payee included.
    pub ways: Vec<Vec<usize>>,
    pub flaw: Flaw,
    /// Its invoice is not sent to the payer.
    pub is_held: bool,
    pub invoice: Option<(PaymentHash, String)>,
    /// Nobody asked for it.
    pub is_keysend: bool,
    pub answer: Option<Result<PaymentRow, String>>,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Its way offers too little to a node on it.
    Fee,
    /// Its way leaves a node on it too little time.
    Delta,
    /// It names a channel that is none.
    Channel,
    /// The payee does not know its secret.
    Secret,
}

impl World {
    /// Wants a payment between two nodes, over random ways.
    pub fn want_payment(&mut self, amount: Msat) {
        let count = self.nodes.len();
        let payer = self.rng.random_range(0..count);
        let payee = (payer + self.rng.random_range(1..count)) % count;
        let mut ways: Vec<_> = (0..self.rng.random_range(1..3)).filter_map(|_| self.way(payer, payee)).collect();
        ways.dedup();
        if [payer, payee].into_iter().any(|node| self.nodes[node].is_old) {
            return;
        }
        let flaws = [Flaw::Fee, Flaw::Delta, Flaw::Channel, Flaw::Secret];
        let flaw = if self.rng.random_bool(0.15) { *flaws.choose(&mut self.rng).expect("some") } else { Flaw::None };
        let same_as = self.rng.random_bool(0.05).then(|| self.payable_again()).flatten();
        let (payer, payee, ways, flaw) = match same_as.map(|number| &self.payments[number]) {
            None => (payer, payee, ways, flaw),
            Some(first) => {
                let payer = if payer == first.payee { first.payer } else { payer };
                (payer, first.payee, first.ways.clone(), first.flaw)
            }
        };
        let number = self.payments.len();
        self.payments.push(Payment { ways, flaw, ..Payment::plain(payer, payee, amount) });
        self.note(format_args!("payment {number}: {payer} wants to pay {amount} to {payee}"));
        match same_as.and_then(|number| self.payments[number].invoice.clone()) {
            Some(invoice) => {
                self.payments[number].invoice = Some(invoice);
                self.pay(number);
            }
            None => self.ask_for_invoice(number),
        }
    }

    /// Wants a payment over these ways.
    pub fn pay_over(&mut self, payer: usize, payee: usize, amount: Msat, ways: &[&[usize]], flaw: Flaw) {
        let number = self.payments.len();
        let ways = ways.iter().map(|way| way.to_vec()).collect();
        self.payments.push(Payment { ways, flaw, ..Payment::plain(payer, payee, amount) });
        self.note(format_args!("payment {number}: {payer} wants to pay {amount} to {payee}"));
        self.ask_for_invoice(number);
    }

    /// Wants a payment that nobody asked for, to a node that has a channel with the payer.
    pub fn want_keysend(&mut self, amount: Msat) {
        let Some(link) = self.links.choose(&mut self.rng).map(|link| link.nodes) else { return };
        let side = self.rng.random_range(0..2);
        self.give(link[side], link[1 - side], amount);
    }

    /// A node gives to another that it has a channel with.
    pub fn give(&mut self, payer: usize, payee: usize, amount: Msat) {
        if self.nodes[payer].is_old {
            return;
        }
        let number = self.payments.len();
        self.payments.push(Payment { is_keysend: true, ..Payment::plain(payer, payee, amount) });
        self.note(format_args!("payment {number}: {payer} wants to give {amount} to {payee}"));
        self.send(number, Whom::Node { node_id: self.nodes[payee].id, amount });
    }

    /// The payer wants no more attempts of a payment.
    pub fn abandon(&mut self) {
        let begun = self.payments.iter().enumerate().filter_map(|(number, payment)| {
            let row = payment.answer.as_ref()?.as_ref().ok()?;
            Some((number, payment.payer, row.payment_id))
        });
        let newest: Vec<_> = begun.collect::<Vec<_>>().into_iter().rev().take(4).collect();
        let Some((number, payer, payment_id)) = newest.choose(&mut self.rng).copied() else { return };
        let Some(live) = &self.nodes[payer].live else { return };
        if live.core.payments.abandon(&payment_id).is_some() {
            self.counts.one("payments abandoned");
            self.note(format_args!("payment {number}: {payer} abandons it"));
            self.after(payer);
        }
    }

    /// A payment whose invoice is there.
    fn payable_again(&mut self) -> Option<usize> {
        let with_invoice = self.payments.iter().enumerate().filter(|(_, payment)| payment.invoice.is_some());
        let numbers: Vec<_> = with_invoice.map(|(number, _)| number).collect();
        numbers.choose(&mut self.rng).copied()
    }

    /// A random way without loops, of four links at the most.
    fn way(&mut self, payer: usize, payee: usize) -> Option<Vec<usize>> {
        let mut edges: Vec<[usize; 2]> = self.links.iter().map(|link| link.nodes).collect();
        edges.shuffle(&mut self.rng);
        let mut found = vec![payer];
        extend(&mut found, payee, &edges).then_some(found)
    }

    fn ask_for_invoice(&mut self, payment: usize) {
        let Payment { payee, amount, .. } = self.payments[payment];
        let Some(live) = &mut self.nodes[payee].live else { return };
        let payments = live.core.payments.clone();
        let order = InvoiceOrder {
            amount: (amount.get() % 7 > 0).then_some(amount),
            description: String::new(),
            expiry_secs: 3600 * 24,
            label: None,
            idempotency: None,
        };
        let future = Box::pin(async move { payments.create_invoice(order).await });
        live.waits.push(Waits::Invoice { payment, future });
        self.after(payee);
    }

    /// The payee has made the invoice; it names the ways that the payment is to take.
    pub fn invoiced(&mut self, payment: usize, row: InvoiceRow) {
        let mut invoice =
            Invoice::parse(row.invoice.as_ref().expect("a text"), Network::Regtest).expect("an invoice of ours").terms;
        let ways = self.payments[payment].ways.clone();
        let flaw = self.payments[payment].flaw;
        invoice.route_hints = ways.iter().filter_map(|way| self.hints(way, flaw)).collect();
        if flaw == Flaw::Secret {
            invoice.payment_secret = PaymentSecret([7; 32]);
        }
        let keys = self.nodes[self.payments[payment].payee].keys.clone();
        let text = invoice.sign(|digest| keys.sign_invoice(digest)).expect("an invoice");
        self.payments[payment].invoice = Some((row.payment_hash, text));
        if !self.payments[payment].is_held {
            self.pay(payment);
        }
    }

    /// Asks the payee for an invoice that nobody is told to pay.
    pub fn invoice_only(&mut self, payment: usize) {
        self.payments[payment].is_held = true;
        self.ask_for_invoice(payment);
    }

    /// The hash and the secret that the invoice of a payment names.
    pub fn invoice_of(&self, payment: usize) -> (PaymentHash, PaymentSecret) {
        let (hash, text) = self.payments[payment].invoice.as_ref().expect("an invoice");
        (*hash, Invoice::parse(text, Network::Regtest).expect("an invoice").terms.payment_secret)
    }

    /// The channels of a way after the payer's own; nothing where it is the payer's own that leads to the payee.
    fn hints(&mut self, way: &[usize], flaw: Flaw) -> Option<Vec<HintHop>> {
        let between = way.get(1..).filter(|between| between.len() > 1)?;
        let flawed = self.rng.random_range(0..between.len() - 1);
        let mut hops = Vec::new();
        for (place, pair) in between.windows(2).enumerate() {
            let (node, next) = (&self.nodes[pair[0]], &self.nodes[pair[1]]);
            let views = next.live.as_ref()?.core.manager.channels(Some(&node.id), None, usize::MAX, |_| true);
            let names: Vec<_> = views.iter().filter_map(|view| view.summary.hint_scid).collect();
            let terms = node.config.forwarding;
            let flaw = if place == flawed { flaw } else { Flaw::None };
            let wrong = ShortChannelId::from_u64(77);
            let named = *names.choose(&mut self.rng)?;
            hops.push(HintHop {
                node: node.id,
                short_channel_id: if flaw == Flaw::Channel { wrong } else { named },
                fee_base_msat: terms.fee_base_msat - u32::from(flaw == Flaw::Fee),
                fee_proportional_millionths: terms.fee_proportional_millionths,
                cltv_expiry_delta: terms.cltv_expiry_delta - u16::from(flaw == Flaw::Delta),
            });
        }
        Some(hops)
    }

    fn pay(&mut self, payment: usize) {
        let Payment { amount, ref invoice, .. } = self.payments[payment];
        let Some((_, text)) = invoice.clone() else { return };
        let names_none = Invoice::parse(&text, Network::Regtest).expect("an invoice").terms.amount.is_none();
        self.send(payment, Whom::Invoice { invoice: text, amount: names_none.then_some(amount) });
    }

    fn send(&mut self, payment: usize, whom: Whom) {
        let payer = self.payments[payment].payer;
        let (max_fee, timeout) = (Some(Msat::new(1_000_000)), Duration::from_secs(60));
        let order = PayOrder { whom, max_fee, timeout, route: None, idempotency: None, payer: None };
        let Some(live) = &mut self.nodes[payer].live else { return };
        let payments = live.core.payments.clone();
        let future = Box::pin(async move { payments.send(order).await });
        live.waits.push(Waits::Send { payment, future });
        self.after(payer);
    }

    /// What callers were told is on the disk of a node that starts again.
    pub fn told_is_kept(&self, node: usize) {
        let reader = &self.nodes[node].live().core.reader;
        for (number, payment) in self.payments.iter().enumerate() {
            if let Some((hash, _)) = payment.invoice.as_ref().filter(|_| payment.payee == node) {
                assert!(
                    reader.invoice(hash).unwrap().is_some(),
                    "the invoice of payment {number} was told and is lost"
                );
            }
            if let Some(Ok(begun)) = payment.answer.as_ref().filter(|_| payment.payer == node) {
                let row = reader.payment(&begun.payment_id).unwrap();
                assert!(row.is_some(), "payment {number} was told of and is forgotten");
            }
        }
    }

    /// Each payment has ended, and as its payee sees it; what each node paid and got is what it says, to the msat.
    pub fn assert_paid(&mut self) {
        let mut by_hash: BTreeMap<PaymentHash, Vec<usize>> = BTreeMap::new();
        for (number, payment) in self.payments.iter().enumerate() {
            if let Some((hash, _)) = &payment.invoice {
                by_hash.entry(*hash).or_default().push(number);
            }
        }
        for (hash, numbers) in by_hash {
            if !self.is_unsure(&hash) {
                self.assert_hash(hash, &numbers);
            }
        }
        for number in 0..self.payments.len() {
            let hash =
                self.payments[number].answer.as_ref().and_then(|answer| Some(answer.as_ref().ok()?.payment_hash));
            let is_sure = hash.is_some_and(|hash| !self.is_unsure(&hash));
            if is_sure && !self.nodes[self.payments[number].payer].is_old {
                self.assert_row(number);
            }
        }
    }

    /// What the row of a payment says at the end, and of one that nobody asked for all that there is to say.
    fn assert_row(&mut self, number: usize) {
        let Payment { payer, payee, amount, is_keysend, ref answer, .. } = self.payments[number];
        // One that a crash took before it was durable was never begun.
        let Some(Ok(begun)) = answer.clone() else { return };
        let Some(row) = self.nodes[payer].live().core.payments.get(&begun.payment_id).unwrap() else {
            panic!("payment {number} was told of and is forgotten")
        };
        assert_eq!(row.again, None, "payment {number} is over, and may be tried again");
        if row.next_part > begun.next_part {
            self.counts.one("payments tried again");
        }
        if !is_keysend || self.replayed.contains(&row.payment_hash) {
            return;
        }
        let (out, into) = (self.ledger.flow(payer, &row.payment_hash), self.ledger.flow(payee, &row.payment_hash));
        let paid = match row.state {
            PaymentState::Pending => panic!("payment {number} never ends"),
            PaymentState::Succeeded { fee, .. } => {
                self.counts.one("keysend payments succeeded");
                assert_eq!(fee, Msat::ZERO);
                amount.get()
            }
            PaymentState::Failed { .. } => 0,
        };
        assert_eq!((out, into), ((paid, 0), (0, paid)), "payment {number} is {:?}", row.state);
    }

    fn assert_hash(&mut self, hash: PaymentHash, numbers: &[usize]) {
        let payee = self.payments[numbers[0]].payee;
        let invoice = self.nodes[payee].live().core.reader.invoice(&hash).unwrap().expect("an invoice that was told");
        let payers: std::collections::BTreeSet<usize> = numbers.iter().map(|n| self.payments[*n].payer).collect();
        let mut succeeded = Vec::new();
        for payer in &payers {
            let row = self.nodes[*payer].live().core.reader.payment_by_hash(&hash).unwrap();
            match row.as_ref().map(|row| &row.state) {
                Some(PaymentState::Pending) => panic!("payments {numbers:?} never end"),
                Some(PaymentState::Succeeded { preimage, fee, .. }) => {
                    assert_eq!(preimage.payment_hash(), hash);
                    succeeded.push((*payer, row.as_ref().expect("a row").amount, *fee));
                }
                Some(PaymentState::Failed { .. }) => self.counts.one("payments failed"),
                None => self.counts.one("payments never begun"),
            }
        }
        if self.replayed.contains(&hash) {
            // Where the first HTLC was lost, the one that was offered by hand may be the one that pays.
            self.counts.add("payments succeeded", succeeded.len() as u64);
            return;
        }
        let paid = invoice.paid.map_or(0, |paid| paid.amount.get());
        assert_eq!(self.ledger.flow(payee, &hash), (0, paid), "the payee of {numbers:?}");
        // Of one invoice that several pay: a node that has its preimage claims with it what comes over it (FWD-1), and parts of
        // several payers may be one set (BOLT 4: friends who split a bill).
        let is_shared = payers.len() > 1;
        let is_one = succeeded.len() == usize::from(paid > 0);
        assert!(is_one || (is_shared && paid > 0), "payments {numbers:?}: {succeeded:?}");
        assert!(paid == 0 || !succeeded.is_empty(), "payments {numbers:?} are paid for and failed");
        self.counts.add("payments succeeded", succeeded.len() as u64);
        let mut fees = 0;
        for node in (0..self.nodes.len()).filter(|node| *node != payee) {
            let (out, into) = self.ledger.flow(node, &hash);
            let own = succeeded.iter().find(|(payer, ..)| *payer == node);
            let own = own.map_or(0, |(_, amount, fee)| amount.get() + fee.get());
            assert!(out <= into + own, "node {node} pays {out} for {numbers:?}, and says {own}");
            fees += into + own - out;
        }
        let promised: u64 = succeeded.iter().map(|(_, _, fee)| fee.get()).sum();
        assert!(is_shared || fees == promised, "payments {numbers:?}: {fees} of fees, and {promised} are told");
    }
}

/// Extends a way to the payee, if that can be done.
fn extend(way: &mut Vec<usize>, payee: usize, edges: &[[usize; 2]]) -> bool {
    let last = *way.last().expect("a way");
    if last == payee {
        return true;
    }
    if way.len() > 4 {
        return false;
    }
    for edge in edges {
        let next = match edge {
            [a, b] if *a == last => *b,
            [a, b] if *b == last => *a,
            _ => continue,
        };
        if way.contains(&next) {
            continue;
        }
        way.push(next);
        if extend(way, payee, edges) {
            return true;
        }
        way.pop();
    }
    false
}

impl Payment {
    /// Whether the payer was told before of the payment that this answer is about.
    pub fn is_of(&self, answer: &Result<PaymentRow, impl Sized>) -> bool {
        let known = self.answer.as_ref().and_then(|known| known.as_ref().ok());
        known.zip(answer.as_ref().ok()).is_some_and(|(known, row)| known.payment_id == row.payment_id)
    }

    /// Over the channel that the two have.
    pub fn plain(payer: usize, payee: usize, amount: Msat) -> Self {
        let (ways, flaw) = (vec![vec![payer, payee]], Flaw::None);
        Self { payer, payee, amount, ways, flaw, is_held: false, invoice: None, is_keysend: false, answer: None }
    }
}
