//! How an executor died, in the words of the error that its task gets.

use std::sync::Arc;

use oxidask_protocol::{Key, Payload};
use oxidask_worker_core::TaskError;

use super::Driver;

/// How an executor died, for the errors of the tasks that are blamed for it.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) status: String,
    pub(super) output: String,
    /// Stands in the core's events until it is known which task is blamed.
    pub(super) placeholder: Arc<TaskError>,
}

impl Death {
    /// What is told of the task `key`, if it is blamed for this death.
    pub(super) fn blame(
        &self,
        key: &Key,
        error: &Arc<TaskError>,
        driver: &Driver,
    ) -> Option<TaskError> {
        if !Arc::ptr_eq(&self.placeholder, error) {
            return None;
        }
        let allowed = driver.settings.allowed_failures;
        let mut text = format!(
            "task {key} killed its process {} times while it ran alone on worker {}; the last time: {}",
            allowed + 1,
            driver.address,
            self.status
        );
        if !self.output.is_empty() {
            text.push_str("; its last output was:\n");
            text.push_str(&self.output);
        }
        let worker = format!("{} ({})", driver.address, self.status);
        let pickle =
            oxidask_protocol::exception::killed_worker(key, &worker, &driver.address, "", allowed);
        Some(TaskError {
            exception: Payload::of_bytes(pickle),
            traceback: None,
            exception_text: format!("KilledWorker({text:?})"),
            traceback_text: String::new(),
        })
    }
}
