//! Chunked arrays as graphs of native tasks: what `dask.array` is to Python, for what the experiments need.
//!
//! An [`Array`] is a description: nothing is computed until a [`Client`](crate::Client) is given it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::Key;
use oxidask_worker_kernels::{Binary, Chunk, DType, Kernel, Reduction, Scalar, Unary};

use crate::graph::token;
use crate::{ClientError, Graph, Task};

/// Chunks that one task of a tree of reductions takes. Source: dask `split_every`.
const SPLIT_EVERY: usize = 4;

/// Tasks of one operation, and those of the operations before it.
#[derive(Debug)]
struct Layer {
    tasks: Vec<Task>,
    parents: Vec<Arc<Self>>,
}

/// An array in chunks.
#[derive(Debug, Clone)]
pub struct Array {
    layer: Arc<Layer>,
    /// Keys of the chunks in C order.
    keys: Vec<Key>,
    /// Lengths of the chunks along each axis.
    chunks: Vec<Vec<usize>>,
}

/// A layer while its tasks are made.
struct Building {
    name: String,
    tasks: Vec<Task>,
    keys: Vec<Key>,
}

impl Building {
    fn new(name: &str) -> Self {
        Self {
            name: format!("{name}-{}", token()),
            tasks: Vec::new(),
            keys: Vec::new(),
        }
    }

    fn key(&self, index: &[usize]) -> Key {
        let name = std::iter::once(Key::from(self.name.as_str()));
        Key::tuple(name.chain(index.iter().map(|at| Key::from(*at as i64))))
    }

    /// Adds the task of a chunk; chunks come in C order.
    fn chunk(&mut self, index: &[usize], kernel: Kernel, inputs: Vec<Key>) {
        let key = self.key(index);
        self.keys.push(key.clone());
        self.tasks.push(Task::new(key, kernel, inputs));
    }

    fn array(self, chunks: Vec<Vec<usize>>, parents: &[&Array]) -> Array {
        let layer = Layer {
            tasks: self.tasks,
            parents: parents
                .iter()
                .map(|array| Arc::clone(&array.layer))
                .collect(),
        };
        Array {
            layer: Arc::new(layer),
            keys: self.keys,
            chunks,
        }
    }
}

impl Array {
    /// Uniform in [0, 1), `F64`. Equal seeds give equal arrays if the chunks are equal too.
    ///
    /// # Errors
    /// If shape and chunks do not go together.
    pub fn uniform(seed: u64, shape: &[usize], chunk: &[usize]) -> Result<Self, ClientError> {
        Self::made("uniform", shape, chunk, |number, shape| Kernel::Uniform {
            seed,
            chunk: number,
            shape,
            dtype: DType::F64,
            low: 0.0,
            high: 1.0,
        })
    }

    /// All elements the same.
    ///
    /// # Errors
    /// If shape and chunks do not go together.
    pub fn full(
        value: Scalar,
        dtype: DType,
        shape: &[usize],
        chunk: &[usize],
    ) -> Result<Self, ClientError> {
        Self::made("full", shape, chunk, |_, shape| Kernel::Full {
            shape,
            dtype,
            value,
        })
    }

    /// Chunks that `kernel` makes of their number and shape.
    fn made(
        name: &str,
        shape: &[usize],
        chunk: &[usize],
        kernel: impl Fn(u64, Vec<usize>) -> Kernel,
    ) -> Result<Self, ClientError> {
        if shape.len() != chunk.len() || chunk.contains(&0) {
            let text = format!("chunks of {chunk:?} do not suit an array of {shape:?}");
            return Err(ClientError::Array(text));
        }
        let lengths = |(length, chunk): (&usize, &usize)| -> Vec<usize> {
            let starts = (0..*length).step_by(*chunk);
            starts.map(|start| (*chunk).min(length - start)).collect()
        };
        let chunks: Vec<Vec<usize>> = shape.iter().zip(chunk).map(lengths).collect();
        let mut building = Building::new(name);
        for (number, index) in indices(&grid(&chunks)).into_iter().enumerate() {
            let shape = shape_at(&chunks, &index);
            building.chunk(&index, kernel(number as u64, shape), Vec::new());
        }
        Ok(building.array(chunks, &[]))
    }

