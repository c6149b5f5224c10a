//! What a method is, and the table of all methods.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::parameter::{self, Parameter};
use crate::{backup, chain, channel, event, forward, invoice, node, payment, peer, wallet};

/// A method of the interface: the struct that implements it holds the parameters.
pub trait Method: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name on the wire, `group.verb`.
    const NAME: &'static str;
    /// Whether the method commits money: such a call must wait for its answer, so a notification of it is refused.
    const MOVES_MONEY: bool = false;
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
    /// Its parameters, the required ones first.
    pub parameters: Vec<Parameter>,
    /// The name of its result's type.
    pub result_name: String,
    /// The JSON schema of its result, self-contained.
    pub result: Schema,
}

impl MethodInfo {
    fn of<M: Method>() -> Self {
        let schema = self_contained::<M>();
        Self {
            name: M::NAME,
            summary: parameter::description(schema.as_value()),
            moves_money: M::MOVES_MONEY,
            parameters: parameter::parameters(schema.as_value()),
            result_name: M::Result::schema_name().into_owned(),
            result: self_contained::<M::Result>(),
        }
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
            MethodInfo::of::<node::NodeInfo>(),
            MethodInfo::of::<node::NodeStatus>(),
            MethodInfo::of::<node::NodeStop>(),
            MethodInfo::of::<chain::ChainStatus>(),
            MethodInfo::of::<wallet::WalletBalance>(),
            MethodInfo::of::<wallet::WalletNewAddress>(),
            MethodInfo::of::<peer::PeerConnect>(),
            MethodInfo::of::<peer::PeerList>(),
            MethodInfo::of::<channel::ChannelOpen>(),
            MethodInfo::of::<channel::ChannelList>(),
            MethodInfo::of::<channel::ChannelGet>(),
            MethodInfo::of::<channel::ChannelClose>(),
            MethodInfo::of::<channel::ChannelForceClose>(),
            MethodInfo::of::<channel::ChannelSetPolicy>(),
            MethodInfo::of::<invoice::InvoiceCreate>(),
            MethodInfo::of::<invoice::InvoiceGet>(),
            MethodInfo::of::<payment::PaymentSend>(),
            MethodInfo::of::<payment::PaymentWait>(),
            MethodInfo::of::<payment::PaymentGet>(),
            MethodInfo::of::<payment::PaymentAbandon>(),
            MethodInfo::of::<forward::ForwardList>(),
            MethodInfo::of::<forward::ForwardStats>(),
            MethodInfo::of::<backup::BackupStatus>(),
            MethodInfo::of::<event::EventList>(),
        ]
    });
    &METHODS
}

/// The schema of a type with everything it refers to written out in place, and no field nullable.
fn self_contained<T: JsonSchema>() -> Schema {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    parameter::forbid_null(&mut schema);
    schema
}
