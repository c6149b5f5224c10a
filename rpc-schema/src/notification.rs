//! What the daemon says without being asked each time: notifications of JSON-RPC, on connections on which both sides speak.

use std::sync::LazyLock;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::method::self_contained;
use crate::{ErrorData, ErrorKind, Event, EventSubscribe, Method, PluginInit, parameter};

/// An event of a subscription. Within one subscription their `seq` rises, and none of its kinds is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventTold {
    /// The subscription, as the answer that began it names it.
    pub subscription_id: String,
    /// What has happened.
    pub event: Event,
}

/// The last word of a subscription: why it has ended. `after_seq` of the error's data is the number to subscribe again from; with
/// `event_gap` what lies before it is gone. After `event_behind` and `auth_token_ended` the connection is closed too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsEnded {
    /// The subscription, as the answer that began it names it.
    pub subscription_id: String,
    /// Why no more comes.
    pub error: EventsEndedError,
}

/// An error of JSON-RPC, in the last word of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsEndedError {
    /// The code, in the band of a group.
    pub code: u32,
    /// What went wrong, for people.
    pub message: String,
    /// Kind, hint, and where to go on.
    pub data: ErrorData,
}

/// What `event.subscribe` sends once it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventNotice {
    /// An event.
    Told(EventTold),
    /// The end.
    Ended(EventsEnded),
}

/// A notification as the schema describes it.
#[derive(Clone, Debug)]
pub struct NotificationInfo {
    /// Its `method` on the wire.
    pub name: &'static str,
    /// What it tells, in a sentence or two.
    pub summary: String,
    /// The methods whose answer it may follow.
    pub begun_by: &'static [&'static str],
    /// The kinds of its `error`; empty where it has none. Where it has one no other follows.
    pub errors: &'static [ErrorKind],
    /// The name of its params' type.
    pub params_name: String,
    /// The JSON schema of its params, self-contained.
    pub params: Schema,
    /// Adds the type of its params to those that a generator of definitions knows.
    pub(crate) define: fn(&mut SchemaGenerator),
}

/// Why a subscription may end while its connection lasts.
const ENDS: [ErrorKind; 5] = [
    ErrorKind::EventGap,
    ErrorKind::EventBehind,
    ErrorKind::AuthTokenEnded,
    ErrorKind::Stopping,
    ErrorKind::StorageFailed,
];

impl NotificationInfo {
    fn of_events<T: JsonSchema>(errors: &'static [ErrorKind]) -> Self {
        let params = self_contained::<T>();
        Self {
            name: EventSubscribe::NAME,
            summary: parameter::description(params.as_value()),
            begun_by: &[EventSubscribe::NAME, PluginInit::NAME],
            errors,
            params_name: T::schema_name().into_owned(),
            params,
            define: |types| {
                types.subschema_for::<T>();
            },
        }
    }
}

/// Every notification. Those of one name differ by their params: one of them fits exactly.
pub fn notifications() -> &'static [NotificationInfo] {
    static NOTIFICATIONS: LazyLock<Vec<NotificationInfo>> = LazyLock::new(|| {
        vec![NotificationInfo::of_events::<EventTold>(&[]), NotificationInfo::of_events::<EventsEnded>(&ENDS)]
    });
    &NOTIFICATIONS
}