    /// Lengths of the chunks along each axis.
    pub fn chunks(&self) -> &[Vec<usize>] {
        &self.chunks
    }

    /// Lengths of the axes.
    pub fn shape(&self) -> Vec<usize> {
        self.chunks.iter().map(|axis| axis.iter().sum()).collect()
    }

    /// Keys of the chunks in C order.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// All tasks that the array needs.
    pub fn graph(&self) -> Graph {
        let mut seen: Vec<*const Layer> = Vec::new();
        let mut open = vec![Arc::clone(&self.layer)];
        let mut tasks = Vec::new();
        while let Some(layer) = open.pop() {
            if seen.contains(&Arc::as_ptr(&layer)) {
                continue;
            }
            seen.push(Arc::as_ptr(&layer));
            tasks.extend(layer.tasks.iter().cloned());
            open.extend(layer.parents.iter().cloned());
        }
        Graph { tasks }
    }

    /// The same array, whose chunks the cluster has already or is asked for elsewhere.
    #[must_use]
    pub fn without_graph(&self) -> Self {
        Self {
            layer: Arc::new(Layer {
                tasks: Vec::new(),
                parents: Vec::new(),
            }),
            keys: self.keys.clone(),
            chunks: self.chunks.clone(),
        }
    }

    fn key(&self, index: &[usize]) -> &Key {
        let place = index
            .iter()
            .zip(&self.chunks)
            .fold(0, |place, (at, axis)| place * axis.len() + at);
        &self.keys[place]
    }

    /// `op a`, element by element.
    #[must_use]
    pub fn unary(&self, op: Unary) -> Self {
        let mut building = Building::new("unary");
        for index in indices(&grid(&self.chunks)) {
            building.chunk(&index, Kernel::Unary(op), vec![self.key(&index).clone()]);
        }
        building.array(self.chunks.clone(), &[self])
    }

    /// The same elements in another dtype.
    #[must_use]
    pub fn cast(&self, dtype: DType) -> Self {
        let mut building = Building::new("cast");
        for index in indices(&grid(&self.chunks)) {
            building.chunk(&index, Kernel::Cast(dtype), vec![self.key(&index).clone()]);
        }
        building.array(self.chunks.clone(), &[self])
    }

    /// `a op number`, element by element.
    #[must_use]
    pub fn with_scalar(&self, op: Binary, scalar: Scalar) -> Self {
        let mut building = Building::new("with-scalar");
        for index in indices(&grid(&self.chunks)) {
            let kernel = Kernel::WithScalar {
                op,
                scalar,
                reversed: false,
            };
            building.chunk(&index, kernel, vec![self.key(&index).clone()]);
        }
        building.array(self.chunks.clone(), &[self])
    }

    /// `a op b`, element by element.
    ///
    /// # Errors
    /// If the arrays are chunked differently.
    pub fn binary(&self, op: Binary, other: &Self) -> Result<Self, ClientError> {
        if self.chunks != other.chunks {
            let (left, right) = (&self.chunks, &other.chunks);
            let text = format!("arrays in chunks of {left:?} and {right:?} do not go together");
            return Err(ClientError::Array(text));
        }
        let mut building = Building::new("binary");
        for index in indices(&grid(&self.chunks)) {
            let inputs = vec![self.key(&index).clone(), other.key(&index).clone()];
            building.chunk(&index, Kernel::Binary(op), inputs);
        }
        Ok(building.array(self.chunks.clone(), &[self, other]))
    }

    /// All axes in reverse order.
    #[must_use]
    pub fn transpose(&self) -> Self {
        let chunks: Vec<Vec<usize>> = self.chunks.iter().rev().cloned().collect();
        let mut building = Building::new("transpose");
        for index in indices(&grid(&chunks)) {
            let from: Vec<usize> = index.iter().rev().copied().collect();
            let inputs = vec![self.key(&from).clone()];
            building.chunk(&index, Kernel::Transpose(Vec::new()), inputs);
        }
        building.array(chunks, &[self])
    }

