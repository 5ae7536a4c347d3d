//! Input files whose upload nobody heard the end of: no batch will be made of them,
//! and they would lie at the provider until they expire.

use crate::{
    engine::{Engine, upload::file_name},
    model::{batch::Batch, id::BatchId},
    ports::ProviderError,
};

impl Engine {
    /// Adds them to the batch's litter. What cannot be found out is tried again, unless
    /// the provider has no such list.
    pub(super) async fn find_strays(&self, batch: &mut Batch) -> Result<(), ProviderError> {
        if !self.has_stray(batch.id) {
            return Ok(());
        }
        match self.files_of(batch).await {
            Ok(files) => {
                let strays = files.into_iter().filter(|file| {
                    batch.input_file.as_ref() != Some(file) && !batch.litter.contains(file)
                });
                let strays: Vec<String> = strays.collect();
                batch.litter.extend(strays);
            }
            // A rescue does not wait for that.
            Err(error) if error.is_transient() && !self.is_wanted(batch.id) => return Err(error),
            Err(error) => {
                tracing::warn!(batch = %batch.id, %error, "an upload's reply was lost; its file may lie at the provider until it expires");
            }
        }
        self.may_be_stray(batch.id, false);
        Ok(())
    }

    async fn files_of(&self, batch: &Batch) -> Result<Vec<String>, ProviderError> {
        let credential = self.credential(batch.credential).await?;
        let since = self.listed_since(batch.created);
        let name = file_name(batch);
        self.provider.files_named(&credential, &name, since).await
    }

    fn has_stray(&self, id: BatchId) -> bool {
        let summary = self.summary.lock();
        summary.batches.get(&id).is_some_and(|it| it.stray_file)
    }

    pub(super) fn may_be_stray(&self, id: BatchId, is: bool) {
        if let Some(tracked) = self.summary.lock().batches.get_mut(&id) {
            tracked.stray_file = is;
        }
    }
}
