//! Pages of lists.

/// How many items a page has where the caller does not say.
const DEFAULT_LIMIT: u32 = 100;

/// How many items the page shall have. The schema holds a caller's limit within 1 to 1000.
pub(super) fn limit(given: Option<u32>) -> usize {
    usize::try_from(given.unwrap_or(DEFAULT_LIMIT)).unwrap_or(usize::MAX)
}

/// Cuts a list that was asked for with one item more than the page to the page, and gives its last item's name as
/// cursor where there is more.
pub(super) fn cut<T>(mut items: Vec<T>, limit: usize, name: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(name);
    (items, next)
}
