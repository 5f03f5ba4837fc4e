//! `hybrid_recall`, `hybrid_needs_reindex`.

use crate::error::{Fault, raise};
use crate::pg::buffer::IndexStore;
use crate::pg::encoding::{Text, to_server};
use crate::pg::relation::{OpenIndex, OpenTable};
use crate::pg::settings::with_settings;
use ann::distance::Metric;
use ann::error::Error;
use ann::index::Meta;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};
use std::time::Instant;

/// Times and answers of one way to search: the distances of the rows found.
#[derive(Default)]
struct Run {
    milliseconds: Vec<f64>,
    answers: Vec<Vec<f64>>,
}

impl Run {
    fn mean(&self) -> f64 {
        self.milliseconds.iter().sum::<f64>() / self.milliseconds.len() as f64
    }

    fn p99(&self) -> f64 {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
    }
}

/// What the queries are made of, quoted for SQL.
struct Target {
    table: String,
    /// The indexed column or expression.
    vector: String,
    /// The index's predicate as a condition, or `true`.
    predicate: String,
    operator: String,
    schema: String,
}

impl Target {
    fn of(oid: pg_sys::Oid, metric: Metric) -> Self {
        let operator = match metric {
            Metric::L2 => "<->",
            Metric::InnerProduct => "<#>",
            Metric::Cosine => "<=>",
            Metric::L1 => "<+>",
        };
        // Not `Spi::get_one_with_args`, which assigns a transaction id: a standby has none.
        let one =
            |sql: &str| Spi::connect(|client| client.select(sql, Some(1), &[oid.into()])?.first().get_one::<Text>());
        let text = |sql: &str| one(sql).unwrap_or_else(|error| fail(&error)).map(|text| text.0);
        let table = text("SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = $1");
        let vector = text("SELECT pg_get_indexdef($1, 1, false)");
        let predicate = text("SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indexrelid = $1");
        let schema = text(
            "SELECT quote_ident(n.nspname) FROM pg_index i JOIN pg_opclass c ON c.oid = i.indclass[0]
             JOIN pg_namespace n ON n.oid = c.opcnamespace WHERE i.indexrelid = $1",
        );
        Self {
            table: table.expect("an index has a table"),
            vector: vector.expect("an index has a first column"),
            predicate: predicate.unwrap_or_else(|| "true".into()),
            operator: operator.into(),
            schema: schema.expect("an operator class has a schema"),
        }
    }

    fn search(&self, k: i32) -> String {
        let Self { table, vector, predicate, operator, schema } = self;
        let distance = format!("({vector}) OPERATOR({schema}.{operator}) $1::text::{schema}.vector");
        format!("SELECT {distance} FROM ONLY {table} WHERE {predicate} ORDER BY {distance} LIMIT {k}")
    }

    fn sample(&self, queries: i32) -> String {
        let Self { table, vector, predicate, .. } = self;
        format!(
            "SELECT ({vector})::text FROM ONLY {table} WHERE {predicate} AND ({vector}) IS NOT NULL
             ORDER BY random() LIMIT {queries}"
        )
    }
}

/// A query in the encoding of the database.
fn in_server(sql: &str) -> CString {
    to_server(sql).expect("catalogs hold no zero bytes")
}

#[cold]
pub(super) fn fail(error: &pgrx::spi::Error) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("could not query the indexed table: {error}"))
}

/// Runs the query for each vector.
fn run(sql: &CStr, vectors: &[String]) -> Run {
    let mut run = Run::default();
    Spi::connect(|client| {
        for vector in vectors {
            pgrx::check_for_interrupts!();
            let start = Instant::now();
            let rows = client.select(sql, None, &[DatumWithOid::from(vector.as_str())])?;
            run.milliseconds.push(start.elapsed().as_secs_f64() * 1000.0);
            let mut answer = Vec::with_capacity(rows.len());
            for row in rows {
                answer.push(row.get::<f64>(1)?.unwrap_or(f64::NAN));
            }
            run.answers.push(answer);
        }
        Ok::<_, pgrx::spi::Error>(())
    })
    .unwrap_or_else(|error| fail(&error));
    run
}

