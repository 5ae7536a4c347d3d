//! A provider's list, newest first, as it is read: page by page, back to an instant.

use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};

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
    /// What the provider's clock said when the page was asked for, at the latest; none
    /// where it does not tell.
    pub asked: Option<Timestamp>,
}

/// How far back a list is read.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// By our clock.
    pub at: Timestamp,
    /// What our clock says when the first page is asked for.
    pub now: Timestamp,
}

impl Since {
    /// What is listed is dated by the provider's clock. Where that is behind ours, as far
    /// back by it; never less far than by ours.
    fn by(self, theirs: Option<Timestamp>) -> Timestamp {
        let ago = self.at.until(self.now);
        theirs.map_or(self.at, |theirs| self.at.min(theirs - ago))
    }
}

/// What is listed, up to the end of the page that reaches back to `since`. `page` reads
/// the one after an item's id; after none, the first.
///
/// # Errors
/// The first page that could not be read ends it.
pub fn back_to<T, F>(
    since: Since,
    mut page: impl FnMut(Option<String>) -> F,
) -> impl Stream<Item = Result<T, ProviderError>>
where
    T: Listed,
    F: Future<Output = Result<Page<T>, ProviderError>>,
{
    let pages = stream::try_unfold(Next::First, move |next| {
        let (after, known) = match next {
            Next::First => (None, None),
            Next::After(last, since) => (Some(last), Some(since)),
            Next::None => return future::Either::Left(future::ready(Ok(None))),
        };
        let asked = page(after.clone());
        future::Either::Right(async move {
            let page = asked.await?;
            let since = known.unwrap_or_else(|| since.by(page.asked));
            let next = page.next(after.as_deref(), since);
            Ok(Some((page.items, next)))
        })
    });
    pages
        .map_ok(|items| stream::iter(items).map(Ok))
        .try_flatten()
}

/// Which page is read next.
enum Next {
    First,
    /// Behind this item, and back to when by the provider's clock.
    After(String, Timestamp),
    None,
}

impl<T: Listed> Page<T> {
    /// Some servers do not know `after`, and tell the same page again.
    fn next(&self, after: Option<&str>, since: Timestamp) -> Next {
        let Some(last) = self.items.last() else {
            return Next::None;
        };
        let is_past = last.created().is_some_and(|created| created < since);
        let is_told_again = after == Some(last.id());
        match self.has_more && !is_past && !is_told_again {
            true => Next::After(last.id().to_owned(), since),
            false => Next::None,
        }
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

    const SINCE: Since = Since {
        at: Timestamp::from_secs(30),
        now: Timestamp::from_secs(100),
    };

    fn page(items: &[Item], has_more: bool) -> Page<Item> {
        Page {
            items: items.to_vec(),
            has_more,
            asked: None,
        }
    }

    /// What is read of these pages, and behind which items it was asked for.
    async fn read(pages: &[Page<Item>], since: Since) -> (Vec<&'static str>, Vec<String>) {
        let mut asked = Vec::new();
        let items = back_to(since, |after| {
            let page = pages[asked.len()].clone();
            asked.push(after.unwrap_or_default());
            future::ready(Ok(page))
        });
        let read: Vec<Item> = items.try_collect().await.unwrap();
        (read.into_iter().map(|item| item.0).collect(), asked)
    }

    #[tokio::test]
    async fn to_the_end_of_the_page_that_reaches_back() {
        let new: &[Item] = &[Item("d", Some(40)), Item("c", Some(30))];
        let old: &[Item] = &[Item("b", Some(20)), Item("a", Some(10))];
        let pages = [page(new, true), page(old, true)];
        let first = (vec!["d", "c"], vec![String::new()]);
        let both = (vec!["d", "c", "b", "a"], vec![String::new(), "c".into()]);
        for (at, expected) in [(31, &first), (30, &both), (11, &both)] {
            let at = Timestamp::from_secs(at);
            assert_eq!(&read(&pages, Since { at, ..SINCE }).await, expected);
        }
        assert_eq!(read(&[page(new, false)], SINCE).await, first);
    }

    #[tokio::test]
    async fn by_the_clock_that_is_behind() {
        // By our clock the last one came seventy seconds ago.
        let pages = |theirs: u64| {
            let asked = Some(Timestamp::from_secs(theirs));
            let new = page(&[Item("b", Some(25))], true);
            let old = page(&[Item("a", Some(5))], true);
            // Only the first page's counts: time passes while they are read.
            [Page { asked, ..new }, Page { asked: None, ..old }]
        };
        for (theirs, expected) in [(94, vec!["b", "a"]), (96, vec!["b"]), (900, vec!["b"])] {
            assert_eq!(read(&pages(theirs), SINCE).await.0, expected, "{theirs}");
        }
        let [new, old] = pages(94);
        let older = page(&[Item("z", Some(1))], true);
        let late = Some(Timestamp::from_secs(1_000));
        let pages = [new, Page { asked: late, ..old }, older];
        assert_eq!(read(&pages, SINCE).await.0, ["b", "a"]);
    }

    #[tokio::test]
    async fn where_no_times_are_told_or_the_same_page_comes_again() {
        let same = page(&[Item("b", None), Item("a", None)], true);
        let (read_twice, asked) = read(&[same.clone(), same], SINCE).await;
        assert_eq!(read_twice, ["b", "a", "b", "a"]);
        assert_eq!(asked, ["", "a"]);
        let nothing = (vec![], vec![String::new()]);
        assert_eq!(read(&[page(&[], true)], SINCE).await, nothing);
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_read_ends_it() {
        let lost = Err(ProviderError::Lost("x".into()));
        let mut told = vec![lost, Ok(page(&[Item("a", None)], true))];
        let items = back_to(SINCE, |_| {
            future::ready(told.pop().expect("nothing is asked for after that"))
        });
        let read: Vec<_> = items.collect().await;
        assert!(matches!(
            &read[..],
            [Ok(Item("a", _)), Err(ProviderError::Lost(_))]
        ));
    }
}
