//! Embeddings of an arrow array as rows of `f32`, where they lie if they lie well.

use std::borrow::Cow;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};

use crate::{Error, Result};

/// The rows of an array that are not null.
#[derive(Debug)]
pub(crate) struct Embeddings<'a> {
    /// `(rows that are not null, width)`, row-major; borrowed from the array where it holds `f32` without gaps.
    pub(crate) values: Cow<'a, [f32]>,
    /// Which rows of the array these are, unless they are all.
    pub(crate) valid: Option<NullBuffer>,
}

/// Values of a list array and where each row's begin.
struct Lists<'a> {
    /// One more than there are rows.
    ends: Vec<usize>,
    items: &'a ArrayRef,
}

/// Whether a type is a list of floats, which [`Embeddings::read`] takes.
pub(crate) fn is_embedding(data: &DataType) -> bool {
    element(data).is_some_and(|item| matches!(item, DataType::Float32 | DataType::Float64))
}

/// The type of a list's elements.
pub(crate) fn element(data: &DataType) -> Option<&DataType> {
    match data {
        DataType::FixedSizeList(field, _) | DataType::List(field) | DataType::LargeList(field) => {
            Some(field.data_type())
        }
        _ => None,
    }
}

/// Values of a list array and where each row's begin; `None` for any other array.
fn lists(array: &dyn Array) -> Option<Lists<'_>> {
    Some(match array.data_type() {
        DataType::FixedSizeList(_, width) => {
            let list = array.as_fixed_size_list();
            let (first, width) = (list.value_offset(0) as usize, *width as usize);
            Lists { ends: (0..=list.len()).map(|row| first + row * width).collect(), items: list.values() }
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            Lists { ends: list.value_offsets().iter().map(|&end| end as usize).collect(), items: list.values() }
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            Lists { ends: list.value_offsets().iter().map(|&end| end as usize).collect(), items: list.values() }
        }
        _ => return None,
    })
}

impl<'a> Embeddings<'a> {
    /// Reads an array of lists of `f32`, or of `f64` that are rounded.
    ///
    /// # Errors
    /// [`Error::ArgumentType`] for another array; [`Error::EmbeddingWidth`], [`Error::NullValue`] and [`Error::NotFinite`]
    /// name the first row that cannot be encoded. What lies below a null row is not looked at.
    pub(crate) fn read(array: &'a dyn Array, width: usize) -> Result<Self> {
        let wrong = || Error::ArgumentType {
            function: "semantic_id",
            argument: "embedding",
            got: array.data_type().clone(),
            expected: "a list of 32- or 64-bit floats",
        };
        if !is_embedding(array.data_type()) {
            return Err(wrong());
        }
        let Lists { ends, items } = lists(array).ok_or_else(wrong)?;
        let valid = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let taken = |row: usize| valid.as_ref().is_none_or(|valid| valid.is_valid(row));
        for (row, ends) in ends.windows(2).enumerate().filter(|(row, _)| taken(*row)) {
            let got = ends[1] - ends[0];
            if got != width {
                return Err(Error::EmbeddingWidth { row, got, expected: width });
            }
            if items.null_count() > 0
                && let Some(column) = (0..width).find(|column| items.is_null(ends[0] + column))
            {
                return Err(Error::NullValue { row, column });
            }
        }
        let (first, last) = (ends.first().copied().unwrap_or(0), ends.last().copied().unwrap_or(0));
        let values = match items.data_type() {
            DataType::Float32 => {
                let values: &[f32] = items.as_primitive::<Float32Type>().values();
                match &valid {
                    None => Cow::Borrowed(&values[first..last]),
                    Some(_) => Cow::Owned(gather(&ends, taken, |from, to| values[from..to].iter().copied())),
                }
            }
            _ => {
                let values: &[f64] = items.as_primitive::<Float64Type>().values();
                Cow::Owned(gather(&ends, taken, |from, to| values[from..to].iter().map(|&value| value as f32)))
            }
        };
        let rows = Self { values, valid };
        rows.check_finite(width)?;
        Ok(rows)
    }