    /// The product of two matrices: one task for each chunk of the result, which takes a row and a column of chunks
    /// and adds up in place, so that no partial sum is ever moved.
    ///
    /// # Errors
    /// If they are no matrices, or the inner chunks differ.
    pub fn matmul(&self, other: &Self) -> Result<Self, ClientError> {
        let ([rows, inner], [same, columns]) = (&self.chunks[..], &other.chunks[..]) else {
            return Err(ClientError::Array("matmul takes two matrices".to_owned()));
        };
        if inner != same {
            let text = format!("inner chunks {inner:?} and {same:?} differ");
            return Err(ClientError::Array(text));
        }
        let mut building = Building::new("matmul");
        for i in 0..rows.len() {
            for j in 0..columns.len() {
                let pair = |k| [self.key(&[i, k]).clone(), other.key(&[k, j]).clone()];
                let inputs = (0..inner.len()).flat_map(pair).collect();
                building.chunk(&[i, j], Kernel::Matmul, inputs);
            }
        }
        // Tasks run in this order, so that any run of them needs few rows and columns.
        let mut order = Vec::with_capacity(building.tasks.len());
        halves(0..rows.len(), 0..columns.len(), &mut |i, j| {
            order.push(i * columns.len() + j)
        });
        let mut tasks: Vec<Option<Task>> = building.tasks.into_iter().map(Some).collect();
        building.tasks = order
            .into_iter()
            .filter_map(|at| tasks[at].take())
            .collect();
        Ok(building.array(vec![rows.clone(), columns.clone()], &[self, other]))
    }

