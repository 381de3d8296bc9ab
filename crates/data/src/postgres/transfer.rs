//! One table's rows, from the source through the masks into the new database.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use tokio_postgres::Client;

use super::array;
use super::copy::{self, Reader, Tuple};
use super::error::{Doing, Error};
use super::keys::Layout;
use super::source::Failed;
use super::statement::{Extract, Filter, Statements, Tail};
use crate::closure::Selection;
use crate::config::{Extra, Policy};
use crate::mask::{Cell, Unmaskable};
use crate::rules::{ArrayEdge, EdgeId};
use crate::schema::{Schema, TableId, quoted};

/// Bytes that go to the target together.
const CHUNK: usize = 256 << 10;

/// The most that is put into one message, of which a server holds the whole.
const LARGEST_PIECE: usize = 16 << 20;

/// What becomes of each column of a table.
#[derive(Clone)]
pub struct RowPlan {
    /// Those that are copied: all but what the database computes.
    pub columns: Vec<usize>,
    /// What becomes of each of them.
    pub cells: Vec<Cell>,
}

/// What came of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Rows that were written.
    pub rows: u64,
    /// Bytes that were written, in the binary format.
    pub bytes: u64,
    /// References that were emptied since their parent is not in.
    pub emptied: u64,
    /// Rows left out because what they refer to does not exist in the source.
    pub dropped: u64,
}

/// A table on its way.
pub(super) struct Transfer {
    table: TableId,
    name: String,
    from: Extract,
    into: String,
    /// Names of the columns that are copied.
    columns: Vec<String>,
    cells: Vec<Cell>,
    tail: Layout,
    checks: Vec<Check>,
    /// Arrays of references, each with its place among the columns that are copied.
    arrays: Vec<(usize, ArrayEdge)>,
    /// Places of what is emptied in extra rows, among the columns that are copied.
    stubbed: Vec<usize>,
    selection: Arc<Selection>,
}

/// A reference whose parent may be missing.
struct Check {
    edge: EdgeId,
    /// Its place among the edges at the row's end.
    tail: usize,
    /// The places of what is emptied, among the columns that are copied; none: the row goes.
    emptied: Vec<usize>,
}

impl Transfer {
    pub fn new(
        statements: &Statements<'_>,
        table: TableId,
        plan: RowPlan,
        selection: &Arc<Selection>,
        extra: Extra,
    ) -> Self {
        let rules = selection.rules();
        let checked = |edge: &&EdgeId| {
            let edge = rules.edge(**edge);
            edge.policy == Policy::Null || !edge.guaranteed
        };
        let checked: Vec<EdgeId> = rules.table(table).out.iter().filter(checked).copied().collect();
        let stubbed = match extra {
            Extra::Stub if selection.extra(table) > 0 => {
                emptied_in_stubs(statements.schema, table, &plan)
            }
            Extra::Stub | Extra::Real => Vec::new(),
        };
        let tail = Tail { keys_of: checked.clone(), identity: !stubbed.is_empty() };
        let from = statements.extract(table, &plan.columns, tail, selection);
        let check = |edge: EdgeId| Check {
            edge,
            tail: from.tail.keys_of.iter().position(|&e| e == edge).expect("it was asked for"),
            emptied: {
                let emptied = rules.edge(edge).emptied.iter();
                emptied.filter_map(|at| plan.columns.iter().position(|c| c == at)).collect()
            },
        };
        let checks = checked.into_iter().map(check).collect();
        let arrays = rules.arrays.iter().filter(|array| array.child == table).filter_map(|array| {
            let place = plan.columns.iter().position(|&column| column == array.column)?;
            Some((place, array.clone()))
        });
        let arrays = arrays.collect();
        let of = statements.schema.table(table);
        let columns: Vec<String> =
            plan.columns.iter().map(|&at| of.columns[at].name.clone()).collect();
        let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
        let into =
            format!("COPY {} ({}) FROM STDIN (FORMAT binary)", of.name.sql(), names.join(", "));
        let tail = Layout::of_tail(rules, table, &from.tail.keys_of, from.tail.identity);
        Self {
            table,
            name: of.name.to_string(),
            into,
            columns,
            cells: plan.cells,
            tail,
            checks,
            arrays,
            stubbed,
            selection: selection.clone(),
            from,
        }
    }

