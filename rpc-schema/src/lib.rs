//! The JSON-RPC plugin interface of Outrigger: its methods, their types, and the OpenRPC document made of them.
//!
//! A method is a struct: its fields are the parameters, by name, and [`Method`] gives it its name and its result.
//! From that one definition come the call that a client writes, the check that the daemon makes, the text that the
//! command line shows and the checked-in document `openrpc.json`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use outrigger_rpc_schema::{Client, InvoiceCreate};
//!
//! let client = Client::in_directory("/home/me/.outrigger/regtest".as_ref())?;
//! let invoice = client
//!     .call(InvoiceCreate { amount_msat: Some(50_000), description: "coffee".into(), ..Default::default() })
//!     .await?;
//! # let _ = invoice; Ok(()) }
//! ```
//!
//! Rules of the interface: every amount, time and height carries its unit in its name; a field without a value is
//! absent, never null; hashes are lowercase hex in display order; short channel ids are written `BxTxO` and outpoints
//! `txid:n`.

mod backup;
mod calendar;
mod chain;
mod channel;
mod client;
mod config;
mod error;
mod event;
mod example;
mod follow;
mod forward;
mod invoice;
mod method;
mod node;
mod notification;
mod openrpc;
mod parameter;
mod payment;
mod peer;
mod plugin;
mod reference;
pub mod rendezvous;
mod socket;
mod spelling;
mod tls;
mod token;
mod typescript;
pub mod visible;
mod wallet;

pub use backup::{BackupInfo, BackupReport, BackupState, BackupStatus};
pub use calendar::UtcTime;
pub use chain::{
    ChainBudget, ChainCalls, ChainFeerates, ChainFeeratesReport, ChainNotified, ChainNotifyBlock, ChainState,
    ChainStatus, ChainStatusReport,
};
pub use channel::{
    ChannelClose, ChannelClosing, ChannelForceClose, ChannelForceClosing, ChannelGet, ChannelInfo, ChannelList,
    ChannelOpen, ChannelOpenWait, ChannelOpened, ChannelPage, ChannelSetPolicy, ChannelState, ChannelWait,
    ForwardingTerms, OpenState,
};
pub use client::{CallError, Client, Refusal};
pub use config::{
    ConfigGet, ConfigItem, ConfigOrigin, ConfigReport, LogLevel, LogLevels, LogLevelsReport, LogTarget, OptionKind,
    OptionTakes,
};
pub use error::{ErrorData, ErrorKind};
pub use event::{
    Event, EventKind, EventList, EventPage, EventSubscribe, EventSubscribed, EventUnsubscribe, EventUnsubscribed,
};
pub use follow::Events;
pub use forward::{ForwardChannel, ForwardInfo, ForwardList, ForwardPage, ForwardReport, ForwardStats};
pub use invoice::{
    InvoiceCreate, InvoiceCreated, InvoiceDecode, InvoiceDecoded, InvoiceGet, InvoiceInfo, InvoiceList, InvoicePage,
    InvoiceState,
};
pub use method::{Method, MethodInfo, methods};
pub use node::{NodeInfo, NodeInfoReport, NodeStatus, NodeStatusReport, NodeStop, NodeStopping, Phase, StoreReport};
pub use notification::{EventNotice, EventTold, EventsEnded, EventsEndedError, NotificationInfo, notifications};
pub use openrpc::document;
pub use parameter::{Parameter, ParameterFault, ParameterType, first_sentence};
pub use payment::{
    PaymentAbandon, PaymentFailure, PaymentGet, PaymentInfo, PaymentList, PaymentPage, PaymentSend, PaymentSent,
    PaymentState, PaymentWait, RouteHop,
};
pub use peer::{PeerConnect, PeerConnected, PeerDisconnect, PeerDisconnected, PeerInfo, PeerList, PeerPage};
pub use plugin::{
    PROTOCOL_VERSION, PluginGroup, PluginInit, PluginInitialised, PluginManifest, PluginManifestReport, PluginOption,
    RpcDiscover, RpcDiscovered,
};
pub use reference::reference;
pub use spelling::nearest;
pub use token::{Scope, TokenCreate, TokenCreated, TokenInfo, TokenList, TokenPage, TokenRevoke, TokenRevoked};
pub use typescript::typescript;
pub use wallet::{
    SendState, WalletAddress, WalletBalance, WalletBalanceReport, WalletNewAddress, WalletSend, WalletSent,
    WalletTransaction, WalletUtxo, WalletUtxoPage, WalletUtxos, WalletWait,
};
