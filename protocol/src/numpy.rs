//! Arrays as Dask's `dask` family serialises NumPy's: what native tasks, Python tasks and clients exchange.

use bytes::{Bytes, BytesMut};

use crate::msgpack::{Reader, Writer};
use crate::wire::Decode as _;
use crate::{DecodeError, Payload};

/// `pickle.dumps(numpy.ndarray)`: the class told to clients, and where the family finds its deserialiser.
pub const PICKLED_NDARRAY: &[u8] =
    b"\x80\x05\x95\x15\x00\x00\x00\x00\x00\x00\x00\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94.";

/// Why a value is no array of numbers.
#[derive(Debug, thiserror::Error)]
pub enum NumpyError {
    /// It is something else.
    #[error("not a NumPy array of numbers but {0}")]
    Other(String),
    /// It cannot be read.
    #[error("its header is damaged: {0}")]
    Header(#[from] DecodeError),
}

/// An array, its elements unopened.
#[derive(Debug, Clone, PartialEq)]
pub struct NumpyArray {
    /// NumPy's `dtype.str`, such as `<f8`.
    pub dtype: String,
    /// Lengths of the axes.
    pub shape: Vec<u64>,
    /// Distance of neighbours along each axis; 0 where elements repeat. Unit: bytes.
    pub strides: Vec<u64>,
    /// The memory. Whether all elements lie within is for the reader to check.
    pub data: Bytes,
}

/// The parts of a header that matter here.
#[derive(Default)]
struct Header {
    serializer: String,
    kind: String,
    dtype: String,
    shape: Vec<u64>,
    strides: Vec<i64>,
    broadcast: Option<Vec<u64>>,
    compressed: bool,
}

impl Header {
    fn read(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut header = Self::default();
        let mut r = Reader::new(bytes, &[]);
        for _ in 0..r.map()? {
            match r.str_or_skip()? {
                Some("serializer") => header.serializer = r.str()?.to_owned(),
                Some("type") => header.kind = r.str()?.to_owned(),
                Some("sub-header") => header.read_array(&mut r)?,
                Some("compression") => {
                    for _ in 0..r.sequence()?.0 {
                        if !r.take_nil()? {
                            header.compressed = true;
                            r.skip()?;
                        }
                    }
                }
                _ => r.skip()?,
            }
        }
        Ok(header)
    }

    fn read_array(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        for _ in 0..r.map()? {
            match r.str_or_skip()? {
                Some("dtype") => {
                    // (0, text), or (1, pickle) for what no kernel takes.
                    let (length, _) = r.sequence()?;
                    for _ in 0..length {
                        if r.is_str()? {
                            self.dtype = r.str()?.to_owned();
                        } else {
                            r.skip()?;
                        }
                    }
                }
                Some("shape") => self.shape = Vec::decode(r)?,
                Some("strides") => self.strides = Vec::decode(r)?,
                Some("broadcast_to") => self.broadcast = Some(Vec::decode(r)?),
                _ => r.skip()?,
            }
        }
        Ok(())
    }
}

impl NumpyArray {
    /// The array in a payload, sharing its memory where that is one frame.
    ///
    /// # Errors
    /// If it is of another class or family, compressed, has negative strides or contradicts itself.
    pub fn of_payload(payload: &Payload) -> Result<Self, NumpyError> {
        let header = Header::read(&payload.header)?;
        if header.serializer != "dask" || header.kind != "numpy.ndarray" {
            let what = if header.kind.is_empty() {
                format!("a value of serialiser {:?}", header.serializer)
            } else {
                format!("a {}", header.kind)
            };
            return Err(NumpyError::Other(what));
        }
        if header.compressed {
            return Err(NumpyError::Other("a compressed one".to_owned()));
        }
        let mut strides = Vec::with_capacity(header.strides.len());
        for stride in &header.strides {
            let stride = u64::try_from(*stride);
            strides.push(stride.map_err(|_| NumpyError::Other("a reversed one".to_owned()))?);
        }
        let mut shape = header.shape;
        if let Some(wide) = header.broadcast {
            // The memory is of the array before it was broadcast; axes of one element are repeated.
            if wide.len() != shape.len() || strides.len() != shape.len() {
                return Err(NumpyError::Other(
                    "a broadcast one of another rank".to_owned(),
                ));
            }
            for ((stride, narrow), wide) in strides.iter_mut().zip(&shape).zip(&wide) {
                if narrow != wide {
                    *stride = 0;
                }
            }
            shape = wide;
        }
        let data = match payload.frames.as_slice() {
            [frame] => frame.clone(),
            frames => {
                let mut data = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
                frames
                    .iter()
                    .for_each(|frame| data.extend_from_slice(frame));
                data.freeze()
            }
        };
        Ok(Self {
            dtype: header.dtype,
            shape,
            strides,
            data,
        })
    }

    /// A payload that NumPy reads. The memory must hold the elements and nothing else, in any order of axes.
    pub fn to_payload(&self) -> Payload {
        let numbers = |w: &mut Writer, values: &[u64]| {
            w.array(values.len());
            values.iter().for_each(|value| w.uint(*value));
        };
        let mut w = Writer::new();
        w.map(8);
        w.str("sub-header");
        w.map(4);
        w.str("dtype");
        w.array(2);
        w.uint(0);
        w.str(&self.dtype);
        w.str("shape");
        numbers(&mut w, &self.shape);
        w.str("strides");
        numbers(&mut w, &self.strides);
        w.str("writeable");
        w.array(1);
        w.bool(true);
        w.str("type");
        w.str("numpy.ndarray");
        w.str("type-serialized");
        w.bin(PICKLED_NDARRAY);
        w.str("serializer");
        w.str("dask");
        w.str("split-num-sub-frames");
        numbers(&mut w, &[1]);
        w.str("split-offsets");
        numbers(&mut w, &[0]);
        w.str("compression");
        w.array(1);
        w.nil();
        w.str("num-sub-frames");
        w.uint(1);
        Payload::serialized(w.into_document(), vec![self.data.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back_out_of_their_payload() {
        for (shape, strides) in [
            (vec![], vec![]),
            (vec![3], vec![8]),
            (vec![2, 3], vec![8, 16]),
        ] {
            let array = NumpyArray {
                dtype: "<f8".to_owned(),
                data: Bytes::from(vec![1; 8 * shape.iter().product::<u64>() as usize]),
                shape,
                strides,
            };
            assert_eq!(NumpyArray::of_payload(&array.to_payload()).unwrap(), array);
        }
    }

    #[test]
    fn something_else_is_refused_with_what_it_is() {
        let error = NumpyArray::of_payload(&Payload::of_bytes(Bytes::from_static(b"x")));
        assert!(error.unwrap_err().to_string().contains("a bytes"));
        let pickled = Payload::pickled(b"\x80\x04N.", Vec::new()).unwrap();
        assert!(NumpyArray::of_payload(&pickled).is_err());
    }
}