    fn check_finite(&self, width: usize) -> Result<()> {
        // Whether all are finite is asked of whole rows without a branch; the place is looked up only when one is not.
        let finite = |row: &[f32]| row.iter().fold(true, |finite, value| finite & value.is_finite());
        let mut rows = self.values.chunks_exact(width.max(1)).enumerate();
        let Some((at, values)) = rows.find(|(_, row)| !finite(row)) else { return Ok(()) };
        let row = match &self.valid {
            Some(valid) => valid.valid_indices().nth(at).unwrap_or(at),
            None => at,
        };
        let column = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
        Err(Error::NotFinite { row, column })
    }
}

/// The values of the rows that are taken, one after another.
fn gather<I: Iterator<Item = f32>>(
    ends: &[usize],
    taken: impl Fn(usize) -> bool,
    values: impl Fn(usize, usize) -> I,
) -> Vec<f32> {
    let rows = ends.windows(2).enumerate().filter(|(row, _)| taken(*row));
    rows.flat_map(|(_, ends)| values(ends[0], ends[1])).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{FixedSizeListArray, Float32Array, LargeListArray, ListArray};
    use datafusion::arrow::datatypes::Field;

    use super::*;

    fn fixed(values: Vec<Option<f32>>, width: i32, nulls: Option<Vec<bool>>) -> FixedSizeListArray {
        let field = Arc::new(Field::new_list_field(DataType::Float32, true));
        FixedSizeListArray::try_new(field, width, Arc::new(Float32Array::from(values)), nulls.map(NullBuffer::from))
            .unwrap()
    }

    #[test]
    fn rows_without_gaps_are_not_copied() {
        let array = fixed((0..12).map(|value| Some(value as f32)).collect(), 3, None);
        let all = Embeddings::read(&array, 3).unwrap();
        assert!(matches!(all.values, Cow::Borrowed(_)));
        assert_eq!(all.values.len(), 12);
        let part = array.slice(1, 2);
        let part = Embeddings::read(&part, 3).unwrap();
        assert!(matches!(part.values, Cow::Borrowed(_)));
        assert_eq!(part.values.as_ref(), [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn every_kind_of_list_holds_the_same_rows() {
        let rows = [Some(vec![Some(1.0), Some(2.0)]), None, Some(vec![Some(3.0), Some(4.0)])];
        let wide = rows
            .clone()
            .map(|row| row.map(|row| row.into_iter().map(|value| value.map(f64::from)).collect::<Vec<_>>()));
        let arrays: [ArrayRef; 4] = [
            Arc::new(fixed(
                vec![Some(1.0), Some(2.0), Some(f32::NAN), None, Some(3.0), Some(4.0)],
                2,
                Some(vec![true, false, true]),
            )),
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows.clone())),
            Arc::new(LargeListArray::from_iter_primitive::<Float32Type, _, _>(rows)),
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(wide)),
        ];
        for array in arrays {
            let read = Embeddings::read(&array, 2).unwrap();
            assert_eq!(read.values.as_ref(), [1.0, 2.0, 3.0, 4.0], "{}", array.data_type());
            assert_eq!(read.valid.unwrap().valid_indices().collect::<Vec<_>>(), [0, 2]);
        }
    }

    #[test]
    fn what_cannot_be_encoded_is_named() {
        let short = ListArray::from_iter_primitive::<Float32Type, _, _>([
            Some(vec![Some(1.0), Some(2.0)]),
            Some(vec![Some(1.0)]),
        ]);
        assert!(matches!(Embeddings::read(&short, 2), Err(Error::EmbeddingWidth { row: 1, got: 1, expected: 2 })));
        let gap = fixed(vec![Some(1.0), Some(2.0), Some(3.0), None], 2, None);
        assert!(matches!(Embeddings::read(&gap, 2), Err(Error::NullValue { row: 1, column: 1 })));
        // The row is that of the array, although a null row comes before it.
        let values = vec![None, None, Some(1.0), Some(2.0), Some(f32::INFINITY), Some(1.0)];
        let infinite = fixed(values, 2, Some(vec![false, true, true]));
        assert!(matches!(Embeddings::read(&infinite, 2), Err(Error::NotFinite { row: 2, column: 0 })));
        let text = datafusion::arrow::array::StringArray::from(vec!["1"]);
        assert!(matches!(Embeddings::read(&text, 2), Err(Error::ArgumentType { .. })));
        assert_eq!(Embeddings::read(&fixed(Vec::new(), 2, None), 2).unwrap().values.len(), 0);
    }
}