    /// The sum over axes, all if none is named.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn sum(&self, axes: Option<&[usize]>) -> Result<Self, ClientError> {
        self.tree(
            "sum",
            axes,
            |axes| Kernel::Reduce {
                op: Reduction::Sum,
                axes: Some(axes),
                keep: true,
            },
            &Kernel::Combine(Reduction::Sum),
        )
    }

    /// The least over axes.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn min(&self, axes: Option<&[usize]>) -> Result<Self, ClientError> {
        self.tree(
            "min",
            axes,
            |axes| Kernel::Reduce {
                op: Reduction::Min,
                axes: Some(axes),
                keep: true,
            },
            &Kernel::Combine(Reduction::Min),
        )
    }

    /// The largest over axes.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn max(&self, axes: Option<&[usize]>) -> Result<Self, ClientError> {
        self.tree(
            "max",
            axes,
            |axes| Kernel::Reduce {
                op: Reduction::Max,
                axes: Some(axes),
                keep: true,
            },
            &Kernel::Combine(Reduction::Max),
        )
    }

    /// The mean over axes.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn mean(&self, axes: Option<&[usize]>) -> Result<Self, ClientError> {
        self.moments(axes, Kernel::Mean)
    }

    /// The variance over axes, with `ddof` taken from the count.
    ///
    /// # Errors
    /// If an axis does not exist.
    pub fn var(&self, axes: Option<&[usize]>, ddof: u32) -> Result<Self, ClientError> {
        self.moments(axes, Kernel::Var { ddof })
    }

    fn moments(&self, axes: Option<&[usize]>, last: Kernel) -> Result<Self, ClientError> {
        let leaf = |axes| Kernel::Moments {
            axes: Some(axes),
            keep: true,
        };
        let moments = self.tree("moments", axes, leaf, &Kernel::MergeMoments)?;
        let mut building = Building::new("finish");
        for index in indices(&grid(&moments.chunks)) {
            building.chunk(&index, last.clone(), vec![moments.key(&index).clone()]);
        }
        Ok(building.array(moments.chunks.clone(), &[&moments]))
    }

    /// Reduces each chunk by `leaf`, then few at a time by `inner`. Reduced axes keep length 1.
    fn tree(
        &self,
        name: &str,
        axes: Option<&[usize]>,
        leaf: impl Fn(Vec<usize>) -> Kernel,
        inner: &Kernel,
    ) -> Result<Self, ClientError> {
        let all: Vec<usize> = (0..self.chunks.len()).collect();
        let axes = axes.unwrap_or(&all);
        if let Some(axis) = axes.iter().find(|axis| **axis >= self.chunks.len()) {
            let text = format!("axis {axis} of an array of {} axes", self.chunks.len());
            return Err(ClientError::Array(text));
        }
        let mut chunks = self.chunks.clone();
        for axis in axes {
            chunks[*axis] = vec![1; chunks[*axis].len()];
        }
        let mut building = Building::new(name);
        for index in indices(&grid(&chunks)) {
            building.chunk(&index, leaf(axes.to_vec()), vec![self.key(&index).clone()]);
        }
        let mut array = building.array(chunks, &[self]);
        while axes.iter().any(|axis| array.chunks[*axis].len() > 1) {
            array = array.reduced_once(name, axes, inner);
        }
        Ok(array)
    }

    /// One level of a tree: neighbours along the axes become one, about [`SPLIT_EVERY`] at a time.
    fn reduced_once(&self, name: &str, axes: &[usize], inner: &Kernel) -> Self {
        let per_axis = (SPLIT_EVERY as f64)
            .powf(1.0 / axes.len() as f64)
            .ceil()
            .max(2.0) as usize;
        let mut chunks = self.chunks.clone();
        for axis in axes {
            chunks[*axis] = vec![1; chunks[*axis].len().div_ceil(per_axis)];
        }
        let mut building = Building::new(name);
        for index in indices(&grid(&chunks)) {
            let range = |axis: usize| {
                if axes.contains(&axis) {
                    let start = index[axis] * per_axis;
                    start..(start + per_axis).min(self.chunks[axis].len())
                } else {
                    index[axis]..index[axis] + 1
                }
            };
            let ranges: Vec<_> = (0..index.len()).map(range).collect();
            let lengths: Vec<usize> = ranges.iter().map(ExactSizeIterator::len).collect();
            let inputs = indices(&lengths).into_iter().map(|offset| {
                let at: Vec<usize> = ranges
                    .iter()
                    .zip(&offset)
                    .map(|(r, o)| r.start + o)
                    .collect();
                self.key(&at).clone()
            });
            building.chunk(&index, inner.clone(), inputs.collect());
        }
        building.array(chunks, &[self])
    }

    /// The whole array from its chunks in C order.
    ///
    /// # Errors
    /// If they do not go together.
    pub fn assemble(&self, chunks: Vec<Chunk>) -> Result<Chunk, ClientError> {
        if chunks.len() != self.keys.len() {
            let text = format!("{} chunks of {}", chunks.len(), self.keys.len());
            return Err(ClientError::Array(text));
        }
        let mut parts = chunks;
        // Axis by axis from the last: neighbours in C order become one.
        for axis in (0..self.chunks.len()).rev() {
            let together = self.chunks[axis].len();
            if together == 0 {
                let shape = self.shape();
                let empty = Chunk::of_bytes(
                    DType::F64,
                    shape.clone(),
                    vec![0; shape.len()],
                    Bytes::new(),
                );
                return Ok(empty?);
            }
            let join = |parts: &[Chunk]| Kernel::Concatenate(axis).run(parts, u64::MAX);
            parts = parts.chunks(together).map(join).collect::<Result<_, _>>()?;
        }
        parts
            .pop()
            .ok_or_else(|| ClientError::Array("an array without chunks".to_owned()))
    }
}

/// Visits a grid in halves of the longer side, of these the halves, and so on.
fn halves(rows: Range<usize>, columns: Range<usize>, visit: &mut impl FnMut(usize, usize)) {
    match (rows.len(), columns.len()) {
        (0, _) | (_, 0) => {}
        (1, 1) => visit(rows.start, columns.start),
        (height, width) if height >= width => {
            let middle = rows.start + height.div_ceil(2);
            halves(rows.start..middle, columns.clone(), visit);
            halves(middle..rows.end, columns, visit);
        }
        (_, width) => {
            let middle = columns.start + width.div_ceil(2);
            halves(rows.clone(), columns.start..middle, visit);
            halves(rows, middle..columns.end, visit);
        }
    }
}

