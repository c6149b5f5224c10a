//! What a method is, and the table of all methods.

use std::sync::LazyLock;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::parameter::{self, Parameter};
use crate::{
    ErrorKind, Scope, backup, chain, channel, config, event, forward, invoice, node, payment, peer, plugin, token,
    wallet,
};

/// A method of the interface: the struct that implements it holds the parameters.
pub trait Method: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name on the wire, `group.verb`.
    const NAME: &'static str;
    /// Whether the method commits money: such a call must wait for its answer, so a notification of it is refused.
    const MOVES_MONEY: bool = false;
    /// Whether it needs a connection on which both sides speak: WebSocket, or the pipe of a parent.
    const NEEDS_SESSION: bool = false;
    /// What a token must allow for it: one of these, or admin.
    const SCOPES: &'static [Scope];
    /// Whether it asks the node, with some parameters at least: such a call is refused before there is a node, and while it stops.
    const ASKS_NODE: bool = true;
    /// Whether it begins something that needs the newest blocks: such a call is refused while they do not come.
    const NEEDS_CHAIN: bool = false;
    /// What the method itself may refuse a call for, beside what it has in common with others; [`MethodInfo::errors`] has both.
    const ERRORS: &'static [ErrorKind];
    /// The parameters of a call that can be tried, as a JSON object. A text that begins with `$` is the reader's own: it stands
    /// for a variable of their shell, and has a sample in `example.rs`.
    const EXAMPLE: &'static str = "{}";
    /// The version with which it came. A field that came with a later one says so in its schema, as `x-added-in`.
    const ADDED_IN: &'static str = "0.1.0";
    /// The version from which on something else is to be used in its place, if there is one: what, stands in its description. It goes
    /// two minor versions later at the earliest.
    const DEPRECATED_IN: Option<&'static str> = None;
    /// What it answers: always an object.
    type Result: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;
}

/// A method as the schema describes it.
#[derive(Clone, Debug)]
pub struct MethodInfo {
    /// The name on the wire, `group.verb`.
    pub name: &'static str,
    /// What it does, in a sentence or two.
    pub summary: String,
    /// Whether a notification of it is refused.
    pub moves_money: bool,
    /// Whether it needs a connection on which both sides speak: WebSocket, or the pipe of a parent.
    pub needs_session: bool,
    /// What a token must allow for it: one of these, or admin.
    pub scopes: &'static [Scope],
    /// The kinds of all errors that a call of it may be refused with, in the order of [`ErrorKind::ALL`].
    pub errors: Vec<ErrorKind>,
    /// The version with which it came.
    pub added_in: &'static str,
    /// The version from which on something else is to be used in its place.
    pub deprecated_in: Option<&'static str>,
    /// Its parameters, the required ones first.
    pub parameters: Vec<Parameter>,
    /// The parameters of a call that can be tried; [`Method::EXAMPLE`] says what `$` means in it.
    pub example: Map<String, Value>,
    /// The name of its result's type.
    pub result_name: String,
    /// The JSON schema of its result, self-contained.
    pub result: Schema,
    /// Adds the types of parameters and result to those that a generator of definitions knows; gives their names.
    pub(crate) define: fn(&mut SchemaGenerator) -> [String; 2],
}

impl MethodInfo {
    fn of<M: Method>() -> Self {
        let schema = self_contained::<M>();
        let parameters = parameter::parameters(schema.as_value());
        Self {
            name: M::NAME,
            summary: parameter::description(schema.as_value()),
            moves_money: M::MOVES_MONEY,
            needs_session: M::NEEDS_SESSION,
            scopes: M::SCOPES,
            errors: errors::<M>(&parameters),
            added_in: M::ADDED_IN,
            deprecated_in: M::DEPRECATED_IN,
            parameters,
            // A test reads every example.
            example: serde_json::from_str(M::EXAMPLE).unwrap_or_default(),
            result_name: M::Result::schema_name().into_owned(),
            result: self_contained::<M::Result>(),
            define: define::<M>,
        }
    }

    /// Those of its errors that not any method may have.
    pub(crate) fn own_errors(&self) -> Vec<ErrorKind> {
        self.errors.iter().copied().filter(|kind| !ErrorKind::OF_ANY_METHOD.contains(kind)).collect()
    }

    /// The method of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        methods().iter().find(|method| method.name == name)
    }
}

