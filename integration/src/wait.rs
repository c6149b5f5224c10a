//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use crate::Done;

/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// Looks at `condition` until it holds a value, and gives up with `what` once `limit` is over.
pub async fn until<T, F>(limit: Duration, what: &str, mut condition: F) -> Done<T>
where
    F: AsyncFnMut() -> Done<Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        if begun.elapsed() > limit {
            return Err(format!("gave up after {} s waiting for {what}", limit.as_secs()).into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
