//! Faults of those who read events.

use outrigger_rpc_schema::ErrorKind;

use super::Fault;

impl Fault {
    /// The events asked for are no longer kept.
    pub fn event_gap(oldest_seq: u64) -> Self {
        let fault = Self::lasting(
            ErrorKind::EventGap,
            format!("events up to {oldest_seq} are no longer kept"),
            format!("Read the state with the list methods, then go on with after_seq={oldest_seq}."),
        );
        fault.after_seq(oldest_seq)
    }

    /// The newest event that is no longer kept, where it is for that.
    pub(in crate::rpc) fn gap(&self) -> Option<u64> {
        self.after_seq.filter(|_| self.kind == ErrorKind::EventGap)
    }

    /// The reader of a subscription does not keep up.
    pub(in crate::rpc) fn event_behind(after_seq: u64) -> Self {
        let fault = Self::passing(
            ErrorKind::EventBehind,
            "the subscription has ended: events came faster than they were read",
            format!("Nothing is lost. Subscribe again with after_seq={after_seq}, or read event.list."),
        );
        fault.after_seq(after_seq)
    }

    /// A subscription needs a connection on which both sides speak.
    pub(in crate::rpc) fn no_session() -> Self {
        Self::lasting(
            ErrorKind::EventNoSession,
            "a request over HTTP has one answer, and a subscription has many",
            "Subscribe over WebSocket, or poll event.list with after_seq.",
        )
    }

    /// The connection has as many subscriptions as it may.
    pub(in crate::rpc) fn too_many_subscriptions(most: usize) -> Self {
        Self::lasting(
            ErrorKind::EventTooManySubscriptions,
            format!("the connection has {most} subscriptions, and that is enough"),
            "One subscription can name several kinds; event.unsubscribe ends one.",
        )
    }

    /// Names the event to go on from.
    #[must_use]
    pub(in crate::rpc) fn after_seq(self, after_seq: u64) -> Self {
        Self { after_seq: Some(after_seq), ..self }
    }
}
