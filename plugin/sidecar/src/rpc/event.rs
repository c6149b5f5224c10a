//! `event.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{EventList, EventPage};

use super::serve::Serve;
use super::{Answer, Backend, Caller, Doors, EventQuery, page};

impl<B: Backend> Serve<B> for EventList {
    async fn serve(self, doors: Arc<Doors<B>>, _: Caller) -> Answer<EventPage> {
        let query = EventQuery {
            after_seq: self.after_seq,
            kinds: self.kinds.unwrap_or_default(),
            limit: page::limit(self.limit),
        };
        doors.node()?.event_list(query).await
    }
}
