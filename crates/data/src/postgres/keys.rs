//! Rows of keys, as statements for the closure return them.

use super::copy::{Malformed, Tuple};
use crate::closure::Row;
use crate::key::Key;
use crate::rules::{EdgeId, KeyColumns, Rules};
use crate::schema::{KeyKind, TableId, ValueKind};

/// Which fields make which keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    keys: Vec<Vec<KeyKind>>,
    refers: Vec<Vec<KeyKind>>,
    pinned: bool,
}

fn kinds(columns: &KeyColumns) -> Vec<KeyKind> {
    columns.parts.iter().map(|part| part.kind).collect()
}

impl Layout {
    /// Keys, references, whether it is pinned.
    pub fn of_rows(rules: &Rules, table: TableId) -> Self {
        let table = rules.table(table);
        let refers = table.out.iter().map(|&edge| kinds(&rules.edge(edge).refers));
        Self {
            keys: table.keys.iter().map(kinds).collect(),
            refers: refers.collect(),
            pinned: true,
        }
    }

    /// References over these edges.
    pub fn of_references(rules: &Rules, edges: &[EdgeId]) -> Self {
        let refers = edges.iter().map(|&edge| kinds(&rules.edge(edge).refers));
        Self { refers: refers.collect(), ..Self::default() }
    }

    /// References over these edges, and the identity if asked.
    pub fn of_tail(rules: &Rules, table: TableId, edges: &[EdgeId], identity: bool) -> Self {
        let keys = rules.table(table).keys.iter().take(usize::from(identity)).map(kinds);
        Self { keys: keys.collect(), ..Self::of_references(rules, edges) }
    }

    /// Reads a row whose keys come first.
    pub fn read(&self, tuple: Tuple<'_>) -> Result<Row, Malformed> {
        let mut fields = tuple.fields();
        let fields = &mut fields;
        let keys = self.keys.iter().map(|k| key(k, fields)).collect::<Result<_, _>>()?;
        let refers = self.refers.iter().map(|k| key(k, fields)).collect::<Result<_, _>>()?;
        let pinned = self.pinned && fields.next().flatten() == Some(&[1]);
        Ok(Row { keys, refers, pinned })
    }

    /// Reads references, then the identity, from what is left of a row.
    pub fn read_tail<'a>(
        &self,
        fields: &mut impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Row, Malformed> {
        let refers = self.refers.iter().map(|k| key(k, fields)).collect::<Result<_, _>>()?;
        let keys = self.keys.iter().map(|k| key(k, fields)).collect::<Result<_, _>>()?;
        Ok(Row { keys, refers, pinned: false })
    }
}

/// One key of one or more fields; none, if any of them is NULL.
fn key<'a>(
    kinds: &[KeyKind],
    fields: &mut impl Iterator<Item = Option<&'a [u8]>>,
) -> Result<Option<Key>, Malformed> {
    if let [kind] = kinds {
        let field = fields.next().ok_or(Malformed)?;
        return field.map(|field| part(*kind, field)).transpose();
    }
    let mut parts = Vec::with_capacity(kinds.len());
    let mut absent = false;
    for kind in kinds {
        match fields.next().ok_or(Malformed)? {
            Some(field) => parts.push(part(*kind, field)?),
            None => absent = true,
        }
    }
    Ok((!absent).then(|| Key::Several(parts.into())))
}

fn part(kind: KeyKind, field: &[u8]) -> Result<Key, Malformed> {
    match kind {
        KeyKind::Int => {
            let bytes: [u8; 8] = field.try_into().map_err(|_| Malformed)?;
            Ok(Key::Int(i64::from_be_bytes(bytes)))
        }
        KeyKind::Uuid => Ok(Key::Uuid(field.try_into().map_err(|_| Malformed)?)),
        KeyKind::FoldedText | KeyKind::Numeric | KeyKind::Text => {
            let text = std::str::from_utf8(field).map_err(|_| Malformed)?;
            Ok(Key::Text(text.into()))
        }
    }
}

/// The key that an element of an array refers to.
pub(super) fn element_key(kind: &ValueKind, element: &[u8]) -> Result<Key, Malformed> {
    let number = match (kind, element.len()) {
        (ValueKind::Int(2), 2) => i64::from(i16::from_be_bytes([element[0], element[1]])),
        (ValueKind::Int(4), _) => {
            i64::from(i32::from_be_bytes(element.try_into().map_err(|_| Malformed)?))
        }
        (ValueKind::Int(8), _) => i64::from_be_bytes(element.try_into().map_err(|_| Malformed)?),
        (ValueKind::Int(_), _) => return Err(Malformed),
        (kind, _) => return part(kind.key_kind(), element),
    };
    Ok(Key::Int(number))
}