    /// Copies the rows.
    pub async fn run(&self, source: &Client, target: &Client) -> Result<Transferred, Error> {
        let filling = || format!("filling {}", self.name);
        let sink = target.copy_in(self.into.as_str()).await.doing(filling)?;
        let stream = source.copy_out(self.from.sql.as_str()).await;
        let stream = stream.map_err(|error| Failed::Database(error).of(&self.name))?;
        pin_mut!(sink, stream);
        let mut reader = Reader::default();
        let mut row = Rewriter::new(self);
        copy::begin(&mut row.out);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| Failed::Database(error).of(&self.name))?;
            reader.feed(&chunk, |tuple| row.take(tuple)).map_err(|e| e.of(self))?;
            // A row of a gigabyte is one piece here, and would not fit into a message with others.
            while row.out.len() >= CHUNK {
                let piece = row.out.split_to(row.out.len().min(LARGEST_PIECE));
                sink.feed(piece.freeze()).await.doing(filling)?;
            }
        }
        if !reader.is_complete() {
            return Err(Failed::CutOff.of(&self.name));
        }
        copy::end(&mut row.out);
        sink.feed(row.out.split().freeze()).await.doing(filling)?;
        sink.as_mut().finish().await.doing(filling)?;
        Ok(row.done)
    }
}

/// The places of columns that are emptied in extra rows: those that may be empty, and are part of
/// no key and no reference.
fn emptied_in_stubs(schema: &Schema, table: TableId, plan: &RowPlan) -> Vec<usize> {
    let of = schema.table(table);
    let is_key = |at: usize| {
        of.identity.iter().flatten().any(|&key| key == at)
            || schema.foreign_keys.iter().any(|key| {
                key.child == table && key.child_columns.contains(&at)
                    || key.parent == table && key.parent_columns.contains(&at)
            })
    };
    let is_emptied = |at: usize| {
        let column = &of.columns[at];
        column.nullable && !column.checked && !is_key(at)
    };
    let places = plan.columns.iter().enumerate();
    places.filter(|(_, at)| is_emptied(**at)).map(|(place, _)| place).collect()
}

/// Why a row cannot go on.
enum Stopped {
    Read(Failed),
    Column(usize, Unmaskable),
}

impl From<copy::Malformed> for Stopped {
    fn from(malformed: copy::Malformed) -> Self {
        Self::Read(malformed.into())
    }
}

impl Stopped {
    fn of(self, transfer: &Transfer) -> Error {
        match self {
            Self::Read(failed) => failed.of(&transfer.name),
            Self::Column(at, why) => {
                let column = &transfer.columns[at];
                Error::said(format!("masking {}.{column}", transfer.name), why.to_string())
            }
        }
    }
}

/// Writes rows anew.
struct Rewriter<'t> {
    transfer: &'t Transfer,
    out: BytesMut,
    done: Transferred,
    /// Masked values of the row at hand, one after the other.
    scratch: Vec<u8>,
}

/// Where a value of the row at hand is.
#[derive(Clone, Copy)]
enum Value<'a> {
    Null,
    Same(&'a [u8]),
    Masked(usize, usize),
}

impl<'t> Rewriter<'t> {
    fn new(transfer: &'t Transfer) -> Self {
        let out = BytesMut::with_capacity(CHUNK + (64 << 10));
        Self { transfer, out, done: Transferred::default(), scratch: Vec::new() }
    }

