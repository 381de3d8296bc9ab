//! The schema, as the catalogs have it.

use std::collections::HashMap;

use tokio_postgres::Client;
use tokio_postgres::types::Oid;

use super::error::{Doing, Error};
use crate::schema::{Column, ForeignKey, Schema, Table, TableId, TableName, ValueKind};

/// Tables that hold rows of ours: no partitions (their roots stand for them), no extension's own,
/// nothing of the system.
const TABLES: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p',
       coalesce(sum(greatest(p.reltuples, 0)), 0)::float8,
       coalesce(sum(pg_table_size(p.oid)), 0)::int8,
       row_security_active(c.oid),
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT l.oid, l.reltuples FROM pg_class l
    WHERE l.oid = c.oid OR c.relkind = 'p' AND l.oid IN (
        SELECT t.relid FROM pg_partition_tree(c.oid) t WHERE t.isleaf)
) p ON true
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
GROUP BY c.oid, n.nspname, c.relname, c.relkind, n.oid
ORDER BY n.nspname, c.relname";

/// Columns of these tables, with domains resolved to what they rest on.
const COLUMNS: &str = "
WITH RECURSIVE base AS (
    SELECT t.oid AS start, t.oid, t.typtype, t.typbasetype, -1 AS mod, t.typnotnull AS notnull
    FROM pg_type t
  UNION ALL
    SELECT b.start, t.oid, t.typtype, t.typbasetype,
           (SELECT d.typtypmod FROM pg_type d WHERE d.oid = b.oid), b.notnull OR t.typnotnull
    FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
), resolved AS (SELECT * FROM base WHERE typtype <> 'd')
SELECT a.attrelid, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod),
       t.typname::text, t.typtype::text, t.typcategory::text,
       coalesce(e.typname::text, ''), coalesce(e.typtype::text, ''),
       CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE r.mod END,
       NOT (a.attnotnull OR r.notnull), a.attgenerated <> '',
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique
               AND a.attnum = ANY (i.indkey)),
       EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'c'
               AND a.attnum = ANY (k.conkey))
       OR EXISTS (SELECT FROM pg_index i JOIN pg_depend d ON d.classid = 'pg_class'::regclass
               AND d.objid = i.indexrelid AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
               WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indpred IS NOT NULL
               AND NOT a.attnum = ANY (i.indkey))
FROM pg_attribute a
JOIN resolved r ON r.start = a.atttypid
JOIN pg_type t ON t.oid = r.oid
LEFT JOIN resolved er ON er.start = t.typelem AND t.typcategory = 'A'
LEFT JOIN pg_type e ON e.oid = er.oid
WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

/// Unique keys without nulls, expressions or conditions; the primary one first.
const IDENTITIES: &str = "
SELECT DISTINCT ON (i.indrelid) i.indrelid, i.indkey::int2[]
FROM pg_index i
WHERE i.indrelid = ANY ($1) AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
  AND i.indisvalid
  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid
                  AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)
ORDER BY i.indrelid, NOT i.indisprimary, i.indnkeyatts, i.indexrelid";

/// Foreign keys. Those of a single partition count for the whole table: its rows have them.
const FOREIGN_KEYS: &str = "
SELECT min(c.conname::text),
       coalesce(pg_partition_root(c.conrelid), c.conrelid)::oid AS child,
       (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(c.conkey) WITH ORDINALITY k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum) AS child_columns,
       coalesce(pg_partition_root(c.confrelid), c.confrelid)::oid AS parent,
       (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(c.confkey) WITH ORDINALITY k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.attnum) AS parent_columns,
       bool_and(c.convalidated)
FROM pg_constraint c
WHERE c.contype = 'f' AND c.conparentid = 0
GROUP BY 2, 3, 4, 5
ORDER BY 2, 3, 1";

/// Reads the schema, on a connection whose `search_path` is empty.
///
/// # Errors
/// If rows cannot be read, or some of them would be hidden: by a missing grant, or by row-level
/// security, which would leave them out without a word.
pub(super) async fn read(client: &Client) -> Result<Schema, Error> {
    let doing = || "reading the source's schema".to_owned();
    let rows = client.query(TABLES, &[]).await.doing(doing)?;
    let mut places: HashMap<Oid, usize> = HashMap::new();
    let mut oids = Vec::new();
    let mut tables = Vec::new();
    let mut forbidden = Vec::new();
    for row in rows {
        let table = Table {
            name: TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2)),
            columns: Vec::new(),
            identity: None,
            partitioned: row.get(3),
            rows: row.get::<_, f64>(4) as u64,
            bytes: row.get::<_, i64>(5).max(0) as u64,
            row_security: row.get(6),
        };
        if !row.get::<_, bool>(7) {
            forbidden.push(table.name.sql());
        }
        places.insert(row.get(0), tables.len());
        oids.push(row.get::<_, Oid>(0));
        tables.push(table);
    }
    if !forbidden.is_empty() {
        let cause = format!("not allowed: GRANT SELECT ON {} TO the role", forbidden.join(", "));
        return Err(Error::said(doing(), cause));
    }
    let hidden: Vec<String> =
        tables.iter().filter(|table| table.row_security).map(|t| t.name.to_string()).collect();
    if !hidden.is_empty() {
        let cause = format!(
            "row-level security would hide rows of {} from this role; it must own them or have \
             BYPASSRLS",
            hidden.join(", ")
        );
        return Err(Error::said(doing(), cause));
    }
    let numbers = columns(client, &oids, &places, &mut tables).await?;
    identities(client, &oids, &places, &numbers, &mut tables).await?;
    let foreign_keys = foreign_keys(client, &places, &tables).await?;
    Ok(Schema { tables, foreign_keys })
}