/// Whether the planner would use the index for the query.
fn uses_index(sql: &CStr, vector: &str, index: &str) -> bool {
    let plan = Spi::connect(|client| {
        // Prepared as what may change something, which SPI takes EXPLAIN for. Assigns no transaction id.
        let explain = client.prepare_mut(sql, &[PgBuiltInOids::TEXTOID.oid()])?;
        let rows = client.select(&explain, None, &[DatumWithOid::from(vector)])?;
        rows.map(|row| Ok(row.get::<Text>(1)?.unwrap_or_default())).collect::<Result<Vec<Text>, pgrx::spi::Error>>()
    })
    .unwrap_or_else(|error| fail(&error));
    plan.iter().any(|Text(line)| line.contains("Index Scan using") && line.contains(index))
}

/// Share of the true nearest that were found; a row as near as the furthest true one is one of them.
fn recall(exact: &Run, found: &Run) -> f64 {
    let (mut hits, mut wanted) = (0, 0);
    for (exact, found) in exact.answers.iter().zip(&found.answers) {
        let Some(&furthest) = exact.last() else { continue };
        hits += found.iter().filter(|&&d| furthest.is_nan() || d <= furthest).count().min(exact.len());
        wanted += exact.len();
    }
    if wanted == 0 { f64::NAN } else { hits as f64 / wanted as f64 }
}

/// Recall, then mean and 99th percentile of times by the index, then of exact searches. `None`: there are no rows.
fn measure(target: &Target, index: &str, (queries, k): (i32, i32)) -> Option<(f64, f64, f64, f64, f64)> {
    let vectors = Spi::connect(|client| {
        let rows = client.select(&in_server(&target.sample(queries)), None, &[])?;
        rows.map(|row| Ok(row.get::<String>(1)?.unwrap_or_default())).collect::<Result<Vec<String>, pgrx::spi::Error>>()
    })
    .unwrap_or_else(|error| fail(&error));
    let first = vectors.first()?;
    let (search, explain) = (in_server(&target.search(k)), in_server(&format!("EXPLAIN {}", target.search(k))));
    let by_index = [(c"enable_seqscan", c"off"), (c"enable_sort", c"off"), (c"enable_indexscan", c"on")];
    let found = with_settings(&by_index, || {
        if !uses_index(&explain, first, index) {
            Fault::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("searches of the table do not use index \"{index}\""),
            )
            .hint("Another index may be preferred, or this one may not be valid.")
            .raise();
        }
        run(&search, &vectors)
    });
    let by_table = [(c"enable_indexscan", c"off"), (c"enable_bitmapscan", c"off"), (c"enable_indexonlyscan", c"off")];
    let exact = with_settings(&by_table, || run(&search, &vectors));
    Some((recall(&exact, &found), found.mean(), found.p99(), exact.mean(), exact.p99()))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of the function's result")]
fn hybrid_recall(
    index: pg_sys::Oid,
    queries: i32,
    k: i32,
) -> TableIterator<
    'static,
    (
        name!(recall, f64),
        name!(index_mean_ms, f64),
        name!(index_p99_ms, f64),
        name!(exact_mean_ms, f64),
        name!(exact_p99_ms, f64),
    ),
> {
    if queries < 1 || k < 1 {
        raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "queries and k must be at least 1");
    }
    let opened = OpenIndex::open(index);
    crate::pg::rights::check_may_inspect(&opened, false);
    let meta = crate::am::or_raise(opened.index(), Meta::read(&IndexStore::new(opened.index())));
    let target = Target::of(index, meta.parameters.metric);
    // The queries have the index's expressions in them, which are the owner's code.
    let table = OpenTable::open(opened.table());
    let measured = table.as_owner(|| measure(&target, &opened.index().name(), (queries, k)));
    TableIterator::new(measured.into_iter().collect::<Vec<_>>())
}

#[pg_extern(sql = false)]
fn hybrid_needs_reindex() -> TableIterator<'static, (name!(index, pg_sys::Oid), name!(format, i32))> {
    let unreadable = super::hybrid_indexes().into_iter().filter_map(|oid| {
        let opened = OpenIndex::open(oid);
        match Meta::read(&IndexStore::new(opened.index())) {
            Err(Error::TooNew { found, .. }) => Some((oid, i32::from(found))),
            _ => None,
        }
    });
    TableIterator::new(unreadable.collect::<Vec<_>>())
}
