//! Ends a scheduler that nobody uses.

use std::sync::Arc;

use tracing::info;

use crate::server::Server;

/// Has the scheduler closed once nothing has been to do for the idle timeout; returns at once without one.
pub async fn watch(server: Arc<Server>) {
    let Some(timeout) = server.settings.idle_timeout else {
        return;
    };
    loop {
        let idle_since = server.driver().core().idle_since();
        let now = server.clock.now();
        let idle = idle_since.map_or(std::time::Duration::ZERO, |since| now - since);
        if idle >= timeout {
            info!(
                seconds = timeout.as_secs_f64(),
                "scheduler has been idle for its idle timeout"
            );
            server.shutdown_soon("idle-timeout-exceeded");
            return;
        }
        // Work that comes and goes meanwhile moves the end further away, never nearer.
        tokio::time::sleep(timeout - idle).await;
    }
}
