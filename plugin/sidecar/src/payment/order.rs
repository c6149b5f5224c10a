//! What is to be paid, and why it was not begun.

use std::time::{Duration, Instant};

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{NodeId, PaymentHash, PaymentPreimage, PaymentSecret, ShortChannelId};
use outrigger_bolt::invoice::{InvalidInvoice, Invoice};

use super::plan::{MAX_HELD_BLOCKS, Trust, Way};
use super::route::{self, BadRoute, GivenHop};
use super::{Idempotency, Payments};
use crate::clock::{Clock, NoEntropy};
use crate::store::StoreError;
use crate::store::row::{AgainRow, PaidFor, PaymentRow};
use crate::store::token::TokenId;
use crate::token::NotCharged;

/// Blocks that a payment leaves that its payee has named no number for.
const KEYSEND_BLOCKS: u32 = 80;

/// The most paid in fees where the caller says nothing: this much, or one part in [`DEFAULT_FEE_SHARE`] of the amount where
/// that is more.
const DEFAULT_FEE: Msat = Msat::new(5000);
const DEFAULT_FEE_SHARE: u64 = 100;

/// What to pay.
#[derive(Clone, Debug)]
pub struct PayOrder {
    pub whom: Whom,
    /// The most to pay in fees, over all attempts and parts.
    pub max_fee: Option<Msat>,
    /// How long new attempts are made.
    pub timeout: Duration,
    /// The only way to take, hop by hop.
    pub route: Option<Vec<GivenHop>>,
    pub idempotency: Option<Idempotency>,
    /// The token that it is made with, and counted for; none for whoever may do everything.
    pub payer: Option<TokenId>,
}

/// Whom to pay.
#[derive(Clone, Debug)]
pub enum Whom {
    /// Whoever made this invoice; the amount for one that names none.
    Invoice { invoice: String, amount: Option<Msat> },
    /// A node that expects nothing (keysend).
    Node { node_id: NodeId, amount: Msat },
}

/// Why a payment was not begun. Nothing was sent and nothing is stored.
#[derive(Debug, thiserror::Error)]
pub enum SendFault {
    #[error("the chain is not synced yet, so nothing is paid; see node.status")]
    NotSynced,
    #[error("the disk of the data directory has too little room for another payment; see node.status")]
    NoRoom,
    #[error("{0}")]
    Invoice(#[from] InvalidInvoice),
    #[error("the invoice has expired at {0} (unix seconds); ask for a new one")]
    Expired(u64),
    #[error("the invoice names no amount: give amount_msat")]
    AmountMissing,
    #[error("the invoice asks for {asked} and amount_msat says {given}; leave amount_msat out")]
    AmountDiffers { asked: Msat, given: Msat },
    #[error(
        "a payment of {amount} to {payee} has the payment hash of this invoice, which names another {what}; whoever made the \
         second knows the first: ask the payee for a new invoice"
    )]
    HashTaken { payee: NodeId, amount: Msat, what: &'static str },
    #[error("an amount of zero cannot be paid")]
    AmountZero,
    #[error("the receiver is this node itself")]
    OwnInvoice,
    #[error("{0}")]
    Route(#[from] BadRoute),
    #[error("no channel leads to {0}, and its invoice names no way that begins at a peer of ours")]
    NoRoute(NodeId),
    #[error("{0} is not connected, and the channels with it wait for it")]
    NotConnected(NodeId),
    #[error(
        "channel {0}, by which the route begins, cannot send now; leave its name out, or name another with that peer"
    )]
    Unusable(ShortChannelId),
    #[error("{asked} are to be sent, and no more than {spendable} can be now")]
    TooLarge { spendable: Msat, asked: Msat },
    #[error(
        "the payee, or a node on the way, would hold the payment for {blocks} blocks, and no more than {most} are lent"
    )]
    HeldTooLong { blocks: u32, most: u32 },
    #[error("the way costs {fee} in fees, and no more than {most} may be paid")]
    FeeTooHigh { fee: Msat, most: Msat },
    #[error("{0} attempts were made for it, and that is enough")]
    TooManyAttempts(u16),
    #[error("the payment does not fit an onion")]
    Onion,
    #[error("{0}")]
    NoEntropy(#[from] NoEntropy),
    #[error("{0}")]
    NotCharged(#[from] NotCharged),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl SendFault {
    /// How much it tells of why no way was taken, where several have a reason each.
    pub(super) const fn weight(&self) -> u8 {
        match self {
            Self::FeeTooHigh { .. } | Self::HeldTooLong { .. } => 3,
            Self::TooLarge { .. } => 2,
            Self::NotConnected(_) | Self::Unusable(_) => 1,
            Self::NoRoute(_)
            | Self::NotSynced
            | Self::NoRoom
            | Self::Invoice(_)
            | Self::Expired(_)
            | Self::AmountMissing
            | Self::AmountDiffers { .. }
            | Self::HashTaken { .. }
            | Self::AmountZero
            | Self::OwnInvoice
            | Self::Route(_)
            | Self::TooManyAttempts(_)
            | Self::Onion
            | Self::NoEntropy(_)
            | Self::NotCharged(_)
            | Self::Store(_) => 0,
        }
    }
}

/// What a payment asks for, and the ways to its payee. What was learned of those is lost in a crash.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) payee: NodeId,
    pub(super) hash: PaymentHash,
    /// What the payee wants to be shown; none without an invoice.
    pub(super) secret: Option<PaymentSecret>,
    /// What the payee is told instead.
    pub(super) keysend: Option<PaymentPreimage>,
    pub(super) metadata: Option<Vec<u8>>,
    /// What the payee is to have.
    pub(super) amount: Msat,
    pub(super) max_fee: Msat,
    /// Blocks that the payee wants to be left when the HTLC reaches it.
    pub(super) final_cltv_blocks: u32,
    /// Whether the payee takes it in parts (BOLT 9, `basic_mpp`).
    pub(super) in_parts: bool,
    pub(super) ways: Vec<Way>,
    /// What is thought of channels of ours that did not take a part.
    pub(super) outlets: Trust,
    /// The only way, where the caller gave one: it is tried once.
    pub(super) given: Option<Vec<GivenHop>>,
    /// For how long from its making on new attempts are made: as the caller has it, and no longer than the invoice is good.
    pub(super) timeout: Duration,
    /// After it no new attempt is made.
    pub(super) deadline: Instant,
}

