//! Native tasks on threads of this process: no interpreter, and a thread is only started when one is needed.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use bytes::Bytes;
use oxidask_protocol::{Key, Payload};
use oxidask_worker_kernels::Kernel;

use crate::{
    clock::unix,
    executor::array,
    input::{Input, Inputs},
};

/// A kernel with its arguments, ready to run.
#[derive(Debug)]
pub(crate) struct NativeRun {
    /// Number of the run.
    pub(crate) id: u64,
    /// Kernel and parameters in msgpack.
    pub(crate) kernel: Bytes,
    /// Keys and values of the arguments in order.
    pub(crate) arguments: Vec<(Key, Payload)>,
    /// Largest result. Unit: bytes.
    pub(crate) limit: u64,
}

/// How a native run ended.
#[derive(Debug)]
pub(crate) enum NativeOutcome {
    /// With a value.
    Value {
        payload: Payload,
        /// Bytes of its elements.
        nbytes: u64,
        /// Unix seconds.
        start: f64,
        /// Unix seconds.
        stop: f64,
        /// Number of the thread.
        thread: u64,
    },
    /// For the user: what is wrong with kernel or arguments.
    Failed(String),
    /// It did not start: a dependency could not be had.
    Absent,
}

/// Threads that run native tasks, at most one per slot of the worker.
pub(crate) struct NativeThreads {
    runs: mpsc::Sender<NativeRun>,
    queue: Arc<Mutex<mpsc::Receiver<NativeRun>>>,
    /// Runs handed over that have not ended.
    busy: Arc<AtomicUsize>,
    started: usize,
    most: usize,
    inputs: Inputs,
}

impl NativeThreads {
    /// At most `most` threads that tell `inputs` how runs end.
    pub(crate) fn new(most: usize, inputs: Inputs) -> Self {
        let (runs, queue) = mpsc::channel();
        Self {
            runs,
            queue: Arc::new(Mutex::new(queue)),
            busy: Arc::default(),
            started: 0,
            most: most.max(1),
            inputs,
        }
    }

    /// Runs a task, after those handed over before.
    pub(crate) fn run(&mut self, run: NativeRun) {
        let busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        if busy > self.started && self.started < self.most {
            self.start_thread();
        }
        // The receiver lives as long as this object.
        let _ = self.runs.send(run);
    }

    fn start_thread(&mut self) {
        let (queue, busy, inputs) = (
            Arc::clone(&self.queue),
            Arc::clone(&self.busy),
            self.inputs.clone(),
        );
        let number = self.started as u64;
        let work = move || {
            loop {
                let run = {
                    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.recv()
                };
                let Ok(run) = run else { return };
                let id = run.id;
                let outcome = catch_unwind(AssertUnwindSafe(|| perform(run, number)))
                    .unwrap_or_else(|panic| NativeOutcome::Failed(panicked(panic.as_ref())));
                busy.fetch_sub(1, Ordering::Relaxed);
                inputs.send_blocking(Input::Native { id, outcome });
            }
        };
        match std::thread::Builder::new()
            .name(format!("native-{number}"))
            .spawn(work)
        {
            Ok(_) => self.started += 1,
            Err(error) if self.started > 0 => {
                tracing::warn!(%error, "no further thread for native tasks; those that run take them");
            }
            Err(error) => tracing::error!(%error, "no thread for native tasks"),
        }
    }
}

fn perform(run: NativeRun, thread: u64) -> NativeOutcome {
    let start = unix();
    let result = Kernel::of_msgpack(&run.kernel)
        .map_err(|error| error.to_string())
        .and_then(|kernel| {
            let chunks = run
                .arguments
                .iter()
                .map(|(key, payload)| {
                    array::of_payload(payload).map_err(|error| format!("argument {key}: {error}"))
                })
                .collect::<Result<Vec<_>, _>>()?;
            kernel
                .run(&chunks, run.limit)
                .map_err(|error| error.to_string())
        });
    match result {
        Ok(chunk) => {
            let (payload, nbytes) = array::to_payload(&chunk);
            NativeOutcome::Value {
                payload,
                nbytes,
                start,
                stop: unix(),
                thread,
            }
        }
        Err(text) => NativeOutcome::Failed(text),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("the kernel panicked, which is a bug of oxidask: {text}")
}
