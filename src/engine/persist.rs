//! Writing down what the provider has done for us. It stands in memory only, so a
//! disk without room is waited for: the alternative is to have it done again.

use std::fmt;

use crate::{policy::retry, ports::StoreError};

use super::Engine;

impl Engine {
    /// Writes until it is written, or asks until it is told. Ends without when the
    /// engine stops, or with an error that time does not mend.
    pub(super) async fn persist<T, F>(
        &self,
        of: impl fmt::Display,
        write: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let settings = &self.settings.live;
        let mut tries = 0;
        loop {
            let error = match write().await {
                Err(error @ (StoreError::Full | StoreError::Io(_))) => error,
                done => return done,
            };
            tries += 1;
            let (base, max) = (settings.retry_base, settings.retry_max);
            let pause = retry::backoff(tries, base, max, None, self.clock.random());
            tracing::error!(%of, %error, ?pause, "the store fails; what must not be lost waits for it");
            let waited = self.stop.run_until_cancelled(tokio::time::sleep(pause));
            if waited.await.is_none() {
                return Err(error);
            }
        }
    }
}