    fn take(&mut self, tuple: Tuple<'_>) -> Result<(), Stopped> {
        let transfer = self.transfer;
        let mut fields = tuple.fields();
        self.scratch.clear();
        let mut values = Vec::with_capacity(transfer.cells.len());
        for (at, cell) in transfer.cells.iter().enumerate() {
            let field = fields.next().ok_or(copy::Malformed)?;
            let array = transfer.arrays.iter().find(|(place, _)| *place == at);
            if let (Some((_, array)), Some(field)) = (array, field) {
                values
                    .push(self.prune(array, cell, field).map_err(|why| Stopped::Column(at, why))?);
                continue;
            }
            values.push(self.mask(cell, field).map_err(|why| Stopped::Column(at, why))?);
        }
        let tail = transfer.tail.read_tail(&mut fields)?;
        if let Filter::Unfiltered = transfer.from.filter {
            let taken = match tail.keys.first() {
                Some(identity) => {
                    let identity = identity.as_ref().ok_or(copy::Malformed)?;
                    transfer.selection.has_row(transfer.table, identity)
                }
                None => transfer.selection.takes_leaf(transfer.table, &tail.refers),
            };
            if !taken {
                return Ok(());
            }
        }
        for check in &transfer.checks {
            let Some(parent) = &tail.refers[check.tail] else { continue };
            if transfer.selection.is_in(check.edge, parent) {
                continue;
            }
            if check.emptied.is_empty() {
                self.done.dropped += 1;
                return Ok(());
            }
            self.done.emptied += 1;
            check.emptied.iter().for_each(|&at| values[at] = Value::Null);
        }
        let identity = tail.keys.first().and_then(Option::as_ref);
        let is_extra = |identity| transfer.selection.is_extra(transfer.table, identity);
        if !transfer.stubbed.is_empty() && identity.is_some_and(is_extra) {
            transfer.stubbed.iter().for_each(|&at| values[at] = Value::Null);
        }
        self.derive(&mut values);
        self.write(&values);
        Ok(())
    }

    fn mask<'a>(&mut self, cell: &Cell, field: Option<&'a [u8]>) -> Result<Value<'a>, Unmaskable> {
        let Some(field) = field else { return Ok(Value::Null) };
        match cell {
            Cell::Keep | Cell::Derive { .. } => Ok(Value::Same(field)),
            Cell::Mask(mask) => {
                let start = self.scratch.len();
                match mask.apply(field, &mut self.scratch)? {
                    true => Ok(Value::Masked(start, self.scratch.len())),
                    false => Ok(Value::Null),
                }
            }
        }
    }

    /// An array without the elements whose rows do not come; what is left is masked.
    fn prune<'a>(
        &mut self,
        array: &ArrayEdge,
        cell: &Cell,
        field: &[u8],
    ) -> Result<Value<'a>, Unmaskable> {
        let selection = &self.transfer.selection;
        let mut pruned = Vec::with_capacity(field.len());
        array::prune(&array.element, field, &mut pruned, |key| selection.has_element(array, key))?;
        let start = self.scratch.len();
        match cell {
            Cell::Keep | Cell::Derive { .. } => self.scratch.extend_from_slice(&pruned),
            Cell::Mask(mask) => {
                if !mask.apply(&pruned, &mut self.scratch)? {
                    return Ok(Value::Null);
                }
            }
        }
        Ok(Value::Masked(start, self.scratch.len()))
    }

    fn derive(&mut self, values: &mut [Value<'_>]) {
        for (at, cell) in self.transfer.cells.iter().enumerate() {
            let Cell::Derive { from, how } = cell else { continue };
            // What had no value gets none: the column may be there for some rows only.
            if matches!(values[at], Value::Null) {
                continue;
            }
            let derived = match values[*from] {
                Value::Null => None,
                Value::Same(value) => Some(how.of(value)),
                Value::Masked(start, end) => Some(how.of(&self.scratch[start..end])),
            };
            values[at] = match derived {
                None => Value::Null,
                Some(derived) => {
                    let start = self.scratch.len();
                    self.scratch.extend_from_slice(&derived);
                    Value::Masked(start, self.scratch.len())
                }
            };
        }
    }

    fn write(&mut self, values: &[Value<'_>]) {
        let before = self.out.len();
        self.out.put_i16(i16::try_from(values.len()).expect("a table has at most 1600 columns"));
        for value in values {
            let value = match *value {
                Value::Null => None,
                Value::Same(value) => Some(value),
                Value::Masked(start, end) => Some(&self.scratch[start..end]),
            };
            copy::put(&mut self.out, value);
        }
        self.done.rows += 1;
        self.done.bytes += (self.out.len() - before) as u64;
    }
}
