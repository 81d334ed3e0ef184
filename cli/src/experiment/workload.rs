//! The native workloads: what they make ready, what is timed, and how many tasks that is.

use anyhow::{Result, ensure};
use oxidask_client::array::Array;
use oxidask_client::{Client, DType, Future, Kernel, Scalar};
use serde::{Deserialize, Serialize};

use crate::args::{Matmul, Pi};

/// Seed of all random numbers, so that every cell computes the same.
const SEED: u64 = 20_260_811;

/// A workload of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// x · x of a square matrix in square chunks.
    Matmul {
        /// Rows and columns.
        size: usize,
        /// Rows and columns of a chunk.
        chunk: usize,
        /// Type of the elements.
        dtype: DType,
    },
    /// The tutorial's product: (1000, 2000) · (2000, 1000) of whole ones, each one chunk.
    TutorialMatmul,
    /// Points of the unit square, in so many tasks.
    Pi {
        /// Points in all.
        samples: u64,
        /// Tasks in all; 0 for one per worker.
        tasks: u64,
    },
}

/// The sizes of a matmul experiment.
pub(crate) fn matmul(matmul: &Matmul) -> Vec<Task> {
    if matmul.tutorial {
        return vec![Task::TutorialMatmul];
    }
    let dtype = matmul.dtype.dtype();
    let chunk = matmul.chunk;
    let sizes = matmul.sizes.iter();
    sizes
        .map(|size| Task::Matmul {
            size: *size,
            chunk,
            dtype,
        })
        .collect()
}

/// The sizes of a pi experiment.
pub(crate) fn pi(pi: &Pi) -> Vec<Task> {
    let tasks = if pi.tutorial { 0 } else { pi.tasks.max(1) };
    let sizes = pi.sizes.iter();
    sizes
        .map(|samples| Task::Pi {
            samples: *samples,
            tasks,
        })
        .collect()
}

/// What a cell has ready before the clock starts.
pub(crate) enum Ready {
    /// Matrices whose chunks lie on the cluster.
    Product {
        left: Array,
        right: Array,
        /// Keep the chunks there.
        _chunks: Vec<Future>,
    },
    /// Kernels.
    Points(Vec<Kernel>),
}

impl Task {
    /// Name of the workload in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Matmul { .. } => "matmul",
            Self::TutorialMatmul => "matmul (tutorial)",
            Self::Pi { .. } => "pi",
        }
    }

    /// Size in tables: rows, or points.
    pub fn size(&self) -> u64 {
        match self {
            Self::Matmul { size, .. } => *size as u64,
            Self::TutorialMatmul => 1000,
            Self::Pi { samples, .. } => *samples,
        }
    }

    /// Tasks that are timed, with so many workers.
    pub fn tasks(&self, workers: usize) -> u64 {
        match self {
            Self::Matmul { size, chunk, .. } => (size.div_ceil(*chunk) as u64).pow(2),
            Self::TutorialMatmul => 1,
            Self::Pi { tasks: 0, .. } => workers as u64,
            Self::Pi { tasks, .. } => *tasks,
        }
    }

    /// Tasks that make the inputs ready before the clock starts.
    pub(crate) fn inputs(&self) -> u64 {
        match self {
            Self::Matmul { size, chunk, .. } => (size.div_ceil(*chunk) as u64).pow(2),
            Self::TutorialMatmul => 2,
            Self::Pi { .. } => 0,
        }
    }

    /// Why there are no more tasks, where the user may wonder.
    pub fn few_tasks(&self) -> Option<&'static str> {
        match self {
            Self::TutorialMatmul => Some(
                "the product of a (1000, 2000) and a (2000, 1000) matrix of one chunk each is one chunk, hence one task: no number of workers or threads makes it faster; and matrices of whole numbers do not go through BLAS, so NumPy multiplies them in a plain loop",
            ),
            Self::Pi { tasks: 0, .. } => {
                Some("there is one task per worker, so more threads per worker find nothing to do")
            }
            Self::Matmul { .. } | Self::Pi { .. } => None,
        }
    }

    /// Kernels of the points of pi.
    pub(crate) fn points(samples: u64, tasks: u64) -> Vec<Kernel> {
        let share = |chunk: u64| samples / tasks + u64::from(chunk < samples % tasks);
        (0..tasks)
            .map(|chunk| Kernel::Pi {
                seed: SEED,
                chunk,
                samples: share(chunk),
            })
            .collect()
    }

    /// The matrices.
    ///
    /// # Errors
    /// If size and chunk do not go together.
    pub(crate) fn matrices(&self) -> Result<Option<(Array, Array)>> {
        Ok(match self {
            Self::Matmul { size, chunk, dtype } if dtype.is_float() => {
                ensure!(*size > 0 && *chunk > 0, "size and chunk must be positive");
                let x = Array::uniform(SEED, &[*size, *size], &[*chunk, *chunk])?;
                let x = if *dtype == DType::F64 {
                    x
                } else {
                    x.cast(*dtype)
                };
                Some((x.clone(), x))
            }
            Self::Matmul { size, chunk, dtype } => {
                let ones = Scalar::Int(1);
                let x = Array::full(ones, *dtype, &[*size, *size], &[*chunk, *chunk])?;
                Some((x.clone(), x))
            }
            Self::TutorialMatmul => {
                let ones = |rows, columns| {
                    let shape = [rows, columns];
                    Array::full(Scalar::Int(1), DType::I64, &shape, &shape)
                };
                Some((ones(1000, 2000)?, ones(2000, 1000)?))
            }
            Self::Pi { .. } => None,
        })
    }

    /// Brings about what is not timed.
    ///
    /// # Errors
    /// If a task fails.
    pub(crate) async fn prepare(
        &self,
        client: &Client,
        workers: usize,
        only: &[String],
    ) -> Result<Ready> {
        if let Self::Pi { samples, .. } = self {
            return Ok(Ready::Points(Self::points(*samples, self.tasks(workers))));
        }
        let Some((left, right)) = self.matrices()? else {
            return Ok(Ready::Points(Vec::new()));
        };
        let mut chunks = client.submit(left.graph().on(only), left.keys());
        chunks.extend(client.submit(right.graph().on(only), right.keys()));
        client.wait(&chunks).await?;
        Ok(Ready::Product {
            left: left.without_graph(),
            right: right.without_graph(),
            _chunks: chunks,
        })
    }

    /// Does what is timed.
    ///
    /// # Errors
    /// If a task fails.
    pub(crate) async fn perform(client: &Client, ready: &Ready, only: &[String]) -> Result<()> {
        let futures = match ready {
            Ready::Product { left, right, .. } => {
                let product = left.matmul(right)?;
                client.submit(product.graph().on(only), product.keys())
            }
            Ready::Points(kernels) => client.map_on("pi", kernels.iter().cloned(), &[], only),
        };
        client.wait(&futures).await?;
        Ok(())
    }
}
