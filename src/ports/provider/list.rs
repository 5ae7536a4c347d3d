//! A provider's list, newest first, as it is read: page by page, back to an instant.

use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::ProviderError;
use crate::model::time::Timestamp;

/// What a provider lists.
pub trait Listed {
    fn id(&self) -> &str;

    /// None where the provider does not tell.
    fn created(&self) -> Option<Timestamp>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub has_more: bool,
}

/// What is listed, up to the end of the page that reaches back to `since`. `page` reads
/// the one after an item's id; after none, the first.
///
/// # Errors
/// The first page that could not be read ends it.
pub fn back_to<T, F>(
    since: Timestamp,
    mut page: impl FnMut(Option<String>) -> F,
) -> impl Stream<Item = Result<T, ProviderError>>
where
    T: Listed,
    F: Future<Output = Result<Page<T>, ProviderError>>,
{
    let first: Option<Option<String>> = Some(None);
    let pages = stream::try_unfold(first, move |next| {
        let asked = next.map(|after| (page(after.clone()), after));
        async move {
            let Some((page, after)) = asked else {
                return Ok(None);
            };
            let page = page.await?;
            let next = page.last_before_next(after.as_deref(), since).map(Some);
            Ok(Some((page.items, next)))
        }
    });
    pages
        .map_ok(|items| stream::iter(items).map(Ok))
        .try_flatten()
}

impl<T: Listed> Page<T> {
    /// The item behind which the list goes on; none where that is not to be read. Some
    /// servers do not know `after`, and tell the same page again.
    fn last_before_next(&self, after: Option<&str>, since: Timestamp) -> Option<String> {
        let last = self.items.last()?;
        let is_past = last.created().is_some_and(|created| created < since);
        let is_told_again = after == Some(last.id());
        (self.has_more && !is_past && !is_told_again).then(|| last.id().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Item(&'static str, Option<u64>);

    impl Listed for Item {
        fn id(&self) -> &str {
            self.0
        }

        fn created(&self) -> Option<Timestamp> {
            self.1.map(Timestamp::from_secs)
        }
    }

    /// What is read of these pages, and behind which items it was asked for.
    async fn read(pages: &[(&[Item], bool)], since: u64) -> (Vec<&'static str>, Vec<String>) {
        let mut asked = Vec::new();
        let items = back_to(Timestamp::from_secs(since), |after| {
            let at = asked.len();
            asked.push(after.unwrap_or_default());
            let (items, has_more) = pages[at];
            let items = items.to_vec();
            std::future::ready(Ok(Page { items, has_more }))
        });
        let read: Vec<Item> = items.try_collect().await.unwrap();
        (read.into_iter().map(|item| item.0).collect(), asked)
    }

    #[tokio::test]
    async fn to_the_end_of_the_page_that_reaches_back() {
        let new: &[Item] = &[Item("d", Some(40)), Item("c", Some(30))];
        let old: &[Item] = &[Item("b", Some(20)), Item("a", Some(10))];
        let pages = [(new, true), (old, true)];
        let first = (vec!["d", "c"], vec![String::new()]);
        let both = (vec!["d", "c", "b", "a"], vec![String::new(), "c".into()]);
        assert_eq!(read(&pages, 31).await, first);
        assert_eq!(read(&pages, 30).await, both);
        assert_eq!(read(&pages, 11).await, both);
        assert_eq!(read(&[(new, false)], 0).await, first);
    }

    #[tokio::test]
    async fn where_no_times_are_told_or_the_same_page_comes_again() {
        let page: &[Item] = &[Item("b", None), Item("a", None)];
        let twice = read(&[(page, true), (page, true)], 99).await;
        assert_eq!(twice.0, ["b", "a", "b", "a"]);
        assert_eq!(twice.1, ["", "a"]);
        assert_eq!(read(&[(&[], true)], 0).await, (vec![], vec![String::new()]));
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_read_ends_it() {
        let lost = || ProviderError::Lost("x".into());
        let mut told = vec![
            Err(lost()),
            Ok(Page {
                items: vec![Item("a", None)],
                has_more: true,
            }),
        ];
        let items = back_to(Timestamp::ZERO, |_| {
            std::future::ready(told.pop().expect("no page is asked for after that"))
        });
        let read: Vec<_> = items.collect().await;
        assert!(matches!(
            &read[..],
            [Ok(Item("a", _)), Err(ProviderError::Lost(_))]
        ));
    }
}