impl Recipe {
    /// What stands in the payment's row, so that a start makes the recipe again. A route that the caller gave is tried once.
    pub(super) fn again(&self, order: &PayOrder) -> Option<AgainRow> {
        let whom = match (&order.whom, self.keysend) {
            (Whom::Invoice { invoice, .. }, _) => PaidFor::Invoice(invoice.clone()),
            (Whom::Node { .. }, Some(preimage)) => PaidFor::Keysend(preimage),
            (Whom::Node { .. }, None) => return None,
        };
        let until = Clock::now_unix().saturating_add(self.timeout.as_secs());
        self.given.is_none().then_some(AgainRow { whom, max_fee: self.max_fee, until })
    }
}

impl Payments {
    /// The recipe of a payment that a start found pending, where time is left to it.
    pub(super) fn recipe_again(&self, row: &PaymentRow) -> Option<Recipe> {
        let AgainRow { whom, max_fee, until } = row.again.as_ref()?;
        let left = until.checked_sub(Clock::now_unix()).filter(|left| *left > 0)?;
        // Whatever the clock has done meanwhile, no longer than it was allowed.
        let timeout = Duration::from_secs(left.min(until.saturating_sub(row.created_at)));
        let asked = match whom {
            PaidFor::Invoice(invoice) => {
                let invoice = Invoice::parse(invoice, self.terms.network).ok()?;
                asked_by_invoice(invoice, row.amount)
            }
            PaidFor::Keysend(preimage) => asked_by_nobody(row.destination, row.amount, *preimage),
        };
        Some(self.recipe_for(asked, *max_fee, (timeout, None)))
    }