fn grid(chunks: &[Vec<usize>]) -> Vec<usize> {
    chunks.iter().map(Vec::len).collect()
}

fn shape_at(chunks: &[Vec<usize>], index: &[usize]) -> Vec<usize> {
    chunks
        .iter()
        .zip(index)
        .map(|(axis, at)| axis[*at])
        .collect()
}

/// All indices of a grid in C order.
fn indices(grid: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for length in grid {
        all = all
            .into_iter()
            .flat_map(|index: Vec<usize>| {
                (0..*length).map(move |at| {
                    let mut index = index.clone();
                    index.push(at);
                    index
                })
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Computes a graph right here.
    fn run(array: &Array) -> Chunk {
        let graph = array.graph();
        let tasks: HashMap<&Key, &Task> =
            graph.tasks.iter().map(|task| (&task.key, task)).collect();
        let mut done: HashMap<Key, Chunk> = HashMap::new();
        fn value(key: &Key, tasks: &HashMap<&Key, &Task>, done: &mut HashMap<Key, Chunk>) -> Chunk {
            if let Some(chunk) = done.get(key) {
                return chunk.clone();
            }
            let task = tasks[key];
            let inputs: Vec<Chunk> = task
                .inputs
                .iter()
                .map(|key| value(key, tasks, done))
                .collect();
            let chunk = task.kernel.run(&inputs, u64::MAX).unwrap();
            done.insert(key.clone(), chunk.clone());
            chunk
        }
        let chunks = array
            .keys()
            .iter()
            .map(|key| value(key, &tasks, &mut done))
            .collect();
        array.assemble(chunks).unwrap()
    }

    fn close(a: &Chunk, b: &Chunk) {
        assert_eq!(a.shape(), b.shape());
        for (a, b) in a
            .view::<f64>()
            .unwrap()
            .iter()
            .zip(b.view::<f64>().unwrap().iter())
        {
            assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} {b}");
        }
    }

    #[test]
    fn a_product_in_chunks_is_the_product_of_the_whole() {
        let x = Array::uniform(1, &[50, 30], &[16, 7]).unwrap();
        let whole = run(&x);
        let product = run(&x.matmul(&x.transpose()).unwrap());
        let transposed = Kernel::Transpose(Vec::new())
            .run(std::slice::from_ref(&whole), u64::MAX)
            .unwrap();
        close(
            &product,
            &Kernel::Matmul.run(&[whole, transposed], u64::MAX).unwrap(),
        );
    }

    #[test]
    fn trees_give_what_one_reduction_gives() {
        let x = Array::uniform(2, &[41, 23], &[5, 6]).unwrap();
        let whole = run(&x);
        for axes in [None, Some(vec![0]), Some(vec![1])] {
            let named = axes.as_deref();
            let reduce = |op| {
                let kernel = Kernel::Reduce {
                    op,
                    axes: axes.clone(),
                    keep: true,
                };
                kernel.run(std::slice::from_ref(&whole), u64::MAX).unwrap()
            };
            close(&run(&x.sum(named).unwrap()), &reduce(Reduction::Sum));
            close(&run(&x.max(named).unwrap()), &reduce(Reduction::Max));
            close(&run(&x.mean(named).unwrap()), &reduce(Reduction::Mean));
            let moments = Kernel::Moments {
                axes: axes.clone(),
                keep: true,
            };
            let moments = moments.run(std::slice::from_ref(&whole), u64::MAX).unwrap();
            let var = Kernel::Var { ddof: 1 }.run(&[moments], u64::MAX).unwrap();
            close(&run(&x.var(named, 1).unwrap()), &var);
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let x = Array::uniform(1, &[10, 10], &[4, 4]).unwrap();
        let y = Array::uniform(1, &[10, 10], &[5, 5]).unwrap();
        assert!(x.matmul(&y).is_err());
        assert!(x.binary(Binary::Add, &y).is_err());
        assert!(x.sum(Some(&[2])).is_err());
        assert!(Array::uniform(1, &[10], &[0]).is_err());
    }
}
