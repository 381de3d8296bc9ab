//! The binary format of `COPY`: a header, tuples of fields with their lengths, a trailer.

use bytes::{Buf as _, BufMut as _, BytesMut};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of an extension that no version has.
const HEADER: usize = SIGNATURE.len() + 8;

/// What is not in the format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Cuts a stream into tuples, wherever the chunks begin and end.
#[derive(Default)]
pub(super) struct Reader {
    rest: BytesMut,
    begun: bool,
    ended: bool,
}

impl Reader {
    /// Takes the next chunk, and passes each tuple that is complete to `take`.
    pub fn feed<E: From<Malformed>>(
        &mut self,
        chunk: &[u8],
        mut take: impl FnMut(Tuple<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.rest.is_empty() {
            // As it nearly always is: a server sends each tuple as one chunk.
            let used = self.cut(chunk, &mut take)?;
            self.rest.extend_from_slice(&chunk[used..]);
        } else {
            self.rest.extend_from_slice(chunk);
            let whole = std::mem::take(&mut self.rest);
            let used = self.cut(&whole, &mut take)?;
            self.rest = whole;
            self.rest.advance(used);
        }
        Ok(())
    }

    /// Whether the trailer has come and nothing after it.
    pub fn is_complete(&self) -> bool {
        self.ended && self.rest.is_empty()
    }

    fn cut<E: From<Malformed>>(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(Tuple<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        if !self.begun {
            if bytes.len() < HEADER {
                return Ok(0);
            }
            if &bytes[..SIGNATURE.len()] != SIGNATURE {
                return Err(Malformed.into());
            }
            self.begun = true;
            at = HEADER;
        }
        while let Some((fields, end)) = tuple_end(&bytes[at..])? {
            if self.ended {
                return Err(Malformed.into());
            }
            match fields {
                Some(fields) => take(Tuple { fields, bytes: &bytes[at + 2..at + end] })?,
                None => self.ended = true,
            }
            at += end;
        }
        Ok(at)
    }
}

/// How many fields the first tuple has (`None`: it is the trailer), and where it ends; nothing,
/// if it is not complete.
fn tuple_end(bytes: &[u8]) -> Result<Option<(Option<u16>, usize)>, Malformed> {
    let Some(count) = bytes.first_chunk::<2>() else { return Ok(None) };
    let count = i16::from_be_bytes(*count);
    if count == -1 {
        return Ok(Some((None, 2)));
    }
    let count = u16::try_from(count).map_err(|_| Malformed)?;
    let mut at = 2;
    for _ in 0..count {
        let Some(length) = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) else {
            return Ok(None);
        };
        at += 4;
        match i32::from_be_bytes(*length) {
            -1 => {}
            length => at += usize::try_from(length).map_err(|_| Malformed)?,
        }
    }
    Ok((at <= bytes.len()).then_some((Some(count), at)))
}

/// The fields of one tuple.
#[derive(Clone, Copy)]
pub(super) struct Tuple<'a> {
    fields: u16,
    bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Each field's value; `None` is NULL.
    pub fn fields(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut rest = self.bytes;
        (0..self.fields).map(move |_| {
            let length = rest.get_i32();
            // Checked when the tuple was cut.
            usize::try_from(length).ok().map(|length| {
                let (field, after) = rest.split_at(length);
                rest = after;
                field
            })
        })
    }
}

/// Begins a stream.
pub(super) fn begin(out: &mut BytesMut) {
    out.put_slice(SIGNATURE);
    out.put_u64(0);
}

/// Ends a stream.
pub(super) fn end(out: &mut BytesMut) {
    out.put_i16(-1);
}

/// Writes a field.
pub(super) fn put(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).expect("a value has less than 2 GB"));
            out.put_slice(value);
        }
        None => out.put_i32(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> BytesMut {
        let mut out = BytesMut::new();
        begin(&mut out);
        for row in [[Some(&b"one"[..]), None], [Some(b""), Some(b"two")]] {
            out.put_i16(2);
            row.into_iter().for_each(|value| put(&mut out, value));
        }
        end(&mut out);
        out
    }

    #[test]
    fn tuples_are_the_same_wherever_chunks_end() {
        let whole = stream();
        for size in 1..=whole.len() {
            let mut reader = Reader::default();
            let mut rows: Vec<Vec<Option<Vec<u8>>>> = Vec::new();
            for chunk in whole.chunks(size) {
                reader
                    .feed::<Malformed>(chunk, |tuple| {
                        rows.push(tuple.fields().map(|field| field.map(<[u8]>::to_vec)).collect());
                        Ok(())
                    })
                    .unwrap();
            }
            assert!(reader.is_complete());
            let expected = vec![
                vec![Some(b"one".to_vec()), None],
                vec![Some(Vec::new()), Some(b"two".to_vec())],
            ];
            assert_eq!(rows, expected, "chunks of {size}");
        }
    }

    #[test]
    fn what_is_cut_off_is_not_complete() {
        let whole = stream();
        let mut reader = Reader::default();
        reader.feed::<Malformed>(&whole[..whole.len() - 1], |_| Ok(())).unwrap();
        assert!(!reader.is_complete());
        let wrong = Reader::default().feed::<Malformed>(&[0; HEADER], |_| Ok(()));
        assert_eq!(wrong, Err(Malformed));
    }
}