    /// What the order means, once all is checked that is no question of channels.
    pub(super) fn recipe(&self, order: &PayOrder, invoice: Option<Invoice>) -> Result<Recipe, SendFault> {
        let asked = match (&order.whom, invoice) {
            (Whom::Invoice { amount, .. }, Some(invoice)) => {
                let expires_at = invoice.terms.timestamp.saturating_add(invoice.terms.expiry_secs);
                if expires_at <= Clock::now_unix() {
                    return Err(SendFault::Expired(expires_at));
                }
                let amount = amount_of(invoice.terms.amount, *amount)?.ok_or(SendFault::AmountMissing)?;
                asked_by_invoice(invoice, amount)
            }
            (Whom::Node { node_id, amount }, _) => {
                asked_by_nobody(*node_id, *amount, PaymentPreimage(Clock::random_bytes()?))
            }
            (Whom::Invoice { .. }, None) => return Err(SendFault::AmountMissing),
        };
        let Asked { payee, amount, .. } = asked;
        if amount == Msat::ZERO {
            return Err(SendFault::AmountZero);
        }
        let us = self.manager.env().keys.node_id();
        if payee == us {
            return Err(SendFault::OwnInvoice);
        }
        if let Some(hops) = &order.route {
            let terms = route::Wanted { us, payee, amount, blocks: asked.final_cltv_blocks, most: MAX_HELD_BLOCKS };
            route::check_given(hops, &terms)?;
        }
        let share = Msat::new(amount.get() / DEFAULT_FEE_SHARE);
        let max_fee = order.max_fee.unwrap_or(share.max(DEFAULT_FEE));
        Ok(self.recipe_for(asked, max_fee, (order.timeout, order.route.clone())))
    }

    fn recipe_for(&self, asked: Asked, max_fee: Msat, (timeout, given): (Duration, Option<Vec<GivenHop>>)) -> Recipe {
        let now = Clock::monotonic();
        let good_for = |at: u64| Duration::from_secs(at.saturating_sub(Clock::now_unix()));
        let timeout = asked.expires_at.map_or(timeout, |at| timeout.min(good_for(at)));
        let us = self.manager.env().keys.node_id();
        let ways = if given.is_some() { Vec::new() } else { route::ways(&us, asked.payee, &asked.hints) };
        Recipe {
            payee: asked.payee,
            hash: asked.hash,
            secret: asked.secret,
            keysend: asked.keysend,
            metadata: asked.metadata,
            amount: asked.amount,
            max_fee,
            final_cltv_blocks: asked.final_cltv_blocks,
            in_parts: asked.in_parts,
            ways: ways.into_iter().map(Way::untried).collect(),
            outlets: Trust::default(),
            given,
            timeout,
            deadline: now.checked_add(timeout).unwrap_or(now),
        }
    }
}

fn asked_by_invoice(invoice: Invoice, amount: Msat) -> Asked {
    let (payee, terms) = (invoice.payee, invoice.terms);
    Asked {
        payee,
        amount,
        expires_at: Some(terms.timestamp.saturating_add(terms.expiry_secs)),
        hash: terms.payment_hash,
        secret: Some(terms.payment_secret),
        keysend: None,
        metadata: terms.payment_metadata,
        final_cltv_blocks: terms.min_final_cltv_expiry_delta,
        in_parts: terms.basic_mpp,
        hints: terms.route_hints,
    }
}

/// What an invoice asks for, or the caller gives for one that names no amount.
pub(super) fn amount_of(asked: Option<Msat>, given: Option<Msat>) -> Result<Option<Msat>, SendFault> {
    match (asked, given) {
        (Some(asked), Some(given)) if asked != given => Err(SendFault::AmountDiffers { asked, given }),
        (asked, given) => Ok(asked.or(given)),
    }
}

/// What the payee is to have, and what it wants to see.
struct Asked {
    payee: NodeId,
    amount: Msat,
    /// When the invoice is good no more, in seconds since 1970 (BOLT 11).
    expires_at: Option<u64>,
    hash: PaymentHash,
    secret: Option<PaymentSecret>,
    keysend: Option<PaymentPreimage>,
    metadata: Option<Vec<u8>>,
    final_cltv_blocks: u32,
    in_parts: bool,
    hints: Vec<Vec<outrigger_bolt::invoice::HintHop>>,
}

/// A payment that nobody asked for: its preimage is ours, and travels in the onion. In one part, since without a secret of
/// the payee's the parts would not be known to belong together.
fn asked_by_nobody(payee: NodeId, amount: Msat, preimage: PaymentPreimage) -> Asked {
    Asked {
        payee,
        amount,
        expires_at: None,
        hash: preimage.payment_hash(),
        secret: None,
        keysend: Some(preimage),
        metadata: None,
        final_cltv_blocks: KEYSEND_BLOCKS,
        in_parts: false,
        hints: Vec::new(),
    }
}