/// Fills in the columns; returns the catalog's number of each.
async fn columns(
    client: &Client,
    oids: &[Oid],
    places: &HashMap<Oid, usize>,
    tables: &mut [Table],
) -> Result<Vec<Vec<i16>>, Error> {
    let rows = client.query(COLUMNS, &[&oids]).await.doing(|| "reading columns".to_owned())?;
    let mut numbers = vec![Vec::new(); tables.len()];
    for row in rows {
        let at = places[&row.get::<_, Oid>(0)];
        let modifier: i32 = row.get(9);
        let kind = kind(
            Type { name: row.get(4), class: row.get(5), category: row.get(6) },
            Type { name: row.get(7), class: row.get(8), category: "" },
        );
        numbers[at].push(row.get::<_, i16>(1));
        let is_text = matches!(kind, ValueKind::Text { .. });
        tables[at].columns.push(Column {
            name: row.get(2),
            type_name: row.get(3),
            // The catalog counts a header of four bytes.
            max_chars: (is_text && modifier > 4).then(|| (modifier - 4) as u32),
            kind,
            nullable: row.get(10),
            generated: row.get(11),
            unique: row.get(12),
            checked: row.get(13),
        });
    }
    Ok(numbers)
}

struct Type<'a> {
    name: &'a str,
    /// `typtype`
    class: &'a str,
    /// `typcategory`
    category: &'a str,
}

fn kind(of: Type, element: Type) -> ValueKind {
    match (of.class, of.category) {
        ("e", _) => return ValueKind::Enum,
        ("c", _) => return ValueKind::Composite,
        (_, "A") => {
            let none = Type { name: "", class: "", category: "" };
            return ValueKind::Array(Box::new(kind(element, none)));
        }
        _ => {}
    }
    match of.name {
        "text" | "varchar" | "bpchar" | "name" => ValueKind::Text { folds: false },
        "citext" => ValueKind::Text { folds: true },
        "int2" => ValueKind::Int(2),
        "int4" => ValueKind::Int(4),
        "int8" => ValueKind::Int(8),
        "numeric" => ValueKind::Numeric,
        "float4" => ValueKind::Float(4),
        "float8" => ValueKind::Float(8),
        "bool" => ValueKind::Bool,
        "uuid" => ValueKind::Uuid,
        "date" => ValueKind::Date,
        "timestamp" | "timestamptz" => ValueKind::Timestamp,
        "json" => ValueKind::Json,
        "jsonb" => ValueKind::Jsonb,
        "bytea" => ValueKind::Bytes,
        "inet" | "cidr" => ValueKind::Inet,
        _ => ValueKind::Other,
    }
}

async fn identities(
    client: &Client,
    oids: &[Oid],
    places: &HashMap<Oid, usize>,
    numbers: &[Vec<i16>],
    tables: &mut [Table],
) -> Result<(), Error> {
    let rows = client.query(IDENTITIES, &[&oids]).await.doing(|| "reading keys".to_owned())?;
    for row in rows {
        let at = places[&row.get::<_, Oid>(0)];
        let key: Vec<i16> = row.get(1);
        let columns = key.iter().map(|number| numbers[at].iter().position(|n| n == number));
        tables[at].identity = columns.collect();
    }
    Ok(())
}

async fn foreign_keys(
    client: &Client,
    places: &HashMap<Oid, usize>,
    tables: &[Table],
) -> Result<Vec<ForeignKey>, Error> {
    let rows = client.query(FOREIGN_KEYS, &[]).await;
    let rows = rows.doing(|| "reading foreign keys".to_owned())?;
    let mut keys = Vec::new();
    for row in rows {
        let ends = (places.get(&row.get::<_, Oid>(1)), places.get(&row.get::<_, Oid>(3)));
        // Others are between tables that are not copied, such as an extension's.
        let (Some(&child), Some(&parent)) = ends else { continue };
        let places_of = |table: usize, names: Vec<String>| {
            names.iter().map(|name| tables[table].column(name)).collect::<Option<Vec<usize>>>()
        };
        let columns = (places_of(child, row.get(2)), places_of(parent, row.get(4)));
        let (Some(child_columns), Some(parent_columns)) = columns else { continue };
        keys.push(ForeignKey {
            name: row.get(0),
            child: TableId(child),
            child_columns,
            parent: TableId(parent),
            parent_columns,
            validated: row.get(5),
        });
    }
    keys.sort_by(|a, b| (a.child, &a.child_columns).cmp(&(b.child, &b.child_columns)));
    Ok(keys)
}
