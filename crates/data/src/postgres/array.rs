//! Arrays in the binary format: dimensions, then elements with their lengths.

use bytes::{Buf as _, BufMut as _};

use super::keys::element_key;
use crate::key::Key;
use crate::mask::Unmaskable;
use crate::schema::ValueKind;

/// Dimensions, whether there are nulls, the element's type.
const HEADER: usize = 12;
/// Of each dimension: how many elements, and the number of the first.
const DIMENSION: usize = 8;

/// Writes an array without the elements that `comes` refuses. Nulls stay: they refer to nothing.
///
/// # Errors
/// If it has several dimensions, from which single elements cannot go, or another format.
pub(super) fn prune(
    kind: &ValueKind,
    array: &[u8],
    out: &mut Vec<u8>,
    mut comes: impl FnMut(&Key) -> bool,
) -> Result<(), Unmaskable> {
    let broken = || Unmaskable::new("an array is not in its format");
    let header = array.get(..HEADER).ok_or_else(broken)?;
    match (&header[..4]).get_i32() {
        0 => {
            out.extend_from_slice(array);
            return Ok(());
        }
        1 => {}
        _ => return Err(Unmaskable::new("an array of several dimensions cannot be pruned")),
    }
    let dimension = array.get(HEADER..HEADER + DIMENSION).ok_or_else(broken)?;
    let (count, first) = ((&dimension[..4]).get_i32(), (&dimension[4..]).get_i32());
    let mut rest = &array[HEADER + DIMENSION..];
    let mut kept = Vec::with_capacity(rest.len());
    let mut left = 0;
    for _ in 0..count {
        let whole = rest;
        let length = rest.try_get_i32().map_err(|_| broken())?;
        let is_null = length < 0;
        let bytes = if is_null { 0 } else { length as usize };
        let element = rest.get(..bytes).ok_or_else(broken)?;
        rest.advance(bytes);
        if is_null || comes(&element_key(kind, element).map_err(|_| broken())?) {
            kept.extend_from_slice(&whole[..4 + bytes]);
            left += 1;
        }
    }
    // An array without elements has no dimension.
    out.put_i32(if left == 0 { 0 } else { 1 });
    out.extend_from_slice(&header[4..]);
    if left > 0 {
        out.put_i32(left);
        out.put_i32(first);
        out.extend_from_slice(&kept);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{1,NULL,2,3}` of `int4`, as the server writes it.
    fn numbers(elements: &[Option<i32>]) -> Vec<u8> {
        let mut array = Vec::new();
        array.put_i32(i32::from(!elements.is_empty()));
        array.put_i32(i32::from(elements.contains(&None)));
        array.put_i32(23);
        if !elements.is_empty() {
            array.put_i32(elements.len() as i32);
            array.put_i32(1);
        }
        for element in elements {
            match element {
                None => array.put_i32(-1),
                Some(number) => {
                    array.put_i32(4);
                    array.put_i32(*number);
                }
            }
        }
        array
    }

    fn odd(array: &[u8]) -> Result<Vec<u8>, Unmaskable> {
        let mut out = Vec::new();
        let is_odd = |key: &Key| matches!(key, Key::Int(number) if number % 2 == 1);
        prune(&ValueKind::Int(4), array, &mut out, is_odd).map(|()| out)
    }

    #[test]
    fn elements_without_a_row_go_and_the_others_stay_in_order() {
        let all = numbers(&[Some(3), Some(2), None, Some(-5), Some(7)]);
        assert_eq!(odd(&all), Ok(numbers(&[Some(3), None, Some(7)])));
        assert_eq!(odd(&numbers(&[])), Ok(numbers(&[])));
        let none = numbers(&[Some(2), Some(4)]);
        assert_eq!(odd(&none), Ok(numbers(&[])));
    }

    #[test]
    fn what_is_cut_off_or_of_several_dimensions_is_refused() {
        let all = numbers(&[Some(3), Some(2)]);
        for end in [0, 5, 13, 21, 25, all.len() - 1] {
            assert!(odd(&all[..end]).is_err(), "{end}");
        }
        let mut square = all.clone();
        square[3] = 2;
        assert!(odd(&square).is_err());
    }
}