/// Every method, in the order in which the interface lists them.
pub fn methods() -> &'static [MethodInfo] {
    static METHODS: LazyLock<Vec<MethodInfo>> = LazyLock::new(|| {
        vec![
            MethodInfo::of::<plugin::RpcDiscover>(),
            MethodInfo::of::<plugin::PluginManifest>(),
            MethodInfo::of::<plugin::PluginInit>(),
            MethodInfo::of::<node::NodeInfo>(),
            MethodInfo::of::<node::NodeStatus>(),
            MethodInfo::of::<node::NodeStop>(),
            MethodInfo::of::<config::ConfigGet>(),
            MethodInfo::of::<config::LogLevels>(),
            MethodInfo::of::<chain::ChainStatus>(),
            MethodInfo::of::<chain::ChainFeerates>(),
            MethodInfo::of::<chain::ChainNotifyBlock>(),
            MethodInfo::of::<wallet::WalletBalance>(),
            MethodInfo::of::<wallet::WalletNewAddress>(),
            MethodInfo::of::<wallet::WalletSend>(),
            MethodInfo::of::<wallet::WalletWait>(),
            MethodInfo::of::<wallet::WalletUtxos>(),
            MethodInfo::of::<peer::PeerConnect>(),
            MethodInfo::of::<peer::PeerDisconnect>(),
            MethodInfo::of::<peer::PeerList>(),
            MethodInfo::of::<channel::ChannelOpen>(),
            MethodInfo::of::<channel::ChannelOpenWait>(),
            MethodInfo::of::<channel::ChannelList>(),
            MethodInfo::of::<channel::ChannelGet>(),
            MethodInfo::of::<channel::ChannelWait>(),
            MethodInfo::of::<channel::ChannelClose>(),
            MethodInfo::of::<channel::ChannelForceClose>(),
            MethodInfo::of::<channel::ChannelSetPolicy>(),
            MethodInfo::of::<invoice::InvoiceCreate>(),
            MethodInfo::of::<invoice::InvoiceGet>(),
            MethodInfo::of::<invoice::InvoiceList>(),
            MethodInfo::of::<invoice::InvoiceDecode>(),
            MethodInfo::of::<payment::PaymentSend>(),
            MethodInfo::of::<payment::PaymentWait>(),
            MethodInfo::of::<payment::PaymentGet>(),
            MethodInfo::of::<payment::PaymentList>(),
            MethodInfo::of::<payment::PaymentAbandon>(),
            MethodInfo::of::<forward::ForwardList>(),
            MethodInfo::of::<forward::ForwardStats>(),
            MethodInfo::of::<backup::BackupStatus>(),
            MethodInfo::of::<event::EventList>(),
            MethodInfo::of::<event::EventSubscribe>(),
            MethodInfo::of::<event::EventUnsubscribe>(),
            MethodInfo::of::<token::TokenCreate>(),
            MethodInfo::of::<token::TokenList>(),
            MethodInfo::of::<token::TokenRevoke>(),
        ]
    });
    &METHODS
}

/// What a call of the method may be refused for.
fn errors<M: Method>(parameters: &[Parameter]) -> Vec<ErrorKind> {
    let has_key = parameters.iter().any(|parameter| parameter.name == "idempotency_key");
    let may_be = |kind: &ErrorKind| {
        M::ERRORS.contains(kind)
            || ErrorKind::OF_ANY_METHOD.contains(kind)
            || (M::ASKS_NODE && ErrorKind::WITHOUT_NODE.contains(kind))
            || (M::NEEDS_CHAIN && ErrorKind::WITHOUT_CHAIN.contains(kind))
            || (has_key && *kind == ErrorKind::IdempotencyConflict)
            || (M::MOVES_MONEY && *kind == ErrorKind::NotificationRefused)
    };
    ErrorKind::ALL.into_iter().filter(may_be).collect()
}

fn define<M: Method>(types: &mut SchemaGenerator) -> [String; 2] {
    types.subschema_for::<M>();
    types.subschema_for::<M::Result>();
    [M::schema_name().into_owned(), M::Result::schema_name().into_owned()]
}

/// The schema of a type with everything it refers to written out in place, and no field nullable.
pub(crate) fn self_contained<T: JsonSchema>() -> Schema {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    parameter::forbid_null(&mut schema);
    schema
}
