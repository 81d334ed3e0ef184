//! What children print, as log lines and as a tail for error texts.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes of output kept for error texts.
const TAIL: usize = 4096;

/// Longest line that is logged as one.
const LINE: u64 = 16 * 1024;

/// How long the last output of a child that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The output of a child.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) tail: Tail,
    /// Ends when nobody can print any more.
    reading: Option<JoinHandle<()>>,
}

impl Output {
    /// Waits a moment for what a child that has ended printed last.
    pub(crate) async fn finish(&mut self) {
        if let Some(reading) = self.reading.take() {
            // What the child has started may hold the pipe open for long.
            let _ = timeout(LAST_WORDS, reading).await;
        }
    }
}

/// The last [`TAIL`] bytes that a child has printed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    fn push(&self, line: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(line);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }

    /// Forgets what was printed so far.
    pub(crate) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The text, without white space at its ends.
    pub(crate) fn text(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail).trim().to_owned()
    }
}

/// Logs each line of `output` until the child and all that inherited the pipe have closed it.
///
/// # Errors
/// If the pipe cannot be registered with the runtime.
pub(crate) fn watch(output: OwnedFd, role: &'static str, pid: u32) -> std::io::Result<Output> {
    let output = pipe::Receiver::from_owned_fd(output)?;
    let tail = Tail::default();
    let copy = tail.clone();
    let reading = tokio::spawn(async move {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut output).take(LINE).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    copy.push(&line);
                    let text = String::from_utf8_lossy(&line);
                    tracing::info!(target: "oxidask::python", role, pid, line = text.trim_end(), "output of a Python child");
                }
            }
        }
    });
    Ok(Output {
        tail,
        reading: Some(reading),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_bytes() {
        let tail = Tail::default();
        tail.push(&[b'a'; TAIL]);
        tail.push(b"end\n");
        let text = tail.text();
        assert_eq!(text.len(), TAIL - 1);
        assert!(text.ends_with("aend"));
    }
}
