//! `forward.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{ForwardList, ForwardPage, ForwardReport, ForwardStats};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors, Fault, ForwardQuery, StatsQuery, page, read};

impl<B: Backend> Serve<B> for ForwardList {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ForwardPage> {
        let limit = page::limit(self.limit);
        let query = ForwardQuery {
            newest_first: self.newest_first.unwrap_or(false),
            after: read::cursor(self.after.as_deref())?,
            count: limit.saturating_add(1),
        };
        let forwards = doors.node()?.forward_list(query).await?;
        let (items, next) = page::cut(forwards, limit, |forward| forward.seq.to_string());
        Ok(ForwardPage { items, next })
    }
}

impl<B: Backend> Serve<B> for ForwardStats {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ForwardReport> {
        let Self { since_at, until_at, limit } = self;
        if since_at.zip(until_at).is_some_and(|(since_at, until_at)| until_at < since_at) {
            return Err(Fault::invalid_parameter("until_at", "is before since_at"));
        }
        doors.node()?.forward_stats(StatsQuery { since_at, until_at, count: page::limit(limit) }).await
    }
}
